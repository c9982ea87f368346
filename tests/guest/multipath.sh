# Two sessions to the two nodes of a pair under multipathd and dm-multipath with ALUA: PORT0 is the holder's, PORT1 the other's,
# TARGET is at both. The host cuts the first way where this says "cut", and mends it where it says "mend".
. /common.sh
start_udevd
start_iscsid
login "$PORT0" "$TARGET"
first=$disk
login "$PORT1" "$TARGET"
second=$disk
number_of() { cat "/sys/block/$1/dev"; }
state_of() { cat "/sys/block/$1/device/access_state"; }

say "two ways: $(state_of "$first"), $(state_of "$second")"
[ "$(cat "/sys/block/$first/device/wwid")" = "$(cat "/sys/block/$second/device/wwid")" ] || fail "two logical units"
[ "$(state_of "$first")" = active/optimized ] || fail "the holder's way is $(state_of "$first")"
[ "$(state_of "$second")" != active/optimized ] || fail "both ways are the best"
[ "$(cat "/sys/block/$first/device/dh_state")" = alua ] || fail "no ALUA"

say "multipathd"
# What an administrator would set: everything else, ALUA above all, is found out.
cat >/etc/multipath.conf <<'END'
defaults {
    find_multipaths yes
    polling_interval 1
    max_polling_interval 2
    no_path_retry queue
    failback immediate
}
END
must multipathd
# The map's name is the NAA designator of both ways.
found() { ls /dev/mapper/3*; }
within 60 found
both=$(found)
map=${both#/dev/mapper/}
ways() { multipathd show paths raw format "%d %t %T %p" | sort >/tmp/ways; cat /tmp/ways; }
# way DISK STATE: active or failed.
way_is() { ways | grep -q "^$1 $2 "; }
within 30 way_is "$first" active
within 30 way_is "$second" active
# Two groups of one way each, the holder's the better one.
priority_of() { ways | awk -v disk="$1" '$1 == disk { print $4 }'; }
say "priorities: $(priority_of "$first"), $(priority_of "$second")"
[ "$(priority_of "$first")" -ge 50 ] && [ "$(priority_of "$second")" -eq 10 ] || fail "ALUA does not tell the ways apart"
[ "$(multipathd show maps raw format "%N")" -eq 2 ] || fail "$(multipathd show topology)"
exercise "$both" 4
must blkdiscard --offset 16777216 --length 8388608 "$both"

say "persistent reservations over both ways"
for device in "$first" "$second"; do
    must sg_persist --out --register-ignore --param-sark=0xabc "/dev/$device"
done
must sg_persist --out --reserve --param-rk=0xabc --prout-type=7 "/dev/$first"
must sg_persist --in --read-reservation "/dev/$second"
grep -q 'Registrants only, all registrants\|All Registrants\|all registrants' /tmp/out || fail "no reservation at the other node: $(cat /tmp/out)"
must dd if=/dev/zero of="$both" bs=4k count=1 seek=6000 oflag=dsync
must sg_persist --out --clear --param-rk=0xabc "/dev/$second"

say "a way is cut under load"
must mke2fs -q -t ext4 -b 4096 "$both"
must mount -t ext4 "$both" /mnt
load() {
    number=0
    while [ ! -e /tmp/enough ]; do
        number=$((number + 1))
        dd if=/dev/urandom of=/mnt/piece$((number % 40)) bs=4k count=4 oflag=dsync 2>/dev/null || echo "$number" >>/tmp/errors
        echo "$number" >/tmp/written
    done
}
load &
load=$!
written() { cat /tmp/written 2>/dev/null || echo 0; }
moved_on() { [ "$(written)" -gt $(($1 + 10)) ]; }
within 60 moved_on 0
say cut
within 60 way_is "$first" failed
within 60 moved_on "$(written)"
way_is "$second" active || fail "the other way failed, too"
say mend
# Its checker finds the way again, and its priority brings the I/O back to it.
within 90 way_is "$first" active
served() { awk '{ print $7 }' "/sys/block/$1/stat"; }
goes_by_first() {
    local before
    before=$(served "$first")
    sleep 1
    [ "$(served "$first")" -gt "$before" ]
}
within 30 goes_by_first
within 60 moved_on "$(written)"
touch /tmp/enough
wait $load
[ ! -e /tmp/errors ] || fail "writes failed: $(cat /tmp/errors)"

say "the data of both ways"
comes_back "$both" 'piece*'
must cmp --bytes=25165824 "/dev/$first" "/dev/$second"
must multipathd disablequeueing map "$map"
within 20 multipath -f "$map"
must multipathd shutdown
logout "$PORT0" "$TARGET"
logout "$PORT1" "$TARGET"

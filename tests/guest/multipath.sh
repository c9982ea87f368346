# Two sessions to the two nodes of a pair under dm-multipath with ALUA: PORT0 is the holder's, PORT1 the other's, TARGET is at both.
# The host cuts the first way where this says "cut", and mends it where it says "mend".
. /common.sh
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

say "dm-multipath"
way() { echo "round-robin 0 1 1 $(number_of "$1") 1"; }
export DM_DISABLE_UDEV=1
must dmsetup create both --table \
    "0 $(cat "/sys/block/$first/size") multipath 1 queue_if_no_path 1 alua 2 1 $(way "$first") $(way "$second")"
both=/dev/mapper/both
within 5 test -b "$both"
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
written() { cat /tmp/written 2>/dev/null || echo 0; }
moved_on() { [ "$(written)" -gt $(($1 + 10)) ]; }
within 60 moved_on 0
# Each way with A for active or F for failed.
way_is() { dmsetup status both | grep -q "$(number_of "$1") $2"; }
say cut
within 60 way_is "$first" F
within 60 moved_on "$(written)"
way_is "$second" A || fail "the other way failed, too"
say mend
# What multipathd does when its checker finds the way again.
within 90 sg_turs "/dev/$first"
must dmsetup message both 0 reinstate_path "$(number_of "$first")"
must dmsetup message both 0 switch_group 1
within 30 way_is "$first" A
within 60 moved_on "$(written)"
touch /tmp/enough
wait
[ ! -e /tmp/errors ] || fail "writes failed: $(cat /tmp/errors)"

say "the data of both ways"
sums=$(cd /mnt && sha256sum piece* | sha256sum)
must umount /mnt
echo 3 >/proc/sys/vm/drop_caches
must e2fsck -f -n "$both"
must mount -t ext4 "$both" /mnt
[ "$sums" = "$(cd /mnt && sha256sum piece* | sha256sum)" ] || fail "other data"
must umount /mnt
must cmp --bytes=25165824 "/dev/$first" "/dev/$second"
must dmsetup remove both
logout "$PORT0" "$TARGET"
logout "$PORT1" "$TARGET"

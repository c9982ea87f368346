# One session at a time: without digests, with both, with CHAP. PLAIN and SECRET are targets at PORT.
. /common.sh
start_iscsid

say "discovery"
must iscsiadm -m discovery -t sendtargets -p "$HOST:$PORT"
grep -q "$PLAIN" /tmp/out || fail "discovery does not find $PLAIN"
for record in /etc/iscsi/nodes/* /etc/iscsi/send_targets/*; do rm -rf "$record"; done

say "without digests"
login "$PORT" "$PLAIN" 'node.conn[0].iscsi.HeaderDigest=None' 'node.conn[0].iscsi.DataDigest=None'
[ "$(agreed header_digest)$(agreed data_digest)" = 00 ] || fail "digests that nobody wanted"
exercise "/dev/$disk" 8

say "probes"
device=/dev/$disk
must sg_turs "$device"
must sg_inq "$device"
must sg_inq --page=sv "$device"
for page in 0x80 0x83 0x86 0xb0 0xb1 0xb2; do must sg_vpd --page="$page" "$device"; done
must sg_luns "$device"
must sg_readcap --long "$device"
must sg_modes --all "$device"
must sg_opcodes "$device"
must sg_rtpg --decode "$device"
must sg_get_lba_status "$device"
must sg_verify --count=128 "$device"
must sg_write_same --lba=2048 --num=64 --10 --in=/dev/zero "$device"
[ -z "$(dd if="$device" bs=512 skip=2048 count=64 2>/dev/null | tr -d '\0' | head -c 1)" ] || fail "WRITE SAME"

say "512e"
# Logical blocks of 512 bytes in physical ones of 4096, from READ CAPACITY(16); single ones are written all the same.
queue() { cat "/sys/block/$disk/queue/$1"; }
blocks="$(queue logical_block_size) $(queue physical_block_size) $(queue minimum_io_size) $(cat "/sys/block/$disk/alignment_offset")"
[ "$blocks" = "512 4096 4096 0" ] || fail "blocks of $blocks"
must dd if=/dev/urandom of=/tmp/around bs=4096 count=4
must dd if=/tmp/around of="$device" bs=4096 seek=1000 count=4 oflag=direct
must dd if=/dev/urandom of=/tmp/odd bs=512 count=9
must dd if=/tmp/odd of="$device" bs=512 seek=8003 count=9 oflag=direct conv=fsync
must dd if=/tmp/odd of=/tmp/around bs=512 seek=3 count=9 conv=notrunc
echo 3 >/proc/sys/vm/drop_caches
must dd if="$device" of=/tmp/read bs=512 skip=8000 count=32 iflag=direct
must cmp /tmp/read /tmp/around

say "discard"
[ "$(cat "/sys/block/$disk/queue/discard_max_bytes")" -gt 0 ] || fail "the kernel sees no discard"
must dd if=/dev/urandom of="$device" bs=1M count=4 conv=fsync
must blkdiscard --offset 1048576 --length 2097152 "$device"
echo 3 >/proc/sys/vm/drop_caches
[ -z "$(dd if="$device" bs=1M skip=1 count=2 2>/dev/null | tr -d '\0' | head -c 1)" ] || fail "discarded blocks are not zero"
[ -n "$(dd if="$device" bs=1M skip=3 count=1 2>/dev/null | tr -d '\0' | head -c 1)" ] || fail "blocks beside are gone"
must blkdiscard --zeroout --offset 3145728 --length 1048576 "$device"

say "persistent reservations"
must sg_persist --out --register --param-sark=0xabc "$device"
must sg_persist --out --reserve --param-rk=0xabc --prout-type=5 "$device"
must sg_persist --in --read-reservation "$device"
grep -q 0xabc /tmp/out || fail "no reservation: $(cat /tmp/out)"
must sg_persist --in --read-full-status "$device"
grep -q iqn.2026-11.example:guest /tmp/out || fail "the registrant is not named: $(cat /tmp/out)"
must sg_persist --out --release --param-rk=0xabc --prout-type=5 "$device"
must sg_persist --out --register --param-rk=0xabc --param-sark=0 "$device"
logout "$PORT" "$PLAIN"

say "with digests"
login "$PORT" "$PLAIN" 'node.conn[0].iscsi.HeaderDigest=CRC32C' 'node.conn[0].iscsi.DataDigest=CRC32C'
[ "$(agreed header_digest)$(agreed data_digest)" = 11 ] || fail "no digests"
exercise "/dev/$disk" 4
logout "$PORT" "$PLAIN"

say "with CHAP"
must iscsiadm -m node -o new -T "$SECRET" -p "$HOST:$PORT"
iscsiadm -m node -T "$SECRET" -p "$HOST:$PORT" --login >/tmp/out 2>&1 && fail "a login without the secret"
login "$PORT" "$SECRET" node.session.auth.authmethod=CHAP \
    node.session.auth.username=host node.session.auth.password=the-host-secret \
    node.session.auth.username_in=node node.session.auth.password_in=the-node-secret
must dd if="/dev/$disk" of=/dev/null bs=1M count=2
logout "$PORT" "$SECRET"

# What the guests' scripts share. The host's loopback is 10.0.2.2 here.
HOST=10.0.2.2

say() { echo "guest: $*"; }
# Ends the guest's work with what went wrong, and what the kernel says.
fail() {
    say "what went wrong: $*"
    dmesg | tail -25
    exit 1
}
must() { "$@" >/tmp/out 2>&1 || { cat /tmp/out; fail "$*"; }; }
# Waits up to so many seconds for a command to succeed.
within() {
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 10))); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "not within $seconds s: $*"
}

# The shell would take its own applets first.
dd() { /bin/dd "$@"; }
cmp() { /bin/cmp "$@"; }
mke2fs() { /bin/mke2fs "$@"; }
blkdiscard() { /bin/blkdiscard "$@"; }

# Devices' names and identities, as multipathd wants to be told of them.
start_udevd() {
    mkdir -p /run/udev
    must systemd-udevd --daemon
    must udevadm trigger --action=add
    must udevadm settle
}

start_iscsid() {
    echo "InitiatorName=iqn.2026-11.example:guest" >/etc/iscsi/initiatorname.iscsi
    cat >/etc/iscsi/iscsid.conf <<'END'
node.startup = manual
node.session.timeo.replacement_timeout = 3
node.conn[0].timeo.login_timeout = 10
node.conn[0].timeo.logout_timeout = 10
node.conn[0].timeo.noop_out_interval = 2
node.conn[0].timeo.noop_out_timeout = 3
node.session.err_timeo.abort_timeout = 10
node.session.err_timeo.lu_reset_timeout = 15
node.session.initial_login_retry_max = 4
node.session.cmds_max = 64
node.session.queue_depth = 32
node.session.iscsi.InitialR2T = No
node.session.iscsi.ImmediateData = Yes
node.session.iscsi.FirstBurstLength = 262144
node.session.iscsi.MaxBurstLength = 16776192
node.conn[0].iscsi.MaxRecvDataSegmentLength = 262144
discovery.sendtargets.iscsi.MaxRecvDataSegmentLength = 32768
END
    must iscsid
}

# login PORT TARGET [KEY=VALUE...]: a session, whose disk's name is then in $disk.
login() {
    local port=$1 target=$2 pair before
    shift 2
    must iscsiadm -m node -o new -T "$target" -p "$HOST:$port"
    for pair in "$@"; do
        must iscsiadm -m node -T "$target" -p "$HOST:$port" -o update -n "${pair%%=*}" -v "${pair#*=}"
    done
    before=$(disks)
    must iscsiadm -m node -T "$target" -p "$HOST:$port" --login
    within 20 new_disk "$before"
    disk=$(new_disk "$before")
}
disks() { ls /sys/class/block | grep '^sd[a-z]*$'; }
# The disk that is there and was not.
new_disk() {
    local name
    for name in $(disks); do
        case " $(echo $1) " in *" $name "*) ;; *)
            [ -b "/dev/$name" ] && [ "$(cat "/sys/class/block/$name/size")" -gt 0 ] && { echo "$name"; return; }
            ;;
        esac
    done
    return 1
}
logout() {
    must iscsiadm -m node -T "$2" -p "$HOST:$1" --logout
    must iscsiadm -m node -T "$2" -p "$HOST:$1" -o delete
}

# What the session of a disk has agreed on.
agreed() { cat /sys/class/iscsi_connection/connection*/"$1" | tail -1; }

# A file system on a device, fsync-heavy writes, and its data after it was mounted again. The device keeps it.
exercise() {
    local device=$1 megabytes=$2
    must mke2fs -q -t ext4 -b 4096 "$device"
    must mount -t ext4 "$device" /mnt
    must dd if=/dev/urandom of=/mnt/random bs=256k count=$((megabytes * 4)) conv=fsync
    for number in $(seq 20); do
        must dd if=/dev/urandom of="/mnt/small$number" bs=4k count=3 oflag=dsync
    done
    comes_back "$device" '*m*'
}

# comes_back DEVICE PATTERN: what is mounted is clean when it is not, and these files are the same when it is again. Then it is not.
comes_back() {
    local device=$1 sums
    sums=$(sums "$2")
    must umount /mnt
    echo 3 >/proc/sys/vm/drop_caches
    must e2fsck -f -n "$device"
    must mount -t ext4 "$device" /mnt
    [ "$sums" = "$(sums "$2")" ] || fail "other data on $device"
    must umount /mnt
}
# The files of the pattern, which the shell takes apart here.
sums() { (cd /mnt && sha256sum $1 | sha256sum); }

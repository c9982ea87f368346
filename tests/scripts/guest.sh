#!/usr/bin/env bash
# Makes the guest of the kernel initiator's tests out of unpacked Debian packages: guest.sh FOLDER, where FOLDER/root holds them.
# Leaves FOLDER/vmlinux and FOLDER/initramfs, and FOLDER/disk, from which a machine boots. Nothing of it is installed on this machine.
set -euo pipefail

here=$(realpath "$(dirname "$0")")
folder=$(realpath "$1")
root=$folder/root
image=$folder/image
libraries=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu:$root/lib
version=$(cd "$root/lib/modules" && ls | head -1)

# Drivers, and what they need in the order of loading.
modules=(virtio_pci virtio_net iscsi_tcp sd_mod sg crc32c_generic crc32c_intel dm_mod dm_multipath dm_service_time scsi_dh_alua ext4 virtio_blk e1000 iscsi_ibft)
# From the packages if they hold it, else this machine's.
programs=(iscsid iscsiadm iscsistart dmsetup sg_inq sg_readcap sg_persist sg_rtpg sg_opcodes sg_turs sg_luns sg_vpd sg_modes
    sg_get_lba_status sg_write_same sg_verify sg_compare_and_write mke2fs e2fsck blkdiscard dd cmp
    multipathd multipath udevadm)

rm -rf "$image"
mkdir -p "$image"/{bin,dev,proc,sys,run,tmp,mnt,etc/iscsi,lib64,lib/modules,var/lib/iscsi,run/lock/iscsi}

# The loader and libraries that a program names, each under the path at which the loader looks for it.
closure() {
    LD_LIBRARY_PATH=$libraries ldd "$1" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | while read -r library; do
        cp -nL "$library" "$image/lib/" || true
    done
}
find_program() {
    local place
    for place in "$root"/{bin,sbin,usr/bin,usr/sbin} /bin /sbin /usr/bin /usr/sbin; do
        [ -x "$place/$1" ] && { echo "$place/$1"; return; }
    done
    echo "guest: $1 is nowhere" >&2
    return 1
}
cp "$root/bin/busybox" "$image/bin/"
cp -L /lib64/ld-linux-x86-64.so.2 "$image/lib64/"
for program in "${programs[@]}"; do
    found=$(find_program "$program")
    cp -L "$found" "$image/bin/$program"
    closure "$found"
done
# udevd, its rules and their helpers; what multipathd loads by name.
ln -s udevadm "$image/bin/systemd-udevd"
ln -s bin "$image/sbin"
mkdir -p "$image/lib/udev/rules.d" "$image/lib/multipath"
for helper in scsi_id kpartx_id; do
    cp "$root/lib/udev/$helper" "$image/lib/udev/"
done
for rules in 50-udev-default 55-dm 56-dm-mpath 60-block 60-multipath 60-persistent-storage 60-persistent-storage-dm 95-dm-notify; do
    cp "$root/lib/udev/rules.d/$rules.rules" "$image/lib/udev/rules.d/"
done
for part in checktur prioalua priosysfs prioconst; do
    cp "$root/lib/multipath/lib$part.so" "$image/lib/multipath/"
done
cp -L "$(ldconfig -p | sed -n 's/.*libgcc_s.so.1 .*x86-64.* => //p' | head -1)" "$image/lib/"
strip --strip-unneeded "$image"/lib/*.so* 2>/dev/null || true

# Modules without what makes loading slow under emulation: debug sections and signatures.
modprobe=("$(find_program kmod)")
ln -sf "${modprobe[0]}" "$folder/depmod"
ln -sf "${modprobe[0]}" "$folder/modprobe"
LD_LIBRARY_PATH=$libraries "$folder/depmod" -b "$root" "$version"
for module in "${modules[@]}"; do
    LD_LIBRARY_PATH=$libraries "$folder/modprobe" -d "$root" -S "$version" --show-depends "$module" |
        sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' >"$folder/order"
number=100
while read -r file; do
    number=$((number + 1))
    strip --strip-debug -o "$image/lib/modules/$number-$(basename "$file")" "$file"
done <"$folder/order"

cp "$here/../guest/init" "$image/init"
chmod 755 "$image/init"
printf 'root:x:0:0:root:/:/bin/sh\n' >"$image/etc/passwd"

(cd "$image" && find . | "$root/bin/busybox" cpio -o -H newc 2>/dev/null) >"$folder/initramfs.new"

# The kernel's own image inside the compressed one: it boots in half the time under emulation.
packed=$(find "$root/boot" -name 'vmlinuz-*' | head -1)
offset=$(LC_ALL=C grep -abo -P '\xfd7zXZ\x00' "$packed" | head -1 | cut -d: -f1)
tail -c "+$((offset + 1))" "$packed" | xz -dc --single-stream 2>/dev/null >"$folder/vmlinux.new" || true
LC_ALL=C head -c 4 "$folder/vmlinux.new" | grep -q ELF || { echo "guest: no kernel in $packed" >&2; exit 1; }
mv "$folder/vmlinux.new" "$folder/vmlinux"

# A disk with a boot loader, kernel and initial file system on its first partition, and a system on its second, in MiB.
disk=$folder/disk.new
loader_at=1 loader=40 system_at=41 system=40
export PATH=$root/usr/bin:$PATH MTOOLS_SKIP_CHECK=1
rm -rf "$disk" "$folder/system" "$folder/early"
truncate -s "$((system_at + system))M" "$disk"
# Four bytes, the lowest first, as printf reads them.
number() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) $(($1 >> 24)); }
# partition BOOTABLE TYPE START LENGTH: an entry of the table without cylinders.
partition() { printf "\\x$1\\xfe\\xff\\xff\\x$2\\xfe\\xff\\xff$(number $(($3 * 2048)))$(number $(($4 * 2048)))"; }
write() { dd of="$disk" bs=1 seek="$1" conv=notrunc status=none; }
write 0 <"$root/usr/lib/syslinux/mbr/mbr.bin"
{ partition 80 0e $loader_at $loader; partition 00 83 $system_at $system; } | write 446
printf '\x55\xaa' | write 510

mformat -i "$disk@@${loader_at}M" -T $((loader * 2048)) -h 16 -s 63 -H $((loader_at * 2048)) ::
syslinux --offset $((loader_at << 20)) --install "$disk"
mkdir "$folder/early"
cp "$here/../guest/boot" "$folder/early/init"
cp "$here/../guest/common.sh" "$folder/early/"
{ cat "$folder/initramfs.new"; (cd "$folder/early" && find . | "$root/bin/busybox" cpio -o -H newc 2>/dev/null); } |
    gzip -1 >"$folder/early.gz"
cat >"$folder/syslinux.cfg" <<'END'
SERIAL 0 115200
DEFAULT system
LABEL system
KERNEL vmlinuz
INITRD early.gz
APPEND console=ttyS0 tsc=reliable no_timer_check mitigations=off cryptomgr.notests random.trust_cpu=on 8250.nr_uarts=1 quiet panic=-1
END
mcopy -i "$disk@@${loader_at}M" "$packed" ::vmlinuz
mcopy -i "$disk@@${loader_at}M" "$folder/early.gz" "$folder/syslinux.cfg" ::

cp -a "$image" "$folder/system"
rm -rf "$folder/system/lib/modules" "$folder/system/init"
cp "$here/../guest/root" "$folder/system/sbin/init"
cp "$here/../guest/common.sh" "$folder/system/"
mke2fs -q -t ext4 -b 4096 -d "$folder/system" -E "offset=$((system_at << 20))" "$disk" "${system}M"
mv "$disk" "$folder/disk"
mv "$folder/initramfs.new" "$folder/initramfs"

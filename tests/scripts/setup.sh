#!/usr/bin/env bash
# Installs the Debian packages that the end-to-end tests use, when root; otherwise says what is missing and which tests are
# skipped because of it.
set -uo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need iscsi-ls libiscsi-bin
need tgtd tgt
need mkfs.ext4 e2fsprogs
need fio fio
need valgrind valgrind
need python3 python3
need etcd etcd-server
need etcdctl etcd-client
need openssl openssl
need ip iproute2
need nft nftables
need ocf-tester resource-agents
need xmllint libxml2-utils
need pacemakerd pacemaker
need corosync corosync
need crm_attribute pacemaker-cli-utils
need systemd-analyze systemd
need qemu-img qemu-utils
need xz xz-utils
need strip binutils
need qemu-storage-daemon qemu-system-common

# SPDK's own client is the judge of the control socket.
client() {
    local venv=${CARGO_TARGET_DIR:-target}/spdk-venv
    [ -x "$venv/bin/spdk-rpc" ] && return
    python3 -m venv "$venv" 2>/dev/null && "$venv/bin/pip" install -q spdk==26.5 2>/dev/null && return
    echo "setup: SPDK's client (PyPI spdk 26.5) cannot be installed. The test that drives the socket with it is skipped."
}
cd "$(dirname "$0")/../.."
client

# An apt configuration of its own below a folder: packages of other suites of the machine's own mirror, without changing where the
# machine gets its packages. Leaves its options in `apt`. private_apt FOLDER SUITES
private_apt() {
    local folder=$1 suites=$2 uri suite
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    folder=$(realpath "$folder")
    uri=$(sed -n 's/^URIs: *//p; s/^deb \(\[.*\] \)\?\(http[^ ]*\) .*/\2/p' /etc/apt/sources.list.d/debian.sources \
        /etc/apt/sources.list 2>/dev/null | head -1)
    for suite in $suites; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$uri" "$suite"
    done >"$folder/sources.list"
    apt=(-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o Acquire::Retries=3 -qq)
    apt-get "${apt[@]}" update >/dev/null 2>&1
}

# Unpacks Debian packages of another suite below a folder; nothing is installed. unpack FOLDER SUITES PACKAGE...
# KERNEL stands for the package with the kernel that linux-image-amd64 names.
unpack() {
    local folder=$1 suites=$2 kernel
    shift 2
    private_apt "$folder" "$suites" || return
    kernel=$(apt-cache "${apt[@]}" depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    (cd "$folder" && apt-get "${apt[@]}" download "${@/#KERNEL/$kernel}" &&
        for package in *.deb; do dpkg -x "$package" root; done && rm -rf ./*.deb lists cache) >/dev/null 2>&1
}

# The emulator for guests: of the version of the other QEMU tools, which may come from backports.
emulator() {
    command -v qemu-system-x86_64 >/dev/null && return
    local folder=${CARGO_TARGET_DIR:-target}/qemu-system suite version suites
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    suites=$suite
    version=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null)
    case $version in *bpo*) suites="$suite $suite-backports" ;; esac
    if [ "$(id -u)" -eq 0 ] && private_apt "$folder" "$suites"; then
        echo "setup: installing qemu-system-x86"
        DEBIAN_FRONTEND=noninteractive apt-get "${apt[@]}" -y -t "${suites##* }" install --no-install-recommends \
            qemu-system-x86 >/dev/null 2>&1
        rm -rf "$folder"
    fi
    command -v qemu-system-x86_64 >/dev/null ||
        echo "setup: QEMU (qemu-system-x86) is missing. The tests of the kernel initiator are skipped."
}

# A guest with the Linux kernel's initiator, and a disk that a guest boots from.
guest() {
    local folder=${CARGO_TARGET_DIR:-target}/guest
    local packages="KERNEL busybox-static kmod open-iscsi libopeniscsiusr libisns0 libkmod2 libmount1 dmsetup libdevmapper1.02.1
        sg3-utils libsgutils2-1.46-2 multipath-tools kpartx udev libaio1 liburcu8 libedit2 libbsd0 libmd0 libjson-c5 syslinux syslinux-common mtools ipxe-qemu"
    [ "$folder/disk" -nt tests/scripts/guest.sh ] && [ "$(cat "$folder/packages" 2>/dev/null)" = "$packages" ] && return
    if [ "$(cat "$folder/packages" 2>/dev/null)" != "$packages" ]; then
        rm -rf "$folder"
        # shellcheck disable=SC2086 # a list
        unpack "$folder" "$(. /etc/os-release && echo "$VERSION_CODENAME")" $packages &&
            echo "$packages" >"$folder/packages"
    fi
    tests/scripts/guest.sh "$folder" ||
        echo "setup: the guest of the kernel initiator cannot be built. Its tests are skipped."
}

# QEMU's iSCSI driver has to be of the version of the installed tools, which may come from backports.
qemu_iscsi() {
    local modules=${CARGO_TARGET_DIR:-target}/qemu-modules version suite
    [ -e "$modules/iscsi/block-iscsi.so" ] && return
    version=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null) || return
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    unpack "$modules" "$suite $suite-backports" "qemu-block-extra=$version"
    modules=$(realpath "$modules")
    local module
    module=$(find "$modules/root" -name block-iscsi.so 2>/dev/null | head -1)
    if [ -n "$module" ]; then
        ln -sfn "$(dirname "$module")" "$modules/iscsi"
    else
        echo "setup: QEMU's iSCSI driver (qemu-block-extra $version) cannot be had. The file system test is skipped."
    fi
}

# libiscsi's conformance suite in its version 1.20.0, with the loader and libraries that it was built for.
conformance_suite() {
    local folder=${CARGO_TARGET_DIR:-target}/libiscsi
    [ -x "$folder/root/usr/bin/iscsi-test-cu" ] && return
    unpack "$folder" trixie libiscsi-bin libiscsi7 libcunit1 libc6 libibverbs1 librdmacm1t64 libnl-3-200 libnl-route-3-200
    [ -x "$folder/root/usr/bin/iscsi-test-cu" ] ||
        echo "setup: libiscsi's suite 1.20.0 cannot be had. The conformance tests are skipped."
}

if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing ${missing[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null && missing=()
fi
qemu_iscsi
conformance_suite
emulator
guest
[ ${#missing[@]} -eq 0 ] && exit 0
echo "setup: missing: ${missing[*]}. Tests that need them are skipped, each with a line that says so."

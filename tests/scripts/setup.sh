#!/usr/bin/env bash
# Installs the Debian packages that the end-to-end tests use, when root; otherwise says what is missing and which tests are
# skipped because of it.
set -uo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need iscsi-ls libiscsi-bin
need mkfs.ext4 e2fsprogs
need fio fio
need python3 python3
need etcd etcd-server
need etcdctl etcd-client
need qemu-img qemu-utils
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

# QEMU's iSCSI driver has to be of the version of the installed tools, which may come from backports: it is unpacked beside the
# build, from the machine's own mirrors, without changing what is installed.
qemu_iscsi() {
    local modules=${CARGO_TARGET_DIR:-target}/qemu-modules version suite uri list
    [ -e "$modules/iscsi/block-iscsi.so" ] && return
    version=$(dpkg-query -W -f '${Version}' qemu-utils 2>/dev/null) || return
    mkdir -p "$modules/lists/partial" "$modules/cache/archives/partial"
    modules=$(realpath "$modules")
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    uri=$(sed -n 's/^URIs: *//p; s/^deb \(\[.*\] \)\?\(http[^ ]*\) .*/\2/p' /etc/apt/sources.list.d/debian.sources \
        /etc/apt/sources.list 2>/dev/null | head -1)
    list=$modules/sources.list
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "$uri" "$suite" "$uri" "$suite-backports" >"$list"
    local options=(-o "Dir::Etc::sourcelist=$list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$modules/lists"
        -o "Dir::Cache=$modules/cache" -qq)
    (cd "$modules" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "qemu-block-extra=$version" &&
        dpkg -x qemu-block-extra_*.deb root) >/dev/null 2>&1
    local module
    module=$(find "$modules/root" -name block-iscsi.so 2>/dev/null | head -1)
    if [ -n "$module" ]; then
        ln -sfn "$(dirname "$module")" "$modules/iscsi"
    else
        echo "setup: QEMU's iSCSI driver (qemu-block-extra $version) cannot be had. The file system test is skipped."
    fi
}

if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing ${missing[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null && missing=()
fi
qemu_iscsi
[ ${#missing[@]} -eq 0 ] && exit 0
echo "setup: missing: ${missing[*]}. Tests that need them are skipped, each with a line that says so."

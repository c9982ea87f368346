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

# SPDK's own client is the judge of the control socket.
client() {
    local venv=${CARGO_TARGET_DIR:-target}/spdk-venv
    [ -x "$venv/bin/spdk-rpc" ] && return
    python3 -m venv "$venv" 2>/dev/null && "$venv/bin/pip" install -q spdk==26.5 2>/dev/null && return
    echo "setup: SPDK's client (PyPI spdk 26.5) cannot be installed. The test that drives the socket with it is skipped."
}
cd "$(dirname "$0")/../.."
client

[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing ${missing[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null && exit 0
fi
echo "setup: missing: ${missing[*]}. Tests that need them are skipped, each with a line that says so."

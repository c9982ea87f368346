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

[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing ${missing[*]}"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null && exit 0
fi
echo "setup: missing: ${missing[*]}. Tests that need them are skipped, each with a line that says so."

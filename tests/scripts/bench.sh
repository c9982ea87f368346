#!/usr/bin/env bash
# Reads 4 KiB blocks of a RAM disk over loopback with libiscsi's own load tool, five runs, and prints each.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v iscsi-perf >/dev/null || { echo "bench: iscsi-perf is missing: install libiscsi-bin"; exit 1; }
dir=$(mktemp -d)
bin=${CARGO_TARGET_DIR:-target}/release
"$bin/gemeld" --socket "$dir/s" 2>/dev/null &
node=$!
trap 'kill -TERM $node; wait $node; rm -rf "$dir"' EXIT
for _ in $(seq 100); do [ -S "$dir/s" ] && break; sleep 0.05; done
gemel() { "$bin/gemel" --socket "$dir/s" "$@"; }
gemel rpc bdev_malloc_create '{"name":"m0","block_size":512,"num_blocks":524288}' >/dev/null
gemel rpc iscsi_create_portal_group '{"tag":1,"portals":[{"host":"127.0.0.1","port":"0"}]}' >/dev/null
gemel rpc iscsi_create_initiator_group '{"tag":1,"initiators":["ANY"],"netmasks":["127.0.0.1"]}' >/dev/null
gemel rpc iscsi_create_target_node '{"name":"iqn.2026-11.org.gemel:bench","alias_name":"b","pg_ig_maps":[{"pg_tag":1,"ig_tag":1}],"luns":[{"bdev_name":"m0"}],"queue_depth":128}' >/dev/null
port=$(gemel rpc iscsi_get_portal_groups | sed -n 's/.*"port": "\([0-9]*\)".*/\1/p')
for run in 1 2 3 4 5; do
    for depth in 1 32; do
        line=$(timeout 30 iscsi-perf -b 8 -m "$depth" -r -t 3 "iscsi://127.0.0.1:$port/iqn.2026-11.org.gemel:bench/0" 2>&1 | tr '\r' '\n' | grep -i iops | tail -1)
        echo "run $run depth $depth: $line"
    done
done

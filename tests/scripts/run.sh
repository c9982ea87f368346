#!/usr/bin/env bash
# Starts a node on this machine, as an ordinary user, and exports a file-backed LUN on loopback.
# RUN_DIR keeps the file and the socket (default .run); PORT is the portal's (default 3260, 0 for a free one).
set -euo pipefail
cd "$(dirname "$0")/../.."

run_dir=${RUN_DIR:-.run}
port=${PORT:-3260}
profile=${PROFILE:-release}
target=iqn.2026-11.org.gemel:demo
cargo build --quiet --profile "$profile" -p daemon -p ctl
bin=${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")

mkdir -p "$run_dir"
[ -e "$run_dir/leg.img" ] || truncate -s 1G "$run_dir/leg.img"
socket=$run_dir/gemeld.sock
"$bin/gemeld" --socket "$socket" &
node=$!
trap 'kill -TERM $node 2>/dev/null || true; wait $node || true' EXIT
trap 'exit 0' INT TERM
for _ in $(seq 100); do
    [ -S "$socket" ] && break
    kill -0 $node 2>/dev/null || exit 1
    sleep 0.05
done

gemel() { "$bin/gemel" --socket "$socket" "$@"; }
gemel rpc bdev_uring_create "{\"name\":\"leg0\",\"filename\":\"$run_dir/leg.img\",\"block_size\":512}" >/dev/null
gemel rpc iscsi_create_portal_group "{\"tag\":1,\"portals\":[{\"host\":\"127.0.0.1\",\"port\":\"$port\"}]}" >/dev/null
gemel rpc iscsi_create_initiator_group '{"tag":1,"initiators":["ANY"],"netmasks":["127.0.0.0/8"]}' >/dev/null
gemel rpc iscsi_create_target_node "{\"name\":\"$target\",\"alias_name\":\"demo\",\"pg_ig_maps\":[{\"pg_tag\":1,\"ig_tag\":1}],\"luns\":[{\"bdev_name\":\"leg0\",\"lun_id\":0}],\"queue_depth\":64}" >/dev/null
port=$(gemel rpc iscsi_get_portal_groups | sed -n 's/.*"port": "\([0-9]*\)".*/\1/p')
echo
echo "LUN:     iscsi://127.0.0.1:$port/$target/0"
echo "Control: gemel --socket $socket lun list"
echo
while kill -0 $node 2>/dev/null; do
    gemel lun list
    if [ -t 1 ]; then sleep 2 && printf '\033[2A'; else wait $node; fi
done

#!/usr/bin/env bash
# Starts a mirrored pair on this machine, as an ordinary user: two nodes with file-backed legs, a volume on loopback.
# RUN_DIR keeps legs, sockets and configurations (default .run); PORT is the first of four ports (default 3260).
set -euo pipefail
cd "$(dirname "$0")/../.."

run_dir=${RUN_DIR:-.run}
port=${PORT:-3260}
profile=${PROFILE:-release}
cargo build --quiet --profile "$profile" -p daemon -p ctl
bin=${CARGO_TARGET_DIR:-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")

mkdir -p "$run_dir"
nodes=()
trap 'for node in "${nodes[@]}"; do kill -TERM "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; done' EXIT
trap 'exit 0' INT TERM

# What was interrupted before both nodes had saved their parts was never a pair: nobody has written to it.
[ -e "$run_dir/b.json" ] || rm -f "$run_dir"/{a,b}.{img,json} "$run_dir"/{vol0.chap,pair}

# A pair that was made before is taken up again from its saved configurations.
start() {
    local arguments=(--socket "$run_dir/$1.sock")
    [ -e "$run_dir/$1.json" ] && arguments+=(--config "$run_dir/$1.json")
    "$bin/gemeld" "${arguments[@]}" 2>>"$run_dir/$1.log" &
    nodes+=($!)
    for _ in $(seq 200); do
        [ -S "$run_dir/$1.sock" ] && return
        kill -0 "${nodes[-1]}" 2>/dev/null || break
        sleep 0.05
    done
    echo "node $1 does not start: see $run_dir/$1.log" >&2
    tail -n 3 "$run_dir/$1.log" >&2
    exit 1
}
gemel() { "$bin/gemel" --socket "$run_dir/$1.sock" "${@:2}"; }

start a
start b
if [ ! -e "$run_dir/b.json" ]; then
    at=127.0.0.1
    gemel a pair create vol0 --leg "$run_dir/a.img:1G" --secret-file "$run_dir/vol0.chap" \
        --listen $at:$((port + 1)) --peer $at:$((port + 2)) --portal $at:"$port" >"$run_dir/pair"
    uuid=$(sed -n 's/.*--uuid \([0-9a-f-]*\).*/\1/p' "$run_dir/pair")
    gemel b pair join vol0 --uuid "$uuid" --leg "$run_dir/b.img:1G" --secret-file "$run_dir/vol0.chap" \
        --listen $at:$((port + 2)) --peer $at:$((port + 1)) --portal $at:$((port + 3)) >/dev/null
    gemel a config save "$run_dir/a.json" >/dev/null
    gemel b config save "$run_dir/b.json" >/dev/null
fi
echo
sed -n 's/^LUN: /LUN:     /p' "$run_dir/pair"
echo "Control: $bin/gemel --socket $run_dir/a.sock status   (the other node: b.sock)"
echo
for _ in $(seq 100); do
    gemel a status | grep -qF '[UU]' && break
    sleep 0.1
done
if [ -t 1 ]; then
    while kill -0 "${nodes[0]}" 2>/dev/null; do
        shown=$(gemel a status; gemel a lun list | grep -v '\.leg') || break
        printf '%s\n' "$shown"
        sleep 1
        printf '\033[%dA\033[J' "$(printf '%s\n' "$shown" | wc -l)"
    done
else
    gemel a status
    gemel a lun list
    wait "${nodes[0]}"
fi

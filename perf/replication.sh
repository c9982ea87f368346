#!/usr/bin/env bash
# Mirrored writes over the dedicated NIC (smoltcp on packet rings) against kernel TCP on the same veth, interleaved: rounds of one node
# alone, a pair over kernel TCP, a pair over the NIC, the same with AF_XDP, and with packets of 1500 bytes; then kernel TCP and the NIC again over
# a switch that loses one frame in a thousand, and in a hundred. There the kernel's floor of a retransmission is 5 ms, as an administrator would
# set it. Each node has a core; legs are in memory. Needs root, iproute2, nft and python3.
#   perf/replication.sh [ROUNDS] [SECONDS]      BIN=target/release   writes perf/results/replication.json
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5} seconds=${2:-4} bin=$(realpath "${BIN:-target/release}")
a=gemel-bench-a$$ b=gemel-bench-b$$ switch=gemel-bench-s$$ work=$(mktemp -d /dev/shm/gemel-bench.XXXXXX)
pids=()
stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done; pids=(); }
clean() {
    stop
    for space in "$a" "$b" "$switch"; do ip netns del "$space" 2>/dev/null || :; done
    rm -rf "$work"
}
trap clean EXIT
for space in "$a" "$b" "$switch"; do ip netns add "$space"; ip -n "$space" link set lo up; done
ip -n "$switch" link add bridge type bridge
ip -n "$switch" link set bridge mtu 9000 up
wire() { # LOSS: frames in a thousand
    for space in "$a" "$b"; do ip -n "$space" link del repl 2>/dev/null || :; done
    if [ "$1" = 0 ]; then
        ip link add repl netns "$a" mtu 9000 type veth peer name repl netns "$b"
    else
        ip netns exec "$switch" nft flush ruleset
        for space in "$a" "$b"; do
            local port=to-${space:12:1}
            ip link add repl netns "$space" mtu 9000 type veth peer name "$port" netns "$switch"
            ip -n "$switch" link set "$port" mtu 9000 master bridge up
            ip netns exec "$switch" nft "add table netdev $port;
                add chain netdev $port in { type filter hook ingress device \"$port\" priority 0; policy accept; };
                add rule netdev $port in numgen random mod 1000 < $1 drop"
        done
    fi
    for space in "$a" "$b"; do ip -n "$space" link set repl mtu 9000 up; done
}

gemel() { "$bin/gemel" -s "$work/$1/socket" --json "${@:2}"; }
node() { # NAME SPACE CORE
    rm -rf "${work:?}/$1"; mkdir "$work/$1"
    ip netns exec "$2" "$bin/gemeld" --socket "$work/$1/socket" --memory 128 --cores "$3" 2>"$work/$1/log" &
    pids+=($!)
    until [ -S "$work/$1/socket" ]; do sleep 0.05; done
}
until_in_sync() { until "$bin/gemel" -s "$work/a/socket" status | grep -q '\[UU\]'; do sleep 0.05; done; }
load() { # DEPTH
    ip netns exec "$a" "$bin/gemel-perf" --json --depth "$1" --blocks 8192 --seconds "$seconds" --seed $((RANDOM + 1)) "$url"
}
record() { # ROUND KIND WHAT JSON
    printf '{"round":%s,"kind":"%s","what":"%s","report":%s}\n' "$1" "$2" "$3" "$4" >>"$work/records"
}
url=iscsi://127.0.0.1:3260/iqn.2026-11.org.gemel:vol0/0
pair() { # KIND LOSS
    local here=() there=()
    wire "$2"
    if [ "$1" != kernel ]; then
        local how=()
        case $1 in smoltcp-xdp) how=(--nic-device xdp) ;; smoltcp-1500) how=(--nic-mtu 1500) ;; esac
        here=(--nic repl --nic-address 10.61.0.1/24 "${how[@]}") there=(--nic repl --nic-address 10.61.0.2/24 "${how[@]}")
    else
        ip -n "$a" addr add 10.61.0.1/24 dev repl; ip -n "$b" addr add 10.61.0.2/24 dev repl
        [ "$2" = 0 ] || for space in "$a" "$b"; do ip -n "$space" route change 10.61.0.0/24 dev repl rto_min 5ms; done
    fi
    node a "$a" 0; node b "$b" 1
    uuid=$(gemel a pair create vol0 --leg "$work/a/leg:512M" --secret-file "$work/chap" --listen 10.61.0.1:3261 \
        --peer 10.61.0.2:3261 --portal 127.0.0.1:3260 "${here[@]}" | python3 -c 'import json,sys; print(json.load(sys.stdin)["uuid"])')
    gemel b pair join vol0 --uuid "$uuid" --leg "$work/b/leg:512M" --secret-file "$work/chap" --listen 10.61.0.2:3261 \
        --peer 10.61.0.1:3261 --portal 127.0.0.1:3260 "${there[@]}" >/dev/null
    until_in_sync
}
alone() {
    node a "$a" 0
    truncate -s 512M "$work/a/leg"
    gemel a rpc bdev_uring_create '{"name":"d0","filename":"'"$work"'/a/leg","block_size":512}' >/dev/null
    gemel a rpc iscsi_create_portal_group '{"tag":1,"portals":[{"host":"127.0.0.1","port":"3260"}]}' >/dev/null
    gemel a rpc iscsi_create_initiator_group '{"tag":1,"initiators":["ANY"],"netmasks":["ANY"]}' >/dev/null
    gemel a rpc iscsi_create_target_node '{"name":"iqn.2026-11.org.gemel:vol0","alias_name":"vol0","queue_depth":128,
        "pg_ig_maps":[{"pg_tag":1,"ig_tag":1}],"luns":[{"bdev_name":"d0","lun_id":0}],"durability":"sync-durable"}' >/dev/null
}
for round in $(seq "$rounds"); do
    for kind in alone kernel smoltcp smoltcp-xdp smoltcp-1500; do
        case $kind in alone) alone ;; *) pair "$kind" 0 ;; esac
        for depth in 1 32; do record "$round" "$kind" "depth $depth" "$(load $depth)"; done
        if [ $kind = kernel ] || [ $kind = smoltcp ]; then
            # The whole leg is copied to a blank one.
            config=$work/b.json; gemel b config save "$config" >/dev/null
            kill -9 "${pids[1]}"; wait "${pids[1]}" 2>/dev/null || :
            until "$bin/gemel" -s "$work/a/socket" status | grep -q '\[U_\]'; do sleep 0.05; done
            rm "$work/b/leg"; truncate -s 512M "$work/b/leg"; rm -f "$work/b/socket"*
            ip netns exec "$b" "$bin/gemeld" --socket "$work/b/socket" --memory 128 --cores 1 --config "$config" 2>"$work/b/log" &
            pids[1]=$!
            until_in_sync
            record "$round" "$kind" resync "$(gemel a rpc mirror_get_status | python3 -c 'import json,sys
one = json.load(sys.stdin)[0]["last_resync"]; print(json.dumps({"bytes_per_second": one["copied_bytes"] / max(one["seconds"], 1e-6)}))')"
        fi
        stop
        sleep 0.3
    done
    for loss in 1 10; do
        for kind in kernel smoltcp; do
            pair $kind $loss
            for depth in 1 32; do record "$round" "$kind" "depth $depth, loss $loss" "$(load $depth)"; done
            stop
            sleep 0.3
        done
    done
done
mkdir -p perf/results
python3 - "$work/records" perf/results/replication.json <<'P'
import json, statistics, sys
records = [json.loads(line) for line in open(sys.argv[1])]
def values(kind, what, key):
    of = [r["report"] for r in records if r["kind"] == kind and r["what"] == what]
    return [r["latency_us"]["p50"] if key == "p50_us" else r[key] for r in of]
def line(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}
figures = {kind: {"p50_us at depth 1": line(values(kind, "depth 1", "p50_us")), "iops at depth 32": line(values(kind, "depth 32", "iops"))}
           for kind in ("alone", "kernel", "smoltcp", "smoltcp-xdp", "smoltcp-1500")}
for kind in ("kernel", "smoltcp"):
    figures[kind]["resync bytes/s"] = line(values(kind, "resync", "bytes_per_second"))
# Ratios of each round's neighbours: the machine's moods are in both.
each = lambda what, key: list(zip(*(values(kind, what, key) for kind in ("alone", "kernel", "smoltcp"))))
ratios = {
    "added latency at depth 1, smoltcp/kernel": line([(s - a) / max(k - a, 1e-3) for a, k, s in each("depth 1", "p50_us")]),
    "latency at depth 1, smoltcp/kernel": line([s / k for _, k, s in each("depth 1", "p50_us")]),
    "iops at depth 32, smoltcp/kernel": line([s / k for _, k, s in each("depth 32", "iops")]),
    "resync, smoltcp/kernel": line([s / k for k, s in zip(values("kernel", "resync", "bytes_per_second"), values("smoltcp", "resync", "bytes_per_second"))]),
}
versus = lambda what, key, one, other: line([a / b for a, b in zip(values(one, what, key), values(other, what, key))])
for name, kind in (("AF_XDP/packet rings", "smoltcp-xdp"), ("MTU 1500/9000", "smoltcp-1500")):
    ratios[f"latency at depth 1, {name}"] = versus("depth 1", "p50_us", kind, "smoltcp")
    ratios[f"iops at depth 32, {name}"] = versus("depth 32", "iops", kind, "smoltcp")
for loss in (1, 10):
    share = f"{loss / 10} % of frames lost"
    for kind in ("kernel", "smoltcp"):
        for depth in (1, 32):
            what = f"depth {depth}, loss {loss}"
            figures[kind][f"{share}: depth {depth}"] = {"iops": line(values(kind, what, "iops")), "longest stall, ms": line(values(kind, what, "longest_stall_ms"))}
    for depth in (1, 32):
        pairs = zip(*(values(kind, f"depth {depth}, loss {loss}", "iops") for kind in ("kernel", "smoltcp")))
        ratios[f"{share}: iops at depth {depth}, smoltcp/kernel"] = line([s / k for k, s in pairs])
result = {"rounds": max(r["round"] for r in records), "figures": figures, "ratios": ratios}
json.dump(result, open(sys.argv[2], "w"), indent=2)
print(json.dumps(result, indent=2))
P

perf/chart.py perf/results/replication.json perf/results/replication.svg

#!/usr/bin/env bash
# Moves SIZE bytes of verified data each way between this project's smoltcp and others' kernel sockets, over a veth at MTU 9000 whose peers have
# their default offloads, with header and data digests:
#   out   smoltcp initiator -> tgt
#   in    libiscsi (header digests; it knows no others) and this project's initiator over kernel TCP (both digests) -> smoltcp target
# and fails where anything is not as it should be. Needs root, iproute2, python3, tgt, libiscsi-bin.
#   perf/soak-link.sh [SIZE]      SIZE=20G, or with K, M, G   BIN=target/release
set -euo pipefail
cd "$(dirname "$0")/.."
size=$(numfmt --from=iec "${1:-20G}") bin=$(realpath "${BIN:-target/release}")
ours=gemel-soak-o$$ theirs=gemel-soak-t$$ work=$(mktemp -d /dev/shm/gemel-soak.XXXXXX) control=$((30000 + $$ % 2000))
each=$((size >= 1 << 30 ? 10 : 1))
pids=() tgtd=
clean() {
    # It ends for nothing else while it has a target.
    [ -z "$tgtd" ] || kill -9 "$tgtd" 2>/dev/null || :
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || :; done
    wait
    for space in "$ours" "$theirs"; do ip netns del "$space" 2>/dev/null || :; done
    rm -rf "$work"
}
trap clean EXIT
for space in "$ours" "$theirs"; do ip netns add "$space"; ip -n "$space" link set lo up; done
ip link add repl netns "$ours" mtu 9000 type veth peer name repl netns "$theirs"
ip netns exec "$ours" sysctl -qw net.ipv6.conf.repl.disable_ipv6=1
for space in "$ours" "$theirs"; do ip -n "$space" link set repl mtu 9000 up; done
ip -n "$theirs" addr add 10.61.0.2/24 dev repl

node() { # NAME SPACE
    mkdir "$work/$1"
    ip netns exec "$2" "$bin/gemeld" --socket "$work/$1/socket" --memory 128 2>"$work/$1/log" &
    pids+=($!)
    until [ -S "$work/$1/socket" ]; do sleep 0.05; done
}
rpc() { "$bin/gemel" -s "$work/$1/socket" rpc "$2" "$3"; }
export_bdev() { # NODE BDEV HOST
    rpc "$1" iscsi_create_portal_group '{"tag":1,"portals":[{"host":"'"$3"'","port":"3260"}]}' >/dev/null
    rpc "$1" iscsi_create_initiator_group '{"tag":1,"initiators":["ANY"],"netmasks":["ANY"]}' >/dev/null
    rpc "$1" iscsi_create_target_node '{"name":"iqn.2026-11.org.gemel:soak","alias_name":"soak","queue_depth":64,
        "pg_ig_maps":[{"pg_tag":1,"ig_tag":1}],"luns":[{"bdev_name":"'"$2"'","lun_id":0}]}' >/dev/null
}
import() { # NODE URL
    rpc "$1" bdev_iscsi_create '{"name":"far","initiator_iqn":"iqn.2026-11.org.gemel:soak","url":"'"$2"'",
        "header_digest":"require","data_digest":"require"}' >/dev/null
    until rpc "$1" bdev_get_bdevs '{"name":"far"}' | python3 -c 'import json,sys; sys.exit(json.load(sys.stdin)[0]["num_blocks"] == 0)'; do
        sleep 0.05
    done
}
link() { # KEY
    rpc ours link_get_links '{"name":"l0"}' | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["counters"]["'"$1"'"])'
}
moved() { echo $(($(link copied_in_bytes) + $(link copied_out_bytes))); }
until_moved() { # BYTES COMMAND...: again and again
    local goal=$(($(moved) + $1)) rounds=0
    shift
    while [ "$(moved)" -lt "$goal" ]; do
        "$@" >"$work/said" 2>&1 || { cat "$work/said"; echo "FAILED: $*"; exit 1; }
        rounds=$((rounds + 1))
    done
    echo "$rounds runs, $((${goal} / 1048576)) MiB in all so far: $*"
}
verify() { # SPACE PORTAL
    ip netns exec "$1" "$bin/gemel-perf" --seconds "$each" --reads 50 --depth 32 --blocks 8192 --seed $RANDOM "iscsi://$2/iqn.2026-11.org.gemel:soak/0"
}

node ours "$ours"
node theirs "$theirs"
rpc ours link_create '{"name":"l0","interface":"repl","addresses":["10.61.0.1/24"]}' >/dev/null

# Out: what hosts write to the node's loopback goes over the link to tgt.
ip netns exec "$theirs" tgtd --foreground --control-port "$control" --iscsi portal=10.61.0.2:3261 >/dev/null 2>&1 &
tgtd=$!
truncate -s 64M "$work/leg"
tgt() { tgtadm --lld iscsi --control-port "$control" "$@"; }
until tgt --op new --mode target --tid 1 -T iqn.2026-11.example:tgt 2>/dev/null; do sleep 0.05; done
tgt --op new --mode logicalunit --tid 1 --lun 1 -b "$work/leg"
tgt --op bind --mode target --tid 1 -I ALL
for digest in HeaderDigest DataDigest; do tgt --op update --mode target --tid 1 --name $digest --value CRC32C; done
import ours iscsi://10.61.0.2:3261/iqn.2026-11.example:tgt/1
export_bdev ours far 127.0.0.1
until_moved "$size" verify "$ours" 127.0.0.1:3260

# In: a RAM disk at a portal of the link.
rpc ours iscsi_delete_target_node '{"name":"iqn.2026-11.org.gemel:soak"}' >/dev/null
rpc ours iscsi_delete_portal_group '{"tag":1}' >/dev/null
rpc ours iscsi_delete_initiator_group '{"tag":1}' >/dev/null
rpc ours bdev_malloc_create '{"name":"m0","block_size":512,"num_blocks":131072}' >/dev/null
export_bdev ours m0 10.61.0.1
url=iscsi://10.61.0.1:3260/iqn.2026-11.org.gemel:soak/0
import theirs "$url"
export_bdev theirs far 127.0.0.1
until_moved $((size / 2)) verify "$theirs" 127.0.0.1:3260
until_moved $((size / 2)) ip netns exec "$theirs" iscsi-perf -b 256 -m 8 -t "$each" "$url?header_digest=crc32c"

for key in checksum_errors unusable_frames refused_frames carrier_losses; do
    count=$(link $key)
    [ "$count" = 0 ] || { echo "FAILED: $key is $count"; exit 1; }
done
for name in ours theirs; do
    closed=$("$bin/gemel" -s "$work/$name/socket" --json rpc notify_get_notifications | python3 -c 'import json,sys
print([one for one in json.load(sys.stdin) if one["type"] == "iscsi_connection_closed"])')
    [ "$closed" = "[]" ] || { echo "FAILED: $closed"; exit 1; }
done
echo "$(moved | numfmt --to=iec) moved, $(link segments) segments, $(link retransmissions) sent again, no error"

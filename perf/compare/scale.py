#!/usr/bin/env python3
"""How a node's memory and its set-up time grow: with sessions, with LUNs, with arrays; and how long a start takes to the first answer.
Writes perf/results/scale.json. Everything stays on loopback.

    perf/compare/scale.py [--sessions 1 10 100 1000] [--luns 1 16 64 256] [--arrays 1 8 64] [--bin FOLDER] [--out FILE] [--readme]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, Noise, machine, output, publish, until
from initiator import Refused, Session
from mirror import Pair, pair_up
from one import TARGET, One

MANY = {
    "max_sessions": 1100, "max_connections": 1200, "max_connections_per_address": 1200, "max_sessions_per_initiator": 1100,
    "max_logins": 1000, "max_logins_per_address": 1000, "logins_per_second": 100000, "login_burst": 100000,
}


def slope(points):
    """Least squares: the growth by one more, and how much of the variance the line explains."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    across = sum((x - mean_x) ** 2 for x, _ in points)
    each = sum((x - mean_x) * (y - mean_y) for x, y in points) / across if across else 0.0
    left = sum((y - mean_y - each * (x - mean_x)) ** 2 for x, y in points)
    spread = sum((y - mean_y) ** 2 for _, y in points)
    return {"each": each, "explained": 1 - left / spread if spread else 1.0}


def grow(counts, one_more, sizes):
    """Makes one after the other; at each count: how long all took so far, and sizes."""
    points, began, made = [], time.monotonic(), 0
    start = sizes()
    for count in counts:
        while made < count:
            one_more(made)
            made += 1
        took = time.monotonic() - began
        now = sizes()
        points.append({"count": count, "seconds": took, **{key: now[key] - start[key] for key in now}})
    fits = {key: slope([(point["count"], point[key]) for point in points]) for key in points[0] if key != "count"}
    return {"points": points, "slopes": fits}


def sessions(binaries, work, counts):
    # A session holds two frames of 64 KiB; a quarter of the memory is such.
    node = One(binaries, work, memory=min(1024, 64 + counts[-1]))
    opened = []
    try:
        node.call("iscsi_set_options", MANY)
        port = node.serve()

        def one_more(number):
            session = Session(port, TARGET, number)
            session.read()
            opened.append(session)

        return grow(counts, one_more, lambda: {"heap_bytes": node.memory(), "frame_bytes": node.frames()})
    finally:
        for session in opened:
            session.close()
        node.stop()


def luns(binaries, work, counts):
    node = One(binaries, work)
    try:
        node.serve()

        def one_more(number):
            if number > 0:
                node.disk(number, 1)
                node.call("iscsi_target_node_add_lun", {"name": TARGET, "bdev_name": f"ram{number}", "lun_id": number})

        return grow(counts, one_more, lambda: {"heap_bytes": node.memory(), "frame_bytes": node.frames()})
    finally:
        node.stop()


def arrays(binaries, work, counts):
    nodes = {name: One(binaries, work, name, core, 256) for name, core in (("a", "0"), ("b", "1"))}
    gemel = lambda name, *arguments: output([binaries / "gemel", "--socket", nodes[name].control, *map(str, arguments)])

    def one_more(number):
        name, legs = f"vol{number}", {node: f"{work}/{node}{number}:16M" for node in nodes}
        pair_up(gemel, name, legs, work / f"chap{number}")

        def in_sync():
            status = json.loads(gemel("a", "rpc", "mirror_get_status"))
            return Pair.in_sync(next(one for one in status if one["name"] == name))

        until(f"array {number}", in_sync, 60)

    sizes = lambda: {"heap_bytes": sum(node.memory() for node in nodes.values()) / 2,
                     "frame_bytes": sum(node.frames() for node in nodes.values()) / 2}
    try:
        return grow(counts, one_more, sizes)
    finally:
        for node in nodes.values():
            node.stop()


def starts(binaries, work, counts):
    """From the start of a node with so many LUNs to the first block that is read."""
    found = []
    for count in counts:
        config = work / f"start{count}.json"
        node = One(binaries, work, f"before{count}")
        try:
            port = node.serve(count, 1)
            output([binaries / "gemel", "--socket", node.control, "config", "save", config])
        finally:
            node.stop()
        began = time.monotonic()
        node = One(binaries, work, f"start{count}", arguments=["--config", config])
        try:
            while True:
                try:
                    session = Session(port, TARGET, 0)
                    session.read()
                    break
                except (Refused, OSError):
                    if time.monotonic() > began + 30:
                        sys.exit("scale: no answer within 30 s of the start")
                    time.sleep(0.001)
            found.append({"count": count, "seconds": time.monotonic() - began})
            session.close()
        finally:
            node.stop()
    return {"points": found, "slopes": {"seconds": slope([(one["count"], one["seconds"]) for one in found])}}


def table(result):
    lines = ["| what | most | in all | each more | a line explains |", "|---|---|---|---|---|"]
    units = {"seconds": ("ms", 1e3), "heap_bytes": ("KiB of heap", 1 / 1024), "frame_bytes": ("KiB of frames", 1 / 1024)}
    for what, grown in result["grown"].items():
        last = grown["points"][-1]
        for key, fit in grown["slopes"].items():
            unit, scale = units[key]
            lines.append(f"| {what} | {last['count']} | {last[key] * scale:,.0f} {unit} | {fit['each'] * scale:,.2f} {unit} | {fit['explained'] * 100:.1f} % |")
    return "\n".join([*lines, "", f"The load average was {result['noise']['load_average_before']:.1f} before; {result['machine']}."])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 10, 100, 250, 500, 1000])
    parser.add_argument("--luns", type=int, nargs="+", default=[1, 16, 64, 128, 256])
    parser.add_argument("--arrays", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    parser.add_argument("--out", type=Path, default=ROOT / "perf/results/scale.json")
    parser.add_argument("--readme", action="store_true", help="write the table into perf/README.md")
    given = parser.parse_args()
    bounds = (("sessions", given.sessions, 1000), ("LUNs", given.luns, 256), ("arrays", given.arrays, 64))
    for name, counts, most in bounds:
        if sorted(set(counts)) != counts or counts[0] < 1 or counts[-1] > most:
            parser.error(f"{name}: rising numbers from 1 to {most}")
    binaries, noise = given.bin.resolve(), Noise()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        work = Path(folder)
        grown = {
            "sessions": sessions(binaries, work, given.sessions),
            "LUNs": luns(binaries, work, given.luns),
            "arrays, of each node": arrays(binaries, work, given.arrays),
            "start with so many LUNs, to the first block read": starts(binaries, work, given.luns),
        }
    result = {"format": "gemel-scale/1", "machine": machine(), "grown": grown, "noise": noise.end()}
    publish(result, table(result), given, "scale", "make bench-scale", ROOT / "perf/README.md")


if __name__ == "__main__":
    main()

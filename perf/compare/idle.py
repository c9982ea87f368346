#!/usr/bin/env python3
"""What a node costs that has nothing to do, and what becomes of one that has to share its core: processor time of a sleeping node and of a
sleeping pair, rates where reactors outnumber cores, and beside a hog. Writes perf/results/idle.json. Everything stays on loopback.

    perf/compare/idle.py [--rounds 3] [--seconds 2] [--sessions 32] [--bin FOLDER] [--out FILE] [--readme]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, Noise, cpu_of, machine, noise_line, output, pinned, publish, range_of, summary
from initiator import Session
from mirror import Pair
from one import TARGET, One

POLICIES = ("adaptive", "yield", "block", "spin")


def load(binaries, url, seconds, *arguments):
    text = output([str(binaries / "gemel-perf"), "run", url, "--json", "--warm-up", "0.3", "--seconds", str(seconds), "--span", "16m",
                   "--seed", str(random.randrange(1, 1 << 30)), *arguments])
    report = json.loads(text)
    if report["errors"]:
        sys.exit(f"idle: {report['first_error']}")
    return {"iops": report["iops"], "p99_us": report["latency_us"]["all"]["p99"]}


def share(measure, seconds):
    """Hundredths of a core."""
    before, began = measure(), time.monotonic()
    time.sleep(seconds)
    return (measure() - before) / (time.monotonic() - began) * 100


def asleep(binaries, work, sessions, seconds):
    """A node with sessions open that say nothing, and the nodes of a pair that keep each other alive."""
    node = One(binaries, work, "asleep", memory=128)
    found = {}
    try:
        port = node.serve()
        open_sessions = [Session(port, TARGET, number) for number in range(sessions)]
        time.sleep(0.5)
        found["a node with sessions"] = share(node.cpu, max(seconds, 0.5))
        for session in open_sessions:
            session.close()
    finally:
        node.stop()
    pair = Pair(binaries, work / "asleep", work, 64 << 20)
    try:
        pids = [node.process.pid for node in pair.nodes.values()]
        time.sleep(0.5)
        for name, pid in zip(("the holder of a pair", "its peer"), pids):
            found[name] = share(lambda: cpu_of(pid), max(seconds, 0.5))
    finally:
        pair.stop()
    return found


def crowded(binaries, work, seconds, policies):
    """Mirrored writes at depth 1 where each node has a reactor on every core, so that reactors and load outnumber the cores."""
    found = {}
    for policy in random.sample(policies, len(policies)):
        pair = Pair(binaries, work / f"crowded-{policy}", work, 64 << 20, cores="all", arguments=["--poll", policy])
        try:
            found[policy] = load(binaries, pair.url, seconds, "--mix", "write", "--depth", "1", "--poll", policy)
        finally:
            pair.stop()
    return found


def hogged(binaries, work, seconds):
    """Reads of a RAM disk, the node with its core for itself, and with a loop beside it that never gives way."""
    node = One(binaries, work, "hogged")
    found = {}
    try:
        url = f"iscsi://127.0.0.1:{node.serve()}/{TARGET}/0"
        for depth in (1, 32):
            run = lambda: load(binaries, url, seconds, "--depth", str(depth), "--poll", "adaptive")
            alone = run()
            hog = subprocess.Popen(pinned(0, [sys.executable, "-c", "while True: pass"]))
            try:
                beside = run()
            finally:
                hog.kill()
                hog.wait()
            found[f"depth {depth}"] = {"alone": alone, "beside": beside}
    finally:
        node.stop()
    return found


def rows_of(rounds):
    rows = []

    def row(name, unit, bar, values):
        rows.append({"name": name, "unit": unit, "bar": bar, "figure": summary(values)})

    for name in rounds[0]["asleep"]:
        row(f"{name}, asleep", "% of a core", "< 1", [one["asleep"][name] for one in rounds])
    policies = list(rounds[0]["crowded"])
    for policy in sorted(policies):
        row(f"more reactors than cores, --poll {policy}: mirrored writes, depth 1", "IOPS", "", [one["crowded"][policy]["iops"] for one in rounds])
    others = [policy for policy in policies if policy != "adaptive"]
    if others and "adaptive" in policies:
        row("the same, adaptive against the best of the others", "", ">= 0.9",
            [one["crowded"]["adaptive"]["iops"] / max(one["crowded"][other]["iops"] for other in others) for one in rounds])
    for depth in rounds[0]["hogged"]:
        seen = [one["hogged"][depth] for one in rounds]
        row(f"reads at {depth} beside a hog, against alone: rate", "", ">= 0.5", [one["beside"]["iops"] / one["alone"]["iops"] for one in seen])
    return rows


def table(result):
    lines = ["| what | median (range) | wanted |", "|---|---|---|"]
    for one in result["figures"]:
        digits = 0 if one["unit"] == "IOPS" else 2
        lines.append(f"| {one['name']} | {range_of(one['figure'], digits)} {one['unit']} | {one['bar']} |")
    return "\n".join([*lines, "", "Noise: " + noise_line(result["noise"], result)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--sessions", type=int, default=32, help="that are open and silent")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="where reactors outnumber cores")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    parser.add_argument("--out", type=Path, default=ROOT / "perf/results/idle.json")
    parser.add_argument("--readme", action="store_true", help="write the table into perf/README.md")
    given = parser.parse_args()
    if given.rounds < 1 or given.seconds < 0.1 or not 0 <= given.sessions <= 128:
        parser.error("at least one round and a tenth of a second, at most 128 sessions")
    binaries, rounds, noise = given.bin.resolve(), [], Noise()
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            work = Path(folder)
            rounds.append({
                "asleep": asleep(binaries, work, given.sessions, given.seconds),
                "crowded": crowded(binaries, work, given.seconds, given.policies),
                "hogged": hogged(binaries, work, given.seconds),
            })
        print(f"idle: round {number + 1} of {given.rounds}", file=sys.stderr)
    result = {
        "format": "gemel-idle/1", "machine": machine(), "rounds": given.rounds, "seconds": given.seconds,
        "sessions": given.sessions, "figures": rows_of(rounds), "each": rounds, "noise": noise.end(),
    }
    publish(result, table(result), given, "idle", "make bench-idle", ROOT / "perf/README.md")


if __name__ == "__main__":
    main()

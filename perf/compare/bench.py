#!/usr/bin/env python3
"""4 KiB commands against a RAM disk, beside the machine's own bounds in the same rounds, compared with what was stored before: as ratios, each
to its bound, so that a slower hour of the machine is none of ours. Says what moved. Everything stays on loopback.

    perf/compare/bench.py [--rounds 5] [--seconds 2] [--bin FOLDER] [--baseline perf/results/bench.json] [--write]
"""

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, Noise, machine, noise_line, output, pinned, summary
from one import TARGET, One

JOBS = {
    "read, depth 1": ["--mix", "read", "--depth", "1"],
    "read, depth 32": ["--mix", "read", "--depth", "32"],
    "write, depth 1": ["--mix", "write", "--depth", "1"],
    "write, depth 32": ["--mix", "write", "--depth", "32"],
}
LIBISCSI = {"read, depth 1, libiscsi": 1, "read, depth 32, libiscsi": 32}
# Less than this is nobody's business.
LEAST = 0.03


def own(binaries, url, seconds, arguments):
    text = output(pinned(1, [
        str(binaries / "gemel-perf"), "run", url, "--json", "--poll", "spin", "--warm-up", "0.3", "--seconds", str(seconds),
        "--span", "128m", *arguments]))
    report = json.loads(text)
    if report["errors"]:
        sys.exit(f"bench: {report['first_error']}")
    return report["iops"]


def libiscsi(url, seconds, depth):
    # It ends by a time-out of whole seconds, and tells the rate in between.
    done = subprocess.run(
        pinned(1, ["iscsi-perf", "-b", "8", "-m", str(depth), "-r", "-t", str(max(1, round(seconds))), url]),
        capture_output=True, text=True, timeout=60)
    found = re.findall(r"iops average (\d+)", (done.stdout + done.stderr).replace("\r", "\n"))
    return float(found[-1]) if found else sys.exit("bench: iscsi-perf tells no rate")


def bound(binaries, seconds):
    """Bare round trips a second of a read's bytes: what every figure is divided by."""
    figures = json.loads(output([str(binaries / "gemel-perf"), "raw", "--json", "--seconds", str(min(seconds, 0.5))]))
    return 1e6 / figures["tcp_read_polling_us"]["p50"]


def one_round(binaries, url, seconds):
    measures = {name: (lambda how=how: own(binaries, url, seconds, how)) for name, how in JOBS.items()}
    if shutil.which("iscsi-perf"):
        measures |= {name: (lambda depth=depth: libiscsi(url, seconds, depth)) for name, depth in LIBISCSI.items()}
    before = bound(binaries, seconds)
    figures = {name: measures[name]() for name in random.sample(list(measures), len(measures))}
    # Of the time just before and just after.
    trips = (before + bound(binaries, seconds)) / 2
    return {"bound": trips, "iops": figures}


def relative(rounds, job):
    return [one["iops"][job] / one["bound"] for one in rounds if job in one["iops"]]


def moved(before, now):
    """The ratio of medians with its 95 % interval: each side's rounds are drawn again by themselves."""
    picker = random.Random(1)
    again = lambda some: statistics.median(picker.choices(some, k=len(some)))
    draws = sorted(again(now) / again(before) for _ in range(4000))
    return {"value": statistics.median(now) / statistics.median(before), "low": draws[100], "high": draws[-101]}


def verdict(ratio):
    if ratio["low"] > 1 and ratio["value"] > 1 + LEAST:
        return "faster"
    if ratio["high"] < 1 and ratio["value"] < 1 - LEAST:
        return "SLOWER"
    return "as before"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    parser.add_argument("--baseline", type=Path, default=ROOT / "perf/results/bench.json", help="what was stored before")
    parser.add_argument("--write", action="store_true", help="store this run in its place")
    given = parser.parse_args()
    if given.rounds < 1 or given.seconds < 0.1:
        parser.error("at least one round and a tenth of a second")
    old = json.loads(given.baseline.read_text()) if given.baseline.exists() else None
    noise = Noise()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        node = One(given.bin.resolve(), Path(folder))
        try:
            url = f"iscsi://127.0.0.1:{node.serve(mib=256)}/{TARGET}/0"
            rounds = [one_round(given.bin.resolve(), url, given.seconds) for _ in range(given.rounds)]
        finally:
            node.stop()
    result = {"format": "gemel-bench/1", "machine": machine(), "rounds": given.rounds, "seconds": given.seconds, "each": rounds, "noise": noise.end()}
    for job in rounds[0]["iops"]:
        figure = summary([one["iops"][job] for one in rounds])
        line = f"4 KiB {job:<26} {figure['median']:>10,.0f} IOPS ({figure['least']:,.0f} to {figure['most']:,.0f})"
        if old and relative(old["each"], job):
            ratio = moved(relative(old["each"], job), relative(rounds, job))
            line += f"   {ratio['value']:.2f} of the baseline ({ratio['low']:.2f} to {ratio['high']:.2f}): {verdict(ratio)}"
        print(line)
    print("Ratios are of rates to bare round trips in the same rounds." if old else "There is no baseline: --write stores one.")
    print("Noise: " + noise_line(result["noise"], result))
    if given.write:
        given.baseline.parent.mkdir(parents=True, exist_ok=True)
        given.baseline.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

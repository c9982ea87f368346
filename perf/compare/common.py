"""What the comparisons have in common: processes on cores, medians with their ranges and ratios, the machine's noise, README's tables."""

import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def pinned(core, command):
    """A command on one core, where there are two."""
    return ["taskset", "-c", str(core), *command] if os.cpu_count() > 1 else command


def output(command, timeout=120):
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        sys.exit(f"{sys.argv[0]}: {' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


GIVEN = set()


def free_port():
    """A port that is free now, and that nobody in this process was given before."""
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        if port not in GIVEN:
            GIVEN.add(port)
            return port


def until(what, ready, seconds=10.0):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"{sys.argv[0]}: {what} does not come up within {seconds:.0f} s")
        time.sleep(0.02)


def steal():
    """Ticks in all, and those in which another guest had the processor."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[7]


def summary(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratio(pairs):
    """Ratio of medians with a 95 % percentile bootstrap over rounds, as gemel-perf compare does it."""
    of = lambda some: statistics.median([b for _, b in some]) / statistics.median([a for a, _ in some])
    picker = random.Random(1)
    draws = sorted(of(picker.choices(pairs, k=len(pairs))) for _ in range(4000))
    return {"value": of(pairs), "low": draws[100], "high": draws[-101]}


def range_of(figure, digits=0):
    show = lambda value: f"{value:,.{digits}f}"
    return f"{show(figure['median'])} ({show(figure['least'])} to {show(figure['most'])})"


def write_readme(text, name, command, readme=ROOT / "README.md"):
    """Puts a table in its place in a document, between the comments that are there for it."""
    begin, end = f"<!-- perf/{name}: written by {command} -->", f"<!-- perf/{name}: end -->"
    old = readme.read_text()
    if begin not in old or end not in old:
        sys.exit(f"{sys.argv[0]}: {readme} has no {begin} ... {end}")
    head, rest = old.split(begin, 1)
    readme.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")


def publish(result, table, given, *place):
    """Stores a result, prints its table, and puts that into its place in a document where that is asked for."""
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table)
    if given.readme:
        write_readme(table, *place)


def cpu_of(pid):
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine():
    return f"Linux {platform.release()}, {os.cpu_count()} processors"


class Noise:
    """What else the machine did meanwhile."""

    def __init__(self):
        (self.before, self.stolen), self.load = steal(), os.getloadavg()[0]

    def end(self):
        after, stolen = steal()
        return {
            "load_average_before": self.load,
            "load_average_after": os.getloadavg()[0],
            "nice": os.nice(0),
            "steal_share": (stolen - self.stolen) / max(1, after - self.before),
        }


def noise_line(noise, result):
    return (f"the load average was {noise['load_average_before']:.1f} before and {noise['load_average_after']:.1f} after, "
            f"{noise['steal_share'] * 100:.1f} % of the processors' time was other guests', and everything ran at nice {noise['nice']}. "
            f"{result['rounds']} rounds of {result['seconds']} s each; {result['machine']}.")

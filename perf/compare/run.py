#!/usr/bin/env python3
"""The same jobs, in turns, against this project's target, tgt and whatever answers at given URLs, with the machine's own bounds
measured in the same rounds. Writes perf/results/compare.json and the README's table. Everything stays on loopback.

    perf/compare/run.py [--rounds 5] [--seconds 2] [--target NAME=URL]... [--jobs PART] [--disk FOLDER] [--readme]

Each target has the first core, the load spins on the second. This project's target is measured with its default idle policy (gemel) and
with a core of its own that it never gives away (gemel-spin, stopped while others are measured). tgt is left out where it is not installed or the user is not root. LUNs of
other targets are WRITTEN TO.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, Noise, free_port, machine, noise_line, output, pinned, publish, range_of, ratio, summary, until

RAM = 512 << 20
OURS, SPIN = "gemel", "gemel-spin"
SPAN = "256m"

# What is asked of every target: name, arguments of gemel-perf run.
JOBS = {
    "4 KiB random read, depth 1": ["--mix", "read", "--sizes", "4k", "--depth", "1"],
    "4 KiB random read, depth 32": ["--mix", "read", "--sizes", "4k", "--depth", "32"],
    "4 KiB random write, depth 1": ["--mix", "write", "--sizes", "4k", "--depth", "1"],
    "4 KiB random write, depth 32": ["--mix", "write", "--sizes", "4k", "--depth", "32"],
    "256 KiB sequential read, depth 8": ["--mix", "read", "--sizes", "256k", "--pattern", "seq", "--depth", "8"],
    "256 KiB sequential write, depth 8": ["--mix", "write", "--sizes", "256k", "--pattern", "seq", "--depth", "8"],
}
# The same with libiscsi's own load, which reads alone and tells the rate alone.
LIBISCSI = {"4 KiB random read, depth 1, libiscsi": 1, "4 KiB random read, depth 32, libiscsi": 32}
FILE_JOB = "4 KiB random read of a file on disk, depth 1"


class Target:
    """Something at a URL; `process` is ended with it."""

    def __init__(self, name, url, process=None, options=()):
        self.name, self.url, self.process, self.options = name, url, process, list(options)

    def rest(self):
        """Between its turns: one that spins would take the others' core."""
        if self.name == SPIN:
            self.process.send_signal(signal.SIGSTOP)

    def wake(self):
        if self.name == SPIN:
            self.process.send_signal(signal.SIGCONT)

    def stop(self):
        self.wake()
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                # tgtd stays while it has targets.
                self.process.kill()
                self.process.wait()


def gemel(binaries, work, disk, label, policy):
    """This project's target on one core: a RAM LUN, and a file on disk where there is one. Gives both."""
    control = work / f"{label}.sock"
    process = subprocess.Popen(
        [binaries / "gemeld", "--socket", control, "--memory", "128", "--cores", "0", *policy],
        stdout=subprocess.DEVNULL, stderr=(work / f"{label}.log").open("w"))
    until("gemeld", control.exists)

    def call(method, params):
        output([binaries / "gemel", "--socket", control, "rpc", method, json.dumps(params)])

    port = free_port()
    call("iscsi_create_portal_group", {"tag": 1, "portals": [{"host": "127.0.0.1", "port": str(port)}]})
    call("iscsi_create_initiator_group", {"tag": 1, "initiators": ["ANY"], "netmasks": ["127.0.0.1"]})
    call("bdev_malloc_create", {"name": "ram", "block_size": 512, "num_blocks": RAM // 512})
    luns = [{"bdev_name": "ram", "lun_id": 0}]
    if disk:
        call("bdev_uring_create", {"name": "disk", "filename": str(disk), "block_size": 512})
        luns.append({"bdev_name": "disk", "lun_id": 1})
    name = "iqn.2026-11.org.gemel:compare"
    call("iscsi_create_target_node", {
        "name": name, "alias_name": "compare", "queue_depth": 128, "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}], "luns": luns})
    options = ["--target-socket", str(control)]
    url = f"iscsi://127.0.0.1:{port}/{name}"
    ram = Target(label, f"{url}/0", process, options)
    return ram, Target(label, f"{url}/1", None, options) if disk else None


def tgt(work):
    """tgt on one core with a file in memory; None where it cannot run."""
    if not (shutil.which("tgtd") and shutil.which("tgtadm")) or os.geteuid() != 0:
        print("compare: tgt is left out: it is not installed, or this user is not root", file=sys.stderr)
        return None
    port, control, name = free_port(), str(free_port() % 29000 + 1), "iqn.2026-11.example:tgt"
    leg = work / "tgt.leg"
    with leg.open("wb") as file:
        file.truncate(RAM)
    process = subprocess.Popen(
        pinned(0, ["tgtd", "--foreground", "--control-port", control, "--iscsi", f"portal=127.0.0.1:{port}"]),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def admin(*arguments):
        command = ["tgtadm", "--lld", "iscsi", "--control-port", control, *arguments]
        return subprocess.run(command, capture_output=True).returncode == 0

    until("tgtd", lambda: admin("--op", "new", "--mode", "target", "--tid", "1", "-T", name))
    done = (admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", str(leg))
            and admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"))
    if not done:
        process.terminate()
        sys.exit("compare: tgtadm refuses the LUN")
    return Target("tgt", f"iscsi://127.0.0.1:{port}/{name}/1", process, ["--target-pid", str(process.pid)])


def measure(binaries, target, arguments, seconds):
    text = output(pinned(1, [
        str(binaries / "gemel-perf"), "run", target.url, "--json", "--poll", "spin", "--warm-up", "0.3", "--seconds", str(seconds),
        *target.options, *arguments]))
    report = json.loads(text)
    if report["errors"]:
        sys.exit(f"compare: {target.name}: {report['first_error']}")
    far = report["cpu"]["target"] or {}
    return {
        "iops": report["iops"],
        "bytes_per_second": report["bytes_per_second"],
        **{f"{key}_us": report["latency_us"]["all"][key] for key in ("mean", "p50", "p99", "p999")},
        "own_cpu_us": report["cpu"]["own"]["us_per_io"],
        "target_cpu_us": far.get("us_per_io"),
    }


def libiscsi(target, depth, seconds):
    # It ends by a time-out of whole seconds, and tells the rate in between.
    done = subprocess.run(
        pinned(1, ["iscsi-perf", "-b", "8", "-m", str(depth), "-r", "-t", str(max(1, round(seconds))), target.url]),
        capture_output=True, text=True, timeout=60)
    found = re.findall(r"iops average (\d+)", (done.stdout + done.stderr).replace("\r", "\n"))
    if not found:
        sys.exit(f"compare: iscsi-perf tells no rate of {target.name}: {(done.stdout + done.stderr)[-200:]}")
    return {"iops": float(found[-1])}


def raw(binaries, disk, seconds):
    command = [str(binaries / "gemel-perf"), "raw", "--json", "--seconds", str(seconds)]
    figures = json.loads(output(command + (["--file", str(disk)] if disk else [])))
    flat = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            flat[f"{key[:-3]}_p50_us"] = value["p50"]
        elif key.endswith("per_second"):
            flat[key] = value
    return flat


def fio(disk, seconds):
    """fio on the same file: one at a time with pread, and many with io_uring."""
    figures = {}
    for name, engine, depth in (("fio_psync_depth_1", "psync", 1), ("fio_io_uring_depth_32", "io_uring", 32)):
        report = json.loads(output(pinned(1, [
            "fio", "--name=one", f"--filename={disk}", "--rw=randread", "--bs=4k", "--direct=1", f"--ioengine={engine}",
            f"--iodepth={depth}", "--time_based", f"--runtime={max(1, round(seconds))}", "--readonly", "--output-format=json"])))
        read = report["jobs"][0]["read"]
        figures[f"{name}_iops"] = read["iops"]
        figures[f"{name}_p50_us"] = read["clat_ns"].get("percentile", {}).get("50.000000", 0) / 1e3
    return figures


def digest(rounds, names):
    """Medians and ranges of each job and target, and the ratios of this project's to each other."""
    jobs = {}
    for job in rounds[0]["jobs"]:
        seen = {name: [one["jobs"][job][name] for one in rounds] for name in names if name in rounds[0]["jobs"][job]}
        entry = {"targets": {}, "ratios": {}}
        for name, values in seen.items():
            keys = [key for key in values[0] if all(one[key] is not None for one in values)]
            entry["targets"][name] = {key: summary([one[key] for one in values]) for key in keys}
        for ours, theirs in pairs_of(seen):
            keys = [key for key in ("iops", "p50_us", "p99_us") if key in seen[ours][0]]
            entry["ratios"][f"{ours}/{theirs}"] = {
                key: ratio([(other[key], own[key]) for other, own in zip(seen[theirs], seen[ours])]) for key in keys}
        jobs[job] = entry
    return jobs


def pairs_of(names):
    """Each of this project's targets with each of the others."""
    own = (OURS, SPIN)
    return [(one, other) for one in names if one in own for other in names if other not in own]


def table(result):
    names = result["targets"]
    ratios = [f"{ours}/{theirs}" for ours, theirs in pairs_of(names)]
    head = ["job", "figure", *names, *(f"{one} (95 %)" for one in ratios)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for job, entry in result["jobs"].items():
        key, word, digits = ("p50_us", "p50 us", 1) if job.endswith("depth 1") else ("iops", "IOPS", 0)
        if job == FILE_JOB:
            continue
        cells = [range_of(entry["targets"][name][key], digits) if name in entry["targets"] else "" for name in names]
        figures = [entry["ratios"].get(one, {}).get(key) for one in ratios]
        cells += [f"{one['value']:.2f} ({one['low']:.2f} to {one['high']:.2f})" if one else "" for one in figures]
        lines.append("| " + " | ".join([job, word, *cells]) + " |")
    raw = result["raw"]
    lines += ["", "| bound, in the same rounds | median (range) |", "|---|---|"]
    words = {
        "tcp_read_polling_p50_us": "bare TCP round trip of a 4 KiB read's bytes, polling, p50 us",
        "tcp_write_polling_p50_us": "the same of a write's bytes",
        "tcp_read_blocking_p50_us": "the same of a read's bytes, blocking",
        "pread_p50_us": "pread of 4 KiB on the disk, p50 us",
        "fio_psync_depth_1_p50_us": "fio on the same file, psync, p50 us",
        "fio_io_uring_depth_32_iops": "fio on the same file, io_uring, depth 32, IOPS",
    }
    lines += [f"| {word} | {range_of(raw[key], 0 if key.endswith('iops') else 1)} |" for key, word in words.items() if key in raw]
    for name, figures in result["jobs"].get(FILE_JOB, {"targets": {}})["targets"].items():
        lines.append(f"| 4 KiB read of that file through {name}, depth 1, p50 us | {range_of(figures['p50_us'], 1)} |")
    for key, word in (("memcpy_bytes_per_second", "copies of 4 KiB, GB/s"), ("crc32c_bytes_per_second", "CRC32C of 4 KiB, GB/s")):
        lines.append(f"| {word} | {range_of({name: value / 1e9 for name, value in raw[key].items()}, 1)} |")
    noise = result["noise"]
    lines += ["", f"Noise: the bare round trip alone spread over {noise['round_trip_most_to_least']:.2f} to 1 in these rounds, "
              + noise_line(noise, result)]
    return "\n".join(lines)


def make_file(folder):
    """A file on disk whose blocks are all there."""
    disk = Path(folder) / f"gemel-compare-{os.getpid()}"
    block = os.urandom(1 << 20)
    with disk.open("wb") as file:
        for _ in range(RAM >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return disk


def on(target, measuring, *arguments):
    """A measurement in the target's turn."""
    target.wake()
    try:
        return measuring(*arguments)
    finally:
        target.rest()


def chosen(jobs, wanted):
    return {name: how for name, how in jobs.items() if wanted in name}


def one_round(number, binaries, targets, on_disk, disk, seconds, wanted):
    jobs = {}
    turn = targets[number % len(targets):] + targets[:number % len(targets)]
    for name, arguments in chosen(JOBS, wanted).items():
        jobs[name] = {one.name: on(one, measure, binaries, one, [*arguments, "--span", SPAN], seconds) for one in turn}
    if shutil.which("iscsi-perf"):
        for name, depth in chosen(LIBISCSI, wanted).items():
            jobs[name] = {one.name: on(one, libiscsi, one, depth, seconds) for one in turn}
    bounds = raw(binaries, disk, min(seconds, 0.5))
    if on_disk and wanted in FILE_JOB:
        jobs[FILE_JOB] = {OURS: measure(binaries, on_disk, JOBS["4 KiB random read, depth 1"], seconds)}
    if disk and shutil.which("fio"):
        bounds |= fio(disk, min(seconds, 2))
    return {"jobs": jobs, "raw": bounds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--target", action="append", default=[], metavar="NAME=URL", help="another target, as spdk=iscsi://...; its LUN is WRITTEN TO")
    parser.add_argument("--jobs", default="", metavar="PART", help="only jobs whose name has this in it")
    parser.add_argument("--disk", metavar="FOLDER", default=str(ROOT / "target"), help="where to put the file on disk; empty for none")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    parser.add_argument("--out", type=Path, default=ROOT / "perf/results/compare.json")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    given = parser.parse_args()
    others = [one.split("=", 1) for one in given.target]
    if any(len(one) != 2 or not one[1].startswith("iscsi://") for one in others):
        parser.error("--target wants NAME=iscsi://ADDRESS[:PORT]/TARGET/LUN")
    if not any(given.jobs in name for name in [*JOBS, *LIBISCSI, FILE_JOB]):
        parser.error(f"no job has {given.jobs!r} in its name: {', '.join([*JOBS, *LIBISCSI, FILE_JOB])}")
    if given.rounds < 1 or given.seconds < 0.1:
        parser.error("at least one round, and a tenth of a second")
    binaries = given.bin.resolve()
    for program in ("gemeld", "gemel", "gemel-perf"):
        if not (binaries / program).exists():
            sys.exit(f"compare: {binaries / program} is missing: make build")
    targets, disk, rounds = [], None, []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        work = Path(folder)
        try:
            disk = make_file(given.disk) if given.disk else None
            ours, on_disk = gemel(binaries, work, disk, OURS, [])
            targets.append(ours)
            spinning, _ = gemel(binaries, work, None, SPIN, ["--poll", "spin"])
            targets.append(spinning)
            spinning.rest()
            peer = tgt(work)
            targets += [peer] if peer else []
            targets += [Target(name, url) for name, url in others]
            noise = Noise()
            for number in range(given.rounds):
                rounds.append(one_round(number, binaries, targets, on_disk, disk, given.seconds, given.jobs))
                print(f"compare: round {number + 1} of {given.rounds}", file=sys.stderr)
            noise = noise.end()
        finally:
            for target in targets:
                target.stop()
            if disk:
                disk.unlink(missing_ok=True)
    bounds = {key: summary([one["raw"][key] for one in rounds]) for key in rounds[0]["raw"]}
    trip = bounds["tcp_read_polling_p50_us"]
    names = [target.name for target in targets]
    result = {
        "format": "gemel-compare/1",
        "machine": machine(),
        "rounds": given.rounds,
        "seconds": given.seconds,
        "targets": names,
        "jobs": digest(rounds, names),
        "raw": bounds,
        "noise": {"round_trip_most_to_least": trip["most"] / trip["least"], **noise},
    }
    publish(result, table(result), given, "compare", "make compare")


if __name__ == "__main__":
    main()

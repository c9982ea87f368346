#!/usr/bin/env python3
"""What mirroring costs, beside the machine's own bounds in the same rounds: a write at depth 1, the intent log, a resync's rate and what it
does to hosts. Writes perf/results/mirror.json and the README's table. Everything stays on loopback.

    perf/compare/mirror.py [--rounds 5] [--seconds 2] [--leg-mib 1024] [--disk FOLDER] [--bin FOLDER] [--out FILE] [--readme]

Each node has a core; the load is where the system puts it. Legs are in memory, and one pair has its own on a disk. A pair
"without log" has one that holds every extent but a few, which are not written to: after each of the others was written once, no write waits
for a transaction.
"""

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from common import ROOT, Noise, free_port, machine, noise_line, output, publish, range_of, ratio, summary, until

GRANULE = 64 << 10
HOT = "16m"
NAME = "vol0"
# Of the load that a resync disturbs, a second.
ARRIVALS = "2000"
# Its tail is that of so many seconds, so often, with a resync and without.
SAMPLE, SAMPLES = 0.3, 6
# Resyncs at the most that are run for them.
RESYNCS = 6


class Node:
    """A node of a pair, with its leg, its socket and its configuration in a folder."""

    def __init__(self, binaries, work, name, cores, arguments):
        self.binaries, self.work, self.name, self.cores, self.arguments = binaries, work, name, cores, list(arguments)
        self.process = None

    def start(self, *arguments):
        control = self.work / f"{self.name}.sock"
        for old in self.work.glob(f"{self.name}.sock*"):
            old.unlink()
        with (self.work / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                [self.binaries / "gemeld", "--socket", control, "--memory", "128", "--cores", self.cores, *self.arguments, *arguments],
                stdout=subprocess.DEVNULL, stderr=log)
        until(f"node {self.name}", control.exists)

    def gemel(self, *arguments):
        return output([self.binaries / "gemel", "--socket", self.work / f"{self.name}.sock", *arguments])

    def status(self):
        return json.loads(self.gemel("rpc", "mirror_get_status"))[0]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def pair_up(gemel, name, legs, secrets, options=()):
    """Makes a pair of the nodes "a" and "b", which run; `gemel` is told the node and the words. Gives where the LUN is at the first."""
    listen, peer, front, other = (f"127.0.0.1:{free_port()}" for _ in range(4))
    secrets = ["--secret-file", secrets]
    made = json.loads(gemel("a", "--json", "pair", "create", name, "--leg", legs["a"], "--listen", listen, "--peer", peer,
                            "--portal", front, *secrets, *options))
    gemel("b", "pair", "join", name, "--uuid", made["uuid"], "--leg", legs["b"], "--listen", peer, "--peer", listen,
          "--portal", other, *secrets)
    return front


class Pair:
    """Two nodes; legs are files in a folder."""

    def __init__(self, binaries, work, legs, size, options=(), cores="own", arguments=()):
        """`cores`: "own", one for each node, or "all" for both; `options` of the pair, `arguments` of the nodes."""
        work.mkdir()
        number = lambda node: ",".join(map(str, range(os.cpu_count()))) if cores == "all" else str(node % os.cpu_count())
        self.work, self.binaries, self.size = work, binaries, size
        self.legs = {name: Path(legs) / f"{work.name}-{name}.leg" for name in "ab"}
        self.nodes = {name: Node(binaries, work, name, number(node), arguments) for node, name in enumerate("ab")}
        for node in self.nodes.values():
            node.start()
        gemel = lambda node, *words: self.nodes[node].gemel(*words)
        front = pair_up(gemel, NAME, {name: f"{leg}:{size}" for name, leg in self.legs.items()}, work / "chap", options)
        self.url = f"iscsi://{front}/iqn.2026-11.org.gemel:{NAME}/0"
        self.settle()
        gemel("b", "config", "save", work / "b.json")

    def settle(self, seconds=300.0):
        """Until both legs are in sync."""
        holder = self.nodes["a"]
        until("a pair in sync", lambda: self.in_sync(holder.status()), seconds)

    @staticmethod
    def in_sync(status):
        legs = status["legs"] or []
        return len(legs) == 2 and all(leg["in_sync"] for leg in legs) and status["dirty_bytes"] == 0

    def lose_peer(self):
        self.nodes["b"].kill()
        until("a holder alone", lambda: not self.nodes["a"].status()["legs"][1]["in_sync"])

    def peer_returns(self):
        self.nodes["b"].start("--config", str(self.work / "b.json"))

    def blank_peer(self):
        self.legs["b"].unlink()
        with self.legs["b"].open("wb") as file:
            file.truncate(self.size)

    def resynced(self):
        """Bytes and rate of the resync that ends the peer's return."""
        self.settle()
        last = self.nodes["a"].status()["last_resync"]
        return last["copied_bytes"], last["copied_bytes"] / max(last["seconds"], 1e-6)

    def load(self, seconds, *arguments, warm_up=0.3):
        text = output([str(self.binaries / "gemel-perf"), "run", self.url, "--json", "--warm-up", str(warm_up), "--seconds", str(seconds),
                       "--mix", "write", "--seed", str(random.randrange(1, 1 << 30)), *arguments], timeout=300)
        report = json.loads(text)
        if report["errors"]:
            sys.exit(f"mirror: {report['first_error']}")
        latency = report["latency_us"]["all"]
        return {"iops": report["iops"], "p50_us": latency["p50"], "p99_us": latency["p99"], "count": latency["count"]}

    def stop(self):
        for node in self.nodes.values():
            node.stop()
        for leg in self.legs.values():
            leg.unlink(missing_ok=True)


def bounds(binaries, folder, seconds):
    """A raw write of 4 KiB where a leg would be, made stable as a leg's is, and bare round trips of a write's bytes. Their two ends
    poll, as nodes do: on one core each would wait for the other to let go of it."""
    file = Path(folder) / f"gemel-bound-{os.getpid()}"
    block = os.urandom(4096)
    with file.open("wb") as fresh:
        fresh.write(os.urandom(16 << 20))
        fresh.flush()
        os.fsync(fresh.fileno())
    try:
        raw = json.loads(output([str(binaries / "gemel-perf"), "raw", "--json", "--seconds", str(seconds)]))
        descriptor = os.open(file, os.O_WRONLY | os.O_DSYNC)
        times, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            os.pwrite(descriptor, block, random.randrange(4096) * 4096)
            times.append(time.perf_counter() - began)
        os.close(descriptor)
    finally:
        file.unlink()
    times.sort()
    return {"write_p50_us": times[len(times) // 2] * 1e6, "trip_p50_us": raw["tcp_write_polling_us"]["p50"],
            "blocking_trip_p50_us": raw["tcp_write_blocking_us"]["p50"]}


def raw_copy(folder, count, run):
    """Bytes a second of copying runs at random places from a file, through a TCP connection, into another."""
    size = max(count, 64) * run
    names = [Path(folder) / f"gemel-copy-{os.getpid()}-{end}" for end in ("from", "to")]
    for name in names:
        with name.open("wb") as file:
            file.write(bytes(size))
    places = random.sample(range(size // run), count)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        sender = socket.create_connection(listening.getsockname())
        receiver, _ = listening.accept()

    def give():
        source, buffer = os.open(names[0], os.O_RDONLY), bytearray(run)
        for place in places:
            os.preadv(source, [buffer], place * run)
            sender.sendall(buffer)
        os.close(source)

    thread = threading.Thread(target=give)
    began = time.perf_counter()
    thread.start()
    into, buffer = os.open(names[1], os.O_WRONLY), bytearray(run)
    for place in places:
        view = memoryview(buffer)
        while len(view):
            view = view[receiver.recv_into(view):]
        os.pwritev(into, [buffer], place * run)
    os.close(into)
    thread.join()
    took = time.perf_counter() - began
    for end in (sender, receiver):
        end.close()
    for name in names:
        name.unlink()
    return count * run / took


def writes(pair, folder, binaries, seconds):
    """A mirrored write at depth 1 against what it cannot be faster than."""
    own = pair.load(seconds, "--span", HOT, "--depth", "1")
    bound = bounds(binaries, folder, min(seconds, 0.5))
    least = max(bound["write_p50_us"], bound["trip_p50_us"] + bound["write_p50_us"])
    return {"mirrored": own, **bound, "least_us": least, "least_with_host_us": least + bound["trip_p50_us"]}


def wide(pair):
    """Three quarters of the volume: a log keeps room for what comes, and this much fits into one of the volume's size."""
    return f"{pair.nodes['a'].status()['data_size'] * 3 // 4 >> 20}m"


def transactions(before, after):
    """For each write."""
    written = after["counters"]["writes"] - before["counters"]["writes"]
    return (after["intent_log"]["transactions"] - before["intent_log"]["transactions"]) / max(1, written)


def hold_all(pair):
    """Writes until the log holds every extent that is written to."""
    for _ in range(60):
        before = pair.nodes["a"].status()
        pair.load(1, "--pattern", "seq", "--sizes", "64k", "--depth", "16", "--span", wide(pair))
        if transactions(before, pair.nodes["a"].status()) == 0:
            return
    sys.exit("mirror: the log does not come to hold every extent")


def logs(pairs, seconds):
    """Each place with the log and without, in turns."""
    found = {}
    for what, arguments in (("hot set", ["--span", HOT]), ("wide", ["--span", wide(pairs["log"])])):
        order = list(pairs)
        random.shuffle(order)
        for name in order:
            before = pairs[name].nodes["a"].status()
            figures = pairs[name].load(seconds, "--depth", "32", *arguments)
            after = pairs[name].nodes["a"].status()
            found.setdefault(what, {})[name] = {**figures, "transactions_per_write": transactions(before, after)}
    return found


def tail(pair):
    """p99 of one sample of the steady load."""
    return pair.load(SAMPLE, "--rate", ARRIVALS, "--span", HOT, warm_up=0.1)["p99_us"]


def blank_returns(pair):
    """A whole leg is to be copied to a blank one."""
    pair.lose_peer()
    pair.blank_peer()
    pair.peer_returns()


def resyncs(pair):
    """A whole leg copied to a blank one: by itself, and while hosts write. Tails are medians of samples of the same length, of which those
    count as the resync's that lie in it as a whole."""
    blank_returns(pair)
    _, idle = pair.resynced()
    before = [tail(pair) for _ in range(SAMPLES)]
    holder, during, busy = pair.nodes["a"], [], []
    while len(during) < SAMPLES and len(busy) < RESYNCS:
        blank_returns(pair)
        until("a resync", lambda: holder.status()["resync"] or pair.in_sync(holder.status()))
        while holder.status()["resync"]:
            seen = tail(pair)
            if holder.status()["resync"]:
                during.append(seen)
        busy.append(pair.resynced()[1])
    return {"idle": idle, "busy": statistics.median(busy), "before_p99_us": statistics.median(before),
            "during_p99_us": statistics.median(during) if during else None, "before_each_us": before, "during_each_us": during}


def returns(pair, folder, counts):
    """The peer misses so many writes."""
    found = {}
    volume = pair.nodes["a"].status()["data_size"]
    granules = volume // GRANULE
    for count in counts:
        pair.lose_peer()
        written = pair.load(1, "--rate", str(count), "--arrivals", "even")["count"]
        expected = granules * (1 - (1 - 1 / granules) ** (written * 1.3)) * GRANULE
        pair.peer_returns()
        copied, rate = pair.resynced()
        raw = raw_copy(folder, max(64, int(copied // GRANULE)), GRANULE)
        found[str(count)] = {"copied_bytes": copied, "expected_bytes": expected, "rate": rate, "raw_rate": raw}
    return found


def one_round(binaries, work, disk, leg, seconds, counts):
    pairs = {}
    try:
        pairs["log"] = Pair(binaries, work / "log", work, leg)
        pairs["no log"] = Pair(binaries, work / "free", work, leg, ["--max-crash-resync", str(leg)])
        hold_all(pairs["no log"])
        result = {"write, legs in memory": writes(pairs["log"], work, binaries, seconds), "log": logs(pairs, seconds)}
        pairs.pop("no log").stop()
        result["resync"] = resyncs(pairs["log"])
        result["return"] = returns(pairs["log"], work, counts)
        if disk:
            pairs["disk"] = Pair(binaries, work / "disk", disk, 256 << 20)
            result["write, legs on disk"] = writes(pairs["disk"], disk, binaries, seconds)
        return result
    finally:
        for pair in pairs.values():
            pair.stop()


def figures_of(rounds):
    """Each row: its name, the figure's range over the rounds, and its ratio to its bound with what is asked of it."""
    rows = []

    def row(name, unit, bar, pairs, scale=1.0):
        """`pairs`: bound and figure of each round. One without either was interrupted."""
        pairs = [(bound, own) for bound, own in pairs if bound and own]
        if not pairs:
            return print(f"mirror: no round has measured: {name}", file=sys.stderr)
        rows.append({
            "name": name, "unit": unit, "bar": bar, "figure": summary([own / scale for _, own in pairs]),
            "bound": summary([bound / scale for bound, _ in pairs]), "ratio": ratio(pairs)})

    for place in ("write, legs in memory", "write, legs on disk"):
        seen = [one[place] for one in rounds if place in one]
        if seen:
            row(f"mirrored {place}, depth 1, p50, against max(local write, round trip + remote write)", "us", "<= 1.25",
                [(one["least_us"], one["mirrored"]["p50_us"]) for one in seen])
            row(f"mirrored {place}, depth 1, p50, against the same and the host's round trip", "us", "",
                [(one["least_with_host_us"], one["mirrored"]["p50_us"]) for one in seen])
    for what, words, bar in (("hot set", "hot set", ">= 0.95"), ("wide", "three quarters of the volume", ">= 0.8")):
        logs = [one["log"][what] for one in rounds]
        row(f"intent log on against off, {words}, depth 32, rate", "IOPS", bar, [(one["no log"]["iops"], one["log"]["iops"]) for one in logs])
        row(f"intent log on against off, {words}, depth 32, p99", "us", "<= 1.1" if what == "hot set" else "",
            [(one["no log"]["p99_us"], one["log"]["p99_us"]) for one in logs])
    resync = [one["resync"] for one in rounds]
    row(f"p99 of {ARRIVALS} writes/s while resyncing, against before", "us", "<= 1.5",
        [(one["before_p99_us"], one["during_p99_us"]) for one in resync])
    row("resync while hosts write, against an idle one", "MB/s", ">= 0.5", [(one["idle"], one["busy"]) for one in resync], 1e6)
    for count in rounds[0]["return"]:
        seen = [one["return"][count] for one in rounds]
        row(f"bytes copied after {count} writes/s for 1.3 s, against granules written", "MB", "~ 1", [(one["expected_bytes"], one["copied_bytes"]) for one in seen], 1e6)
        row(f"rate of that, against a raw copy of as many granules through TCP", "MB/s", ">= 0.9", [(one["raw_rate"], one["rate"]) for one in seen], 1e6)
    return rows


def table(result):
    lines = ["| work | measured | its bound | ratio (95 %) | wanted |", "|---|---|---|---|---|"]
    for one in result["figures"]:
        digits = 1 if one["unit"] in ("us", "MB") else 0
        of = one["ratio"]
        lines.append(f"| {one['name']} | {range_of(one['figure'], digits)} {one['unit']} | {range_of(one['bound'], digits)} {one['unit']} | "
                     f"{of['value']:.2f} ({of['low']:.2f} to {of['high']:.2f}) | {one['bar']} |")
    lines += ["", "Noise: " + noise_line(result["noise"], result)]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--leg-mib", type=int, default=1024, help="MiB of each leg in memory")
    parser.add_argument("--writes", type=int, nargs="*", default=[500, 2000, 8000], help="a second, that a peer misses")
    parser.add_argument("--disk", metavar="FOLDER", default=str(ROOT / "target"), help="where to put legs on a disk; empty for none")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    parser.add_argument("--out", type=Path, default=ROOT / "perf/results/mirror.json")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    given = parser.parse_args()
    if given.rounds < 1 or given.seconds < 0.1 or given.leg_mib < 64 or any(count < 1 for count in given.writes):
        parser.error("at least one round, a tenth of a second, legs of 64 MiB, and a write a second")
    binaries = given.bin.resolve()
    for program in ("gemeld", "gemel", "gemel-perf"):
        if not (binaries / program).exists():
            sys.exit(f"mirror: {binaries / program} is missing: make build")
    rounds, noise = [], Noise()
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            rounds.append(one_round(binaries, Path(folder), given.disk, given.leg_mib << 20, given.seconds, given.writes))
        print(f"mirror: round {number + 1} of {given.rounds}", file=sys.stderr)
    result = {
        "format": "gemel-compare-mirror/1",
        "machine": machine(),
        "rounds": given.rounds,
        "seconds": given.seconds,
        "leg_mib": given.leg_mib,
        "figures": figures_of(rounds),
        "each": rounds,
        "noise": noise.end(),
    }
    publish(result, table(result), given, "mirror", "make compare-mirror")


if __name__ == "__main__":
    main()

"""One node with RAM disks, as the measurements of a node by itself need it."""

import json
import socket
import subprocess
import sys

from common import cpu_of, free_port, until

TARGET = "iqn.2026-11.org.gemel:one"


def is_whole(text):
    try:
        json.loads(text)
        return True
    except ValueError:
        return False


class One:
    def __init__(self, binaries, work, name="one", cores="0", memory=64, arguments=()):
        self.control = work / f"{name}.sock"
        self.control.unlink(missing_ok=True)
        with (work / f"{name}.log").open("a") as log:
            self.process = subprocess.Popen(
                [binaries / "gemeld", "--socket", self.control, "--memory", str(memory), "--cores", cores, *map(str, arguments)],
                stdout=subprocess.DEVNULL, stderr=log)
        until("gemeld", lambda: self.control.exists() or self.process.poll() is not None, 60)
        if self.process.poll() is not None:
            sys.exit((work / f"{name}.log").read_text().strip())
        # It answers when its memory is there.
        self.call("node_get_limits")

    def call(self, method, params=None):
        """Over the socket itself: a process for each call would be what is measured."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method} | ({} if params is None else {"params": params})
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.control))
            control.sendall(json.dumps(request).encode())
            text = b""
            while not is_whole(text):
                more = control.recv(1 << 16)
                if not more:
                    sys.exit(f"{method}: the node does not answer")
                text += more
            answer = json.loads(text)
        if "error" in answer:
            sys.exit(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def serve(self, luns=1, mib=64):
        """A target with so many RAM disks, for everybody on loopback; gives its port."""
        port = free_port()
        self.call("iscsi_create_portal_group", {"tag": 1, "portals": [{"host": "127.0.0.1", "port": str(port)}]})
        self.call("iscsi_create_initiator_group", {"tag": 1, "initiators": ["ANY"], "netmasks": ["127.0.0.0/8"]})
        for number in range(luns):
            self.disk(number, mib)
        shown = [{"bdev_name": f"ram{number}", "lun_id": number} for number in range(luns)]
        self.call("iscsi_create_target_node", {
            "name": TARGET, "alias_name": "one", "queue_depth": 128, "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}], "luns": shown})
        return port

    def disk(self, number, mib):
        self.call("bdev_malloc_create", {"name": f"ram{number}", "block_size": 512, "num_blocks": mib << 11})

    def cpu(self):
        """Seconds of processor time that it has had."""
        return cpu_of(self.process.pid)

    def memory(self):
        """Bytes that are its own and in memory: its frames are from the start on."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
        return 0

    def frames(self):
        """Bytes of frames in use."""
        classes = self.call("node_get_limits")["memory"]["frames"]
        return sum(one["frame_size"] * one["used"] for one in classes)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

"""An iSCSI session that does next to nothing: it logs in, reads a block, and stays. To count what many of them cost a node."""

import socket
import struct


class Refused(Exception):
    pass


class Session:
    def __init__(self, port, target, number, timeout=20.0):
        """`number` makes its name and its address on loopback: a node bounds what one of either may have."""
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.bind((f"127.1.{number // 200}.{1 + number % 200}", 0))
        self.socket.connect(("127.0.0.1", port))
        self.command, self.status = 1, 0
        self.login(target, number)

    def login(self, target, number):
        keys = {"InitiatorName": f"iqn.2026-11.org.gemel:many{number}", "TargetName": target, "SessionType": "Normal"}
        text = b"".join(f"{key}={value}\0".encode() for key, value in keys.items())
        # Immediate, from the operational stage to full feature; ISID of the random type.
        head = struct.pack(">BBBB", 0x43, 0x87, 0, 0) + len(text).to_bytes(4, "big") + bytes([0x80]) + number.to_bytes(5, "big")
        head += struct.pack(">HIIII", 0, 1, 0, self.command, 0)
        self.send(head.ljust(48, b"\0"), text)
        answer, _ = self.receive()
        if answer[0] & 0x3f != 0x23 or answer[36]:
            raise Refused(f"login status 0x{answer[36]:02x}{answer[37]:02x}")
        self.status = struct.unpack(">I", answer[24:28])[0]

    def read(self):
        """Reads the first block, past unit attentions."""
        for tag in range(2, 10):
            cdb = bytes([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]).ljust(16, b"\0")
            head = struct.pack(">BBHI", 0x01, 0xc1, 0, 0) + bytes(8) + struct.pack(">IIII", tag, 512, self.command, self.status + 1) + cdb
            self.send(head, b"")
            self.command += 1
            while True:
                answer, _ = self.receive()
                kind = answer[0] & 0x3f
                # A Data-In with its status, or a response.
                if kind == 0x21 or (kind == 0x25 and answer[1] & 0x01):
                    break
            self.status = struct.unpack(">I", answer[24:28])[0]
            if answer[3] == 0:
                return
        raise Refused("no read succeeds")

    def send(self, head, data):
        self.socket.sendall(head + data + bytes(-len(data) % 4))

    def exactly(self, count):
        got = b""
        while len(got) < count:
            more = self.socket.recv(count - len(got))
            if not more:
                raise Refused("the node has closed the connection")
            got += more
        return got

    def receive(self):
        head = self.exactly(48)
        length = int.from_bytes(head[5:8], "big")
        return head, self.exactly(length + -length % 4)[:length]

    def close(self):
        self.socket.close()

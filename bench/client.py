"""Load in a process of its own, where wrk is not installed, and for WebSockets; stops by itself.

    python -m bench.client '{"port": 8000, "seconds": 1, "load": {...}}'

Prints one line of JSON, the same as wrk.lua. It costs three or four times what wrk does for a request, so on few cores
its throughput says less; the CPU of the server is the same.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import ssl
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import httptools
import uvloop

from bench.figures import percentile
from bench.scenarios import Load

MASK = b"\x1b\x2c\x3d\x4e"
TEXT = b'{"id": 1234567, "name": "a name", "tags": ["red", "green"], "price": 12.50}, '


class Run:
    """What all connections of one load share."""

    def __init__(self, load: Load, port: int, seconds: float, tls: bool) -> None:
        self.load = load
        self.port = port
        self.seconds = seconds
        self.tls = tls
        self.ends = 0.0
        self.requests = 0
        self.received = 0
        self.latencies: list[float] = []
        self.failures: Counter[str] = Counter()

    def result(self, seconds: float) -> dict[str, Any]:
        times = sorted(self.latencies) or [0.0]
        return {
            "requests": self.requests,
            "seconds": seconds,
            "bytes": self.received,
            "p50": percentile(times, 50) * 1e3,
            "p99": percentile(times, 99) * 1e3,
            "p999": percentile(times, 99.9) * 1e3,
            "max": times[-1] * 1e3,
            "failures": dict(self.failures),
        }


class Client(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends again.

    Attributes:
        done: Is set when the connection has ended.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.done = asyncio.get_running_loop().create_future()
        self.began = 0.0
        self.waiting = 0
        self.used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.start()

    def start(self) -> None:
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting and time.perf_counter() < self.run.ends:
            self.run.failures["stale" if self.used else "fresh"] += 1
        if not self.done.done():
            self.done.set_result(None)

    def ask(self, data: bytes, count: int = 1) -> None:
        self.began = time.perf_counter()
        self.waiting = count
        self.transport.write(data)

    def answered(self) -> bool:
        """One answer is whole. Whether that was the last one asked for, and it is not yet time to end."""
        now = time.perf_counter()
        self.waiting -= 1
        self.used = True
        if now < self.run.ends:
            self.run.requests += 1
            self.run.latencies.append(now - self.began)
        else:
            self.waiting = 0
            self.transport.close()
            return False
        return not self.waiting


class HttpClient(Client):
    def start(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.data = requests(self.run.load)
        self.ask(next(self.data), self.run.load.pipeline)

    def data_received(self, data: bytes) -> None:
        self.run.received += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.run.failures["cut"] += 1
            self.transport.abort()

    def on_message_complete(self) -> None:
        if self.parser.get_status_code() != 200:
            self.run.failures["status"] += 1
        if self.answered():
            if self.parser.should_keep_alive() and not self.run.load.close:
                self.ask(next(self.data), self.run.load.pipeline)
            else:
                self.transport.close()


def requests(load: Load) -> Iterator[bytes]:
    """What a connection sends, one write after the other."""
    lines = ["Host: localhost", *load.headers, *["Connection: close"] * load.close]
    lines += [f"Content-Length: {load.body}"] * bool(load.body)
    fixed, body = "\r\n".join(lines).encode(), b"x" * load.body
    rest = b"%b\r\n\r\n%b" % (fixed, body)
    start = f"{load.method} {load.path}".encode()
    if load.vary == "nothing":
        yield from itertools.repeat((b"%b HTTP/1.1\r\n%b" % (start, rest)) * load.pipeline)
    start += b"&n=" if b"?" in start else b"?n="
    for number in itertools.count(random.randrange(10**9, 2 * 10**9)):
        other = b"X-Request-Id: %032x\r\n" % number if load.vary in ("head", "ends") else b""
        if load.vary == "ends":
            rest = b"%b\r\nX-Trace-Id: %032x\r\n\r\n%b" % (fixed, number, body)
        yield b"%b%d HTTP/1.1\r\n%b%b" % (start, number, other, rest) * load.pipeline


class WebSocketClient(Client):
    def start(self) -> None:
        load = self.run.load
        self.buffer = bytearray()
        self.open = False
        self.data = message(load)
        offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if load.deflate else ""
        self.ask(
            f"GET {load.path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{offer}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.run.received += len(data)
        self.buffer += data
        if not self.open:
            head, end, rest = bytes(self.buffer).partition(b"\r\n\r\n")
            if not end:
                return
            accepted = b"permessage-deflate" in head.lower()
            if not head.startswith(b"HTTP/1.1 101") or accepted != self.run.load.deflate:
                self.run.failures["declined"] += 1
                self.transport.abort()
                return
            self.open = True
            self.buffer = bytearray(rest)
            self.ask(self.data)
        while length := whole_frame(self.buffer):
            opcode = self.buffer[0] & 15
            del self.buffer[:length]
            if opcode == 8:
                self.transport.close()
                return
            if opcode < 8 and self.answered():
                self.ask(self.data)


@lru_cache
def message(load: Load) -> bytes:
    """What every connection sends; to mask it takes longer than to send it, and all send the same."""
    payload = (TEXT * (load.body // len(TEXT) + 1))[: load.body]
    return frame(deflated(payload) if load.deflate else payload, load.deflate)


def deflated(payload: bytes) -> bytes:
    # A compressor of its own for each message is always within what the other side has agreed to.
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def frame(payload: bytes, compressed: bool) -> bytes:
    """One masked text frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        size = bytes([128 | length])
    elif length < 65536:
        size = bytes([128 | 126]) + struct.pack("!H", length)
    else:
        size = bytes([128 | 127]) + struct.pack("!Q", length)
    masked = bytes(byte ^ MASK[i & 3] for i, byte in enumerate(payload))
    return bytes([0x81 | (0x40 if compressed else 0)]) + size + MASK + masked


def whole_frame(buffer: bytearray) -> int:
    """The length of the unmasked frame at the beginning, or 0 when it is not whole yet."""
    if len(buffer) < 2:
        return 0
    length, head = buffer[1] & 127, 2
    if length == 126:
        if len(buffer) < 4:
            return 0
        length, head = int.from_bytes(buffer[2:4]), 4
    elif length == 127:
        if len(buffer) < 10:
            return 0
        length, head = int.from_bytes(buffer[2:10]), 10
    return head + length if len(buffer) >= head + length else 0


async def lane(run: Run, context: ssl.SSLContext | None) -> None:
    """One connection after the other, until the time is over."""
    loop = asyncio.get_running_loop()
    factory = HttpClient if run.load.kind == "http" else WebSocketClient
    while time.perf_counter() < run.ends:
        try:
            transport, client = await asyncio.wait_for(
                loop.create_connection(lambda: factory(run), "127.0.0.1", run.port, ssl=context), run.seconds
            )
        except (OSError, TimeoutError):
            run.failures["refused"] += 1
            await asyncio.sleep(0.01)
            continue
        left = run.ends + 0.5 - time.perf_counter()
        done, _ = await asyncio.wait([client.done], timeout=max(0, left))
        if not done:
            run.failures["timeout"] += 1
            transport.abort()
        if run.failures["declined"]:
            return


async def measure(run: Run) -> dict[str, Any]:
    context = None
    if run.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if run.load.kind == "websocket":
        message(run.load)
    began = time.perf_counter()
    run.ends = began + run.seconds
    await asyncio.gather(*(lane(run, context) for _ in range(run.load.connections)))
    return run.result(run.seconds)


def main() -> None:
    task = json.loads(sys.argv[1])
    load = Load(**{**task["load"], "headers": tuple(task["load"]["headers"])})
    run = Run(load, task["port"], task["seconds"], task["tls"])
    print(json.dumps(uvloop.run(measure(run))))


if __name__ == "__main__":
    main()

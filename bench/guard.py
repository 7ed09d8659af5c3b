"""What the request path costs, in the process, beside work that never changes.

Every case feeds requests to this server's protocol on a transport that only counts, on uvloop. In turns with it runs the
reference, on the same requests: the same parser, a task, a dictionary and a joined response, and nothing of this server.
For WebSockets that is messages, and the reference takes off the mask, wakes a task and writes a frame. A turn takes a
fraction of a millisecond, so many are not disturbed, whatever else the machine does; their time is compared with
that of the reference's, so that how fast the machine is drops out. The figure is how many times the reference a request
costs, in the median of several processes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httptools
import uvloop
from websockets.speedups import apply_mask

from bench.client import message, requests
from bench.environments import ROOT
from bench.figures import percentile
from bench.scenarios import BROWSER, Load
from uvicorn._ipc.scoreboard import Cell, Scoreboard
from uvicorn.config import Config
from uvicorn.protocols._upgrade import UpgradeRequest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

RECORDED = Path(__file__).parent / "results" / "guard.json"
# Few, so that all they hold stays in the caches nearest to the core: with 32, what else runs moved heads that vary by 10 %.
CONNECTIONS = 8
# How many turns of one case come together, each some 50 us.
TURNS = 20
# So many per cent of the turns count as undisturbed.
UNDISTURBED = 20
# What the figures of unchanged code differ by between runs, at most.
STEADY = 0.03

CASES = {
    "hello": Load(),
    "other-lines": Load(headers=BROWSER, vary="line"),
    "other-heads": Load(headers=BROWSER, vary="head"),
    # Nothing that is remembered helps with these.
    "parsed": Load(headers=BROWSER, vary="ends"),
    "post-1k": Load(path="/post", method="POST", body=1024),
    "ws-16": Load(kind="websocket", body=16),
    "ws-64k": Load(kind="websocket", body=65536),
}
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "server": ("127.0.0.1", 8000),
    "client": ("127.0.0.1", 50000),
    "scheme": "http",
    "method": "GET",
    "root_path": "",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "headers": [],
    "state": {},
}
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
}
BODY = {"type": "http.response.body", "body": b"Hello, world!"}
# How an answer begins: a response, or a text message of one frame.
OK, TEXT = b"HTTP/1.1 200", b"\x81"
HANDSHAKE = UpgradeRequest(
    b"GET",
    b"/",
    b"",
    [(b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="), (b"sec-websocket-version", b"13")],
    b"",
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            pass
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
        }
    )
    await send({"type": "http.response.body", "body": b"Hello, world!"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        received = await receive()
        if received["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": received["text"]})


class Counting(asyncio.Transport):
    """A transport that takes everything at once.

    Args:
        answer: How what it counts begins.
    """

    def __init__(self, answer: bytes = OK) -> None:
        super().__init__()
        self.answer = answer
        self.answers = 0

    def write(self, data: Any) -> None:
        self.answers += data.startswith(self.answer)

    def writelines(self, pieces: Any) -> None:
        self.answers += pieces[0].startswith(self.answer)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 8000) if name in ("peername", "sockname") else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class Reference:
    """What no protocol gets around: parse, build a scope, run a task that sends twice, join, write."""

    def __init__(self, transport: Counting, make_task: Callable[[Any], Any]) -> None:
        self.transport = transport
        self.make_task = make_task
        self.parser = httptools.HttpRequestParser(self)
        self.headers: list[tuple[bytes, bytes]] = []

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        scope = {**SCOPE, "method": self.parser.get_method().decode(), "headers": self.headers}
        scope["path"] = self.url.decode()
        self.headers = []
        self.make_task(self.run(scope))

    async def run(self, scope: dict[str, Any]) -> None:
        self.lines: list[bytes] = [b"HTTP/1.1 200 OK\r\n"]
        await self.send(START)
        await self.send(BODY)

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            for name, value in message["headers"]:
                self.lines.append(b"%b: %b\r\n" % (name, value))
        else:
            self.lines.append(b"\r\n")
            self.lines.append(message["body"])
            self.transport.write(b"".join(self.lines))


class WebSocketReference:
    """What no protocol gets around: take off the mask, wake a task with a dictionary, encode, write."""

    def __init__(self, transport: Counting, loop: asyncio.AbstractEventLoop, load: Load) -> None:
        self.transport = transport
        self.loop = loop
        masked = message(load)
        size = {126: 4, 127: 10}.get(masked[1] & 0x7F, 2)
        self.head = bytes((masked[0], masked[1] & 0x7F)) + masked[2:size]
        self.start = size + 4
        self.waiter = loop.create_future()
        self.task = loop.create_task(self.run())

    def data_received(self, data: bytes) -> None:
        start = self.start
        content = apply_mask(memoryview(data)[start:], data[start - 4 : start])
        self.waiter.set_result({"type": "websocket.receive", "text": content.decode("utf-8")})

    async def run(self) -> None:
        while True:
            received = await self.receive()
            await self.send({"type": "websocket.send", "text": received["text"]})

    async def receive(self) -> Any:
        received = await self.waiter
        self.waiter = self.loop.create_future()
        return received

    async def send(self, sent: Any) -> None:
        self.transport.write(self.head)
        self.transport.write(sent["text"].encode("utf-8"))


class Bench:
    """Connections that are fed one request each, turn by turn; each turn's time is kept.

    Args:
        protocols: One for each connection; any object with `data_received`.
        transports: Theirs.
        load: What is fed.
    """

    def __init__(self, protocols: list[Any], transports: list[Counting], load: Load) -> None:
        self._feeds = [each.data_received for each in protocols]
        self._transports = transports
        self._sources = [(requests if load.kind == "http" else messages)(load) for _ in protocols]
        self._turns = 0
        self.times: list[int] = []

    async def run_turns(self, count: int) -> None:
        feeds, sources, times = self._feeds, self._sources, self.times
        for _ in range(count):
            # Made just before, as the kernel would have them: in the cache.
            batch = [next(source) for source in sources]
            began = time.perf_counter_ns()
            for feed, data in zip(feeds, batch, strict=True):
                feed(data)
            await asyncio.sleep(0)
            taken = time.perf_counter_ns() - began
            self._turns += 1
            for _ in range(CONNECTIONS):
                if self._answered() >= self._turns * CONNECTIONS:
                    break
                # Requests that take long, as the first ones do, are put off to further turns of the loop.
                await asyncio.sleep(0)
                taken = time.perf_counter_ns() - began
            times.append(taken)

    def _answered(self) -> int:
        return sum(each.answers for each in self._transports)

    def least(self) -> float:
        """Microseconds of a request in an undisturbed turn."""
        return percentile(sorted(self.times), UNDISTURBED) / 1e3 / CONNECTIONS

    def check(self) -> None:
        asked, answered = self._turns * CONNECTIONS, self._answered()
        if answered != asked:
            raise SystemExit(f"{answered} of {asked} requests were answered well: this measures nothing.")


def messages(load: Load) -> Iterator[bytes]:
    """The same message again and again, each time as bytes of its own."""
    data = bytearray(message(load))
    while True:
        yield bytes(data)


def counting(load: Load) -> list[Counting]:
    return [Counting(OK if load.kind == "http" else TEXT) for _ in range(CONNECTIONS)]


def reference(load: Load, loop: asyncio.AbstractEventLoop) -> Bench:
    transports = counting(load)
    if load.kind == "websocket":
        return Bench([WebSocketReference(each, loop, load) for each in transports], transports, load)
    make_task = partial(asyncio.Task, loop=loop)
    return Bench([Reference(each, make_task) for each in transports], transports, load)


def case(load: Load, loop: asyncio.AbstractEventLoop, measured: bool = False) -> Bench:
    application = app if load.kind == "http" else echo
    options: Any = {"access_log": False, "log_config": None, "lifespan": "off"}
    config = Config(application, http="httptools", loop="uvloop", **options)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Wed, 25 Nov 2026 00:00:00 GMT"), (b"server", b"uvicorn")]
    state.now = time.monotonic()
    if measured:  # as where somebody may look; it never gets settled, as between two looks
        state.measured = True
        state.responses = Scoreboard().claim(0).part(Cell.RESPONSES_OTHER, len(state.responses))
    transports = counting(load)
    make: Any = HttpToolsProtocol if load.kind == "http" else config.ws_protocol_class
    protocols = [make(config, state, {}, loop) for _ in transports]
    for protocol, transport in zip(protocols, transports, strict=True):
        protocol.connection_made(transport)
        if load.kind == "websocket":
            # It is accepted in the first turn, which is not measured.
            protocol.upgrade_received(HANDSHAKE)
    return Bench(protocols, transports, load)


async def measure(blocks: int, kind: str) -> dict[str, list[float]]:
    """For each case of the kind, how many times the reference it costs, and its microseconds."""
    loop = asyncio.get_running_loop()
    loads = {name: load for name, load in CASES.items() if load.kind == kind}
    cases = {name: case(load, loop) for name, load in loads.items()}
    beside = {name: reference(load, loop) for name, load in loads.items()}
    benches = [each for name in loads for each in (beside[name], cases[name])]
    for each in benches:
        await each.run_turns(TURNS)
        each.times.clear()
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(blocks):
        for each in benches:
            await each.run_turns(TURNS)
        gc.collect()
    for each in benches:
        each.check()
    return {name: [each.least() / beside[name].least(), each.least()] for name, each in cases.items()}


def child(blocks: int) -> dict[str, list[float]]:
    """The figures of one process for each kind: large messages push out of the caches what requests need.

    Where code and objects come to lie differs from process to process, and with it what they cost; hashes at least are
    the same in all.
    """
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    found: dict[str, list[float]] = {}
    for kind in ("http", "websocket"):
        command = [sys.executable, "-m", "bench.guard", str(blocks), kind]
        done = subprocess.run(command, cwd=ROOT, env=environ, check=True, stdout=subprocess.PIPE, text=True)
        found |= json.loads(done.stdout)
    return found


def combined(children: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The median process of each figure."""
    return {
        name: [statistics.median(each[name][i] for each in children) for i in (0, 1)] for name in children[0]
    }


def verdict(found: float, recorded: float | None) -> str:
    """What is said of a ratio beside the recorded one."""
    if recorded is None:
        return "not recorded"
    change = found / recorded - 1
    if abs(change) <= STEADY:
        return "as recorded"
    return f"{'SLOWER' if change > 0 else 'faster'} by {abs(change):.0%}"


def lines(found: dict[str, list[float]], recorded: dict[str, list[float]]) -> Iterator[str]:
    for name, (ratio, microseconds) in found.items():
        before = recorded[name][0] if name in recorded else None
        shown = f"{before:.3f}" if before else "-"
        yield f"{name:12} {ratio:6.3f}, recorded {shown:>5}: {verdict(ratio, before)} ({microseconds:.2f} us here)"


def guard(processes: int, blocks: int, record: bool) -> None:
    found = combined([child(blocks) for _ in range(processes)])
    version = ".".join(platform.python_version_tuple()[:2])
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    print(f"The request path on Python {version}, in times the reference work (steady within {STEADY:.0%}):")
    for line in lines(found, recorded.get(version, {})):
        print(f"  {line}")
    if record:
        recorded[version] = {name: [round(value, 3) for value in figures] for name, figures in found.items()}
        RECORDED.parent.mkdir(exist_ok=True)
        RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
        print(f"Recorded in {RECORDED.relative_to(ROOT)}.")


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measure(int(sys.argv[1]), sys.argv[2]))))

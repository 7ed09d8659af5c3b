"""The kinds of clients. Each goes on until the run ends, and enters what it sees into the ledger."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.soak.answers import ASKED, asked, content
from tests.soak.app import PIECE
from tests.soak.ledger import Connection, Ledger
from tests.soak.wire import PATIENCE, Lost, Reply, Wire, connected

UPLOAD = 400_000


@dataclass
class Client:
    """One client.

    Args:
        kind: Its kind, for the ledger.
        port: Where the service is.
        ledger: Where it enters what it sees.
        rng: Its own, so that a seed says what each client does.
        ends: Set when no request is begun any more.
    """

    kind: str
    port: int
    ledger: Ledger
    rng: random.Random
    ends: asyncio.Event

    def target(self, path: str, number: int) -> str:
        return f"{path}?{self.rng.getrandbits(64):016x}.{number}"

    async def run(self) -> None:
        visit = KINDS[self.kind]
        while not self.ends.is_set():
            await visit(self)
            await asyncio.sleep(self.rng.uniform(0.005, 0.05))

    async def open(self, window: int = 0) -> Wire | None:
        began = time.monotonic()
        try:
            return await Wire.open(self.port, window)
        except Lost as exc:
            self.ledger.failed(self.kind, str(exc), None, began, time.monotonic())
            return None

    async def ask(self, wire: Wire, target: str, body: bytes | None = None, pause: float = 0.0) -> bool:
        """One request and its answer; whether the answer was right."""
        began = time.monotonic()
        try:
            if pause:
                await drip(wire, request(target, body), self.rng)
            else:
                await wire.send(request(target, body))
            reply = await wire.reply(pause)
        except Lost as exc:
            self.ledger.failed(self.kind, f"{exc}, {target}", wire.connection, began, time.monotonic())
            wire.close()
            return False
        return self.judge(wire, reply, target, body, began)

    def reusable(self, wire: Wire) -> bool:
        """Whether another request may be sent. No client here waits so long that its connection may end without a word."""
        if wire.usable:
            return True
        if not wire.closes and self.ledger.killed(wire.connection) is None:
            now = time.monotonic()
            self.ledger.failed(self.kind, "closed though it was kept alive", wire.connection, now, now)
        return False

    def judge(self, wire: Wire, reply: Reply, target: str, body: bytes | None, began: float) -> bool:
        if reply.status != 200:
            what = f"status {reply.status}, {target}"
            # A status is an answer: that a worker is killed later is no reason for it.
            self.ledger.failed(self.kind, what, None, began, time.monotonic())
            return False
        method = "GET" if body is None else "POST"
        checksum = asked(method, target, body or b"")
        path, _, query = target.partition("?")
        number = int(query.rpartition(".")[2])
        size = {"/stream": number * PIECE, "/slow": 100}.get(path, number)
        if reply.headers.get(ASKED) != checksum.encode() or reply.body != content(checksum, size):
            self.ledger.wrong.append(f"{self.kind} {wire.connection} {target}: {reply.headers}")
            return False
        self.ledger.good(self.kind, time.monotonic() - began)
        return True


def request(target: str, body: bytes | None = None, close: bool = False) -> bytes:
    """A request; a body of an odd length goes in chunks."""
    lines = [f"{'GET' if body is None else 'POST'} {target} HTTP/1.1", "Host: localhost"]
    if close:
        lines.append("Connection: close")
    if body is None:
        return "\r\n".join([*lines, "", ""]).encode()
    if len(body) % 2:
        head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
        pieces = [body[at : at + 5000] for at in range(0, len(body), 5000)]
        return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def drip(wire: Wire, data: bytes, rng: random.Random) -> None:
    """Send it in pieces, over a second or so."""
    at = 0
    while at < len(data):
        size = rng.randrange(1, max(2, len(data) // 4))
        await wire.send(data[at : at + size])
        at += size
        await asyncio.sleep(rng.uniform(0.05, 0.3))


# --- the kinds ----------------------------------------------------------------------------------------


async def kept(client: Client) -> None:
    """A connection for many requests, as a browser or a proxy has it. It thinks for less than the keep-alive time."""
    wire = await client.open()
    if wire is None:
        return
    for _ in range(client.rng.randrange(1, 100)):
        if client.ends.is_set() or not client.reusable(wire):
            break
        path, number = client.rng.choice([("/plain", 100), ("/plain", 20000), ("/slow", 30)])
        if not await client.ask(wire, client.target(path, number)):
            break
        await asyncio.sleep(client.rng.choice([0.0, 0.01, 0.05, client.rng.uniform(0.0, 2.0)]))
    wire.close()


async def fresh(client: Client) -> None:
    """A connection for one request."""
    wire = await client.open()
    if wire is not None:
        await client.ask(wire, client.target("/plain", 500))
        wire.close()


async def pipelined(client: Client) -> None:
    """Several requests at once. What stands behind an answer that closes is asked again, which is none of the server's."""
    wire = await client.open()
    if wire is None:
        return
    targets = [client.target("/plain", client.rng.randrange(1000)) for _ in range(4)]
    began = time.monotonic()
    try:
        await wire.send(b"".join(request(target) for target in targets))
        for target in targets:
            if not client.judge(wire, await wire.reply(), target, None, began) or wire.closes:
                break
    except Lost as exc:
        client.ledger.failed(client.kind, str(exc), wire.connection, began, time.monotonic())
    wire.close()


async def slow(client: Client) -> None:
    """Sends and reads a little at a time."""
    wire = await client.open(window=8192)
    if wire is not None:
        await client.ask(wire, client.target("/plain", client.rng.randrange(300_000)), pause=0.05)
        wire.close()


async def upload(client: Client) -> None:
    wire = await client.open()
    if wire is None:
        return
    for _ in range(client.rng.randrange(1, 5)):
        body = client.rng.randbytes(client.rng.randrange(UPLOAD))
        if not client.reusable(wire) or not await client.ask(wire, client.target("/upload", len(body)), body):
            break
    wire.close()


async def stream(client: Client) -> None:
    wire = await client.open()
    if wire is not None:
        await client.ask(wire, client.target("/stream", client.rng.randrange(100)))
        wire.close()


async def aborting(client: Client) -> None:
    """Goes away in the middle of something, by a reset or in order."""
    wire = await client.open()
    if wire is None:
        return
    whole = request(client.target("/upload", 100), client.rng.randbytes(client.rng.randrange(100_000)))
    sent = client.rng.choice(
        [
            b"",
            whole[: client.rng.randrange(len(whole))],
            request(client.target("/slow", 500)),
            request(client.target("/stream", 100)),
            HANDSHAKE,
            HANDSHAKE + b"\x81\x85",
            client.rng.randbytes(200) + b"\r\n\r\n",
        ]
    )
    try:
        await wire.send(sent)
        await asyncio.sleep(client.rng.uniform(0.0, 0.3))
    except Lost:
        pass  # it was refused before it was sent, or the worker killed
    client.ledger.aborted[client.kind] += 1
    if client.rng.random() < 0.5:
        wire.reset()
    else:
        wire.close()


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# A server that goes away, or restarts, says so (RFC 6455 7.4.1; 1012 is IANA's).
LEAVES = (1001, 1012)


async def websocket(client: Client) -> None:
    opened = began = time.monotonic()
    connection: Connection | None = None
    try:
        sock = await connected(client.port)
        connection = Connection(sock.getsockname()[1], opened)
        async with connect(
            "ws://localhost/", sock=sock, open_timeout=PATIENCE, close_timeout=PATIENCE, proxy=None
        ) as peer:
            for _ in range(client.rng.randrange(1, 200)):
                if client.ends.is_set():
                    break
                message = client.rng.randbytes(client.rng.randrange(5000))
                began = time.monotonic()
                await peer.send(message)
                answer = await asyncio.wait_for(peer.recv(), PATIENCE)
                if answer != asked("WEBSOCKET", "/", message):
                    client.ledger.wrong.append(f"{client.kind} {connection}: {answer!r}")
                    return
                client.ledger.good(client.kind, time.monotonic() - began)
                await asyncio.sleep(client.rng.uniform(0.0, 0.1))
    except ConnectionClosed as exc:
        if exc.rcvd is not None and exc.rcvd.code in LEAVES:
            client.ledger.ended[f"{client.kind} {exc.rcvd.code}"] += 1
        else:
            client.ledger.failed(client.kind, str(exc), connection, began, time.monotonic())
    except InvalidMessage as exc:
        client.ledger.failed(client.kind, f"handshake: {exc}", connection, began, time.monotonic())
    except InvalidHandshake as exc:
        client.ledger.failed(client.kind, f"handshake: {exc}", None, began, time.monotonic())
    except (Lost, OSError, TimeoutError) as exc:
        client.ledger.failed(client.kind, repr(exc), connection, began, time.monotonic())


KINDS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "kept": kept,
    "fresh": fresh,
    "pipelined": pipelined,
    "slow": slow,
    "upload": upload,
    "stream": stream,
    "aborting": aborting,
    "websocket": websocket,
}
# How many there are of each; together they leave two cores room for the service.
NUMBERS = {
    "kept": 6, "fresh": 2, "pipelined": 1, "slow": 3, "upload": 2, "stream": 3, "aborting": 3, "websocket": 3,
}  # fmt: skip

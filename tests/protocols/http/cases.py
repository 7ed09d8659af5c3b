"""What is sent and what came of it: the files of the corpus, an application that notes its calls, and a way to play
bytes to one implementation. The corpus' tests, the mutations and the fuzzing harnesses all go this way.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.protocols.http.harness import IMPLEMENTATIONS, StrictTransport, connect

CORPUS = Path(__file__).parent / "corpus"
FIRST = b"GET /first HTTP/1.1\r\nHost: example.org\r\n\r\n"
RUNS = ("whole", "byte by byte", "pipelined", "answered in between")
# Longer cases are cut into pieces of this size, not into bytes.
LONG, PIECE = 4096, 997
# After this many turns of the event loop without an end, everybody waits for the client.
TURNS = 12

_REPEAT = re.compile(r"\\\{([0-9]+)\*([^}]*)\}")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|\{([0-9]+)\*([^}]*)\}|(.))")
_PLAIN = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


@dataclass
class Answer:
    """What a client and the application have seen, or have to see."""

    responses: list[int] = field(default_factory=list)
    app: list[str] = field(default_factory=list)
    closed: bool = False


@dataclass
class Case:
    data: bytes
    answers: dict[str, Answer]
    headers: list[str] | None
    eof: bool
    settings: dict[str, int]
    reset: bool = False


def unescape(text: str) -> bytes:
    """The bytes that the text of a case stands for."""
    out = b""
    at = 0
    for match in _ESCAPE.finditer(text):
        out += text[at : match.start()].encode("ascii")
        at = match.end()
        if match[1]:
            out += bytes.fromhex(match[1])
        elif match[2]:
            out += unescape(match[3]) * int(match[2])
        else:
            out += _PLAIN[match[4]]
    return out + text[at:].encode("ascii")


def load(path: Path) -> Case:
    """One file of the corpus."""
    about, _, data = path.read_text("ascii").partition("\n---\n")
    _, _, lines = about.partition("\n\n")
    keys: dict[str, list[str]] = {}
    for line in lines.splitlines():
        key, _, value = line.partition(": ")
        keys.setdefault(key, []).append(value)
    known = {"responses", "app", "connection", "header", "then", "settings", "differs"}
    assert {key.rpartition(".")[2] for key in keys} <= known, path
    assert ("differs" in keys) == any("." in key for key in keys), path

    def answer(name: str) -> Answer:
        def own(key: str) -> list[str]:
            return keys.get(f"{name}.{key}", keys.get(key, []))

        responses = own("responses")[0]
        return Answer(
            responses=[] if responses == "none" else [int(status) for status in responses.split()],
            app=[
                _REPEAT.sub(lambda match: int(match[1]) * match[2], call)
                for call in own("app")
                if call != "-"
            ],
            closed={"open": False, "closed": True}[own("connection")[0]],
        )

    settings = (setting.split("=") for setting in keys.get("settings", [""])[0].split())
    return Case(
        data=unescape(data.replace("\n", "")),
        answers={name: answer(name) for name in IMPLEMENTATIONS},
        headers=keys.get("header"),
        eof=keys.get("then") == ["eof"],
        settings={name: int(value) for name, value in settings},
        reset=keys.get("then") == ["reset"],
    )


class Application:
    """Reads each request to its end, except those to /unread, and answers 200."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        number = len(self.calls)
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        request = f"{scope['method']} {(scope['raw_path'] + query).decode('ascii')}"
        self.calls.append(request + " waits")
        if scope["path"] == "/unread":
            self.calls[number] = request + " unread"
        else:
            body = b""
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.calls[number] = request + " cut"
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
            text = body.decode("latin1").encode("unicode_escape").decode("ascii")
            self.calls[number] = f'{request} "{text}"'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def turn(protocol: Any) -> None:
    """Let the application run until it waits for the client."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def play(protocol_class: Any, case: Case, run: str) -> tuple[Answer, Application, bytes]:
    """Send the bytes of a case; what came of it."""
    app = Application()
    transport = StrictTransport()
    protocol = connect(
        protocol_class, app, loop=asyncio.get_running_loop(), now=1.0, transport=transport, **case.settings
    )
    data = FIRST + case.data if run == "pipelined" else case.data
    size = 1 if len(data) <= LONG else PIECE
    if run in ("whole", "pipelined"):
        size = max(1, len(data))
    for at in range(0, len(data), size):
        if not transport.reading:
            await turn(protocol)
        if transport.closed or not transport.reading:
            break
        protocol.data_received(data[at : at + size])
        if run == "answered in between":
            await turn(protocol)
    if run == "answered in between":
        await turn(protocol)
    if case.eof and not transport.closed and not protocol.eof_received():
        transport.close()
    # As long as one response follows the other: they may be written together, so the calls count as well.
    before: object = None
    while (seen := (len(transport.buffer), [*app.calls])) != before:
        before = seen
        await turn(protocol)
    closed = transport.closed or case.reset
    protocol.connection_lost(ConnectionResetError() if case.reset else None)
    await turn(protocol)
    assert not protocol.server_state.tasks
    responses = [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", transport.buffer)]
    return Answer(responses, app.calls, closed), app, transport.buffer


def fields_of(scope: Any) -> list[str]:
    """The header fields as the corpus writes them."""
    fields = (b"%b: %b" % field for field in scope["headers"])
    return [field.decode("latin1").encode("unicode_escape").decode("ascii") for field in fields]

"""All cases, and playing some of them against a server of one implementation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.autobahn import closing, framing, sizes, utf8
from tests.autobahn.case import Case
from tests.autobahn.client import play
from tests.autobahn.verdict import Verdict, judge
from tests.e2e.harness import Service

IMPLEMENTATIONS = ("websockets-sansio", "websockets", "wsproto", "auto")

ECHO = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
"""


class Result(NamedTuple):
    """How one case went."""

    case: Case
    verdict: Verdict
    why: str


def all_cases() -> list[Case]:
    return [*framing.cases(), *utf8.cases(), *closing.cases(), *sizes.cases()]


@contextlib.contextmanager
def echo_server(directory: Path, ws: str, *arguments: str) -> Iterator[Service]:
    """A server with an application that sends back what it gets."""
    (directory / "app.py").write_text(ECHO)
    with Service(directory, "--port", "0", "--ws", ws, "--no-access-log", *arguments) as service:
        service.wait_log("Application startup complete")
        yield service


def run(
    cases: Sequence[Case],
    port: int,
    messages: int,
    at_once: int = 1,
    tell: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Play them, so many at a time, and judge them.

    Args:
        cases: They.
        port: Where the server is.
        messages: How many messages a case of many has.
        at_once: How many are played at the same time.
        tell: Is told of each when it is over.
    """

    async def main() -> list[Result]:
        turn = asyncio.Semaphore(at_once)

        async def one(case: Case) -> Result:
            async with turn:
                result = Result(case, *judge(case, await play(case, port, messages)))
            if tell is not None:
                tell(result)
            return result

        return await asyncio.gather(*map(one, cases))

    return asyncio.run(main())

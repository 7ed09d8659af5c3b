"""The two implementations on requests that are almost right (mutations.py): they must not disagree.

A proxy that sees one request where the server sees another is all that request smuggling needs, and two parsers that
disagree about where a request ends are a proxy and a server. So each of ours is held to the other, and to itself with
the bytes cut differently. Where both refuse, the status may differ: which of two mistakes is met first is no question
of safety.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import re
from collections.abc import Iterator
from typing import Any

import httptools
import pytest

from tests.protocols.http.cases import CORPUS, Answer, Application, Case, fields_of, load, play
from tests.protocols.http.harness import IMPLEMENTATIONS
from tests.protocols.http.mutations import requests

# Each takes 1.5 ms for each implementation and way of cutting.
HOW_MANY = 500
SEEDS = (1, 2, 3, 4)
# Bytes that end whatever head has begun: h11 looks at a head only when it is complete, llhttp as it comes.
HEAD_END = b"\r\n\r\n"
# llhttp takes several blanks between the words of a request line, which RFC 9112 3 allows; h11 does not.
MORE_BLANKS = re.compile(rb"^[^\r\n]*  [^\r\n]*HTTP/|^[^\r\n]*HTTP/[^\r\n]* ", re.MULTILINE)
REFUSALS = frozenset((400, 408, 413, 414, 417, 431, 501, 505))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Verdict:
    """What became of some bytes: the requests that the application was given whole, and how it ended.

    Attributes:
        served: Each of the calls that got its whole body, with the header fields.
        refused: Whether the connection ended in a refusal, or in a response that says so.
        closed: Whether it is closed.
    """

    def __init__(self, answer: Answer, app: Application) -> None:
        calls = zip(answer.app, app.scopes, strict=True)
        self.served = [
            (call, fields_of(scope), scope["path"], scope["http_version"])
            for call, scope in calls
            if not call.endswith((" cut", " waits"))
        ]
        statuses = [status for status in answer.responses if status != 100]
        assert set(statuses) <= REFUSALS | {200}, statuses
        assert statuses.count(200) <= len(answer.app), "more answers than requests"
        self.refused = bool(statuses) and statuses[-1] != 200
        self.closed = answer.closed
        self.methods = [call.partition(" ")[0] for call in answer.app]

    @property
    def whole(self) -> tuple[list[Any], bool | None]:
        """What must not depend on how the bytes are cut.

        What answers without reading may do so before its body breaks off, or before the body that it expects is
        there; in one packet it is not called then, or has no reason to close.
        """
        read = [call for call in self.served if not call[0].endswith(" unread")]
        return read, self.closed if len(read) == len(self.served) else None


async def verdict(implementation: str, data: bytes, run: str) -> Verdict:
    answer, app, _ = await play(IMPLEMENTATIONS[implementation], Case(data, {}, None, False, {}), run)
    return Verdict(answer, app)


@functools.cache
def _llhttp_knows(method: str) -> bool:
    """llhttp has a list of methods, h11 takes every token."""
    try:
        httptools.HttpRequestParser(object()).feed_data(f"{method} / HTTP/1.1\r\n".encode("ascii"))
    except httptools.HttpParserError:
        return False
    # PRI is the preface of HTTP/2, and SOURCE belongs to ICE: llhttp knows both and takes neither with HTTP/1.1.
    return method not in ("PRI", "SOURCE")


async def disagreement(data: bytes) -> str | None:
    """In what the implementations disagree about some bytes; None where they do not."""
    if not MORE_BLANKS.search(data):
        for run in ("whole", "answered in between"):
            if found := await between_implementations(data, run):
                return f"{run}: {found}"
    for implementation in IMPLEMENTATIONS:
        if found := await between_cuts(data, implementation):
            return f"{implementation}: {found}"
    return None


async def between_implementations(data: bytes, run: str) -> str | None:
    ours = await verdict("httptools", data, run)
    theirs = await verdict("h11", data, run)
    same = [a for a, b in zip(ours.served, theirs.served, strict=False) if a == b]
    if len(same) == len(ours.served) == len(theirs.served) and ours.closed == theirs.closed:
        return None
    if len(same) < len(ours.served):
        return f"httptools serves what h11 does not: {ours.served} {theirs.served}"
    # From here on h11 goes further, or waits where httptools has refused. It may with a method of its own.
    if any(not _llhttp_knows(method) for method in theirs.methods[len(same) :]):
        return None
    if len(theirs.served) > len(same):
        return f"h11 serves what httptools does not: {ours.served} {theirs.served}"
    again = await verdict("h11", data + HEAD_END, run)
    if any(not _llhttp_knows(method) for method in again.methods[len(same) :]):
        return None
    if len(again.served) > len(same) or not again.closed:
        return f"httptools closes, h11 goes on behind the end of the head: {again.served}"
    return None


async def between_cuts(data: bytes, implementation: str) -> str | None:
    whole = (await verdict(implementation, data, "whole")).whole
    split = (await verdict(implementation, data, "answered in between")).whole
    if whole != split and None not in (whole[1], split[1]):
        return f"{whole} in one packet, {split} in many"
    return None


def samples() -> list[bytes]:
    """The corpus, without the large cases, which say nothing about grammar."""
    cases: Any = (load(path) for path in sorted(CORPUS.glob("*/*.http")))
    return [case.data for case in cases if len(case.data) < 2000]


@pytest.mark.parametrize("seed", SEEDS)
def test_implementations_do_not_disagree(seed: int) -> None:
    async def main() -> None:
        for data in itertools.islice(requests(seed, samples()), HOW_MANY):
            found = await disagreement(data)
            assert found is None, f"seed {seed}: {data!r}: {found}"

    asyncio.run(main())

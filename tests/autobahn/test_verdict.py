"""The verdicts, and that a server which is wrong gets a bad one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.autobahn.case import Case, Event, Frame, Message, echoed, failing
from tests.autobahn.client import Seen, play
from tests.autobahn.suite import all_cases
from tests.autobahn.verdict import Verdict, judge
from tests.protocols.websockets.frames import BINARY, CLOSE, PONG, TEXT, close_frame, frame

HELLO = Event(TEXT, b"hello")
ECHO = echoed("1.1.1", Message(TEXT, b"hello"))
MISTAKE = failing("3.1", Frame(TEXT, b"hello"), Frame(3), events=(HELLO,))
SLOW = failing("6.4.1", Frame(TEXT, b"a"), Frame(TEXT, b"b"), quick=1)
UNDEFINED = Case("7.13.1", (), closes=True, informational=True)

VERDICTS = [
    (ECHO, Seen([HELLO], 1000, True), Verdict.OK),
    (ECHO, Seen([HELLO], 1000, False), Verdict.FAILED),  # left open
    (ECHO, Seen([HELLO], None, True), Verdict.FAILED),  # cut
    (ECHO, Seen([HELLO], 1001, True), Verdict.FAILED),
    (ECHO, Seen([], 1000, True), Verdict.FAILED),
    (ECHO, Seen([HELLO, HELLO], 1000, True), Verdict.FAILED),
    (ECHO, Seen([Event(BINARY, b"hello")], 1000, True), Verdict.FAILED),
    (ECHO, Seen([HELLO], 1000, True, mistake="masked"), Verdict.FAILED),
    (MISTAKE, Seen([HELLO], 1002, True), Verdict.OK),
    (MISTAKE, Seen([], 1002, True), Verdict.NON_STRICT),
    (MISTAKE, Seen([HELLO], None, True), Verdict.NON_STRICT),
    (MISTAKE, Seen([HELLO], 1000, True), Verdict.FAILED),
    (MISTAKE._replace(tolerated=(1000,)), Seen([HELLO], 1000, True), Verdict.NON_STRICT),
    (MISTAKE, Seen([Event(PONG, b"")], 1002, True), Verdict.FAILED),
    (SLOW, Seen([], 1002, True, steps=1), Verdict.OK),
    (SLOW, Seen([], 1002, True, steps=2), Verdict.NON_STRICT),
    (UNDEFINED, Seen([], 1002, True), Verdict.INFORMATIONAL),
    (UNDEFINED, Seen([], 1002, False), Verdict.FAILED),
]  # fmt: skip


@pytest.mark.parametrize(("case", "seen", "verdict"), VERDICTS)
def test_verdicts(case: Case, seen: Seen, verdict: Verdict) -> None:
    found, why = judge(case, seen)
    assert found is verdict
    assert bool(why) == (verdict is not Verdict.OK)


def test_every_case_has_a_number_of_its_own_and_an_end() -> None:
    cases = all_cases()
    assert len({case.number for case in cases}) == len(cases)
    # The original has 517: without the additions it is these.
    additions = ("6.24.", "6.25.", "7.14.", "7.15.", "13.8.")
    assert sum(not case.number.startswith(additions) for case in cases) == 517
    assert not [case.number for case in cases if case.fails and case.codes == (1000,)]


HEAD = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Extensions: %b\r\n\r\n"
GOOD = frame(TEXT, b"hello", mask=None), frame(CLOSE, (1000).to_bytes(2, "big"), mask=None)
# What servers answer to a message, and to the close frame behind it; and the verdict.
ANSWERS: list[tuple[bytes, bytes, str]] = [
    (*GOOD, ""),
    (frame(TEXT, b"hello"), GOOD[1], "a frame of the server is masked"),
    (frame(TEXT, b"hellO", mask=None), GOOD[1], "expected"),
    (frame(TEXT, b"hello", rsv=2, mask=None), GOOD[1], "reserved bits 2"),
    (frame(TEXT, b"hello", rsv=4, mask=None), GOOD[1], "reserved bits 4"),
    (frame(0, b"hello", mask=None), GOOD[1], "a frame of opcode 0 here"),
    (frame(TEXT, b"hel", final=False, mask=None) + GOOD[0], GOOD[1], "a frame of opcode 1 here"),
    (frame(9, b"x" * 126, mask=None), GOOD[1], "a control frame that is none"),
    (GOOD[0], frame(CLOSE, b"\x03", mask=None), "half a code"),
    (GOOD[0], GOOD[1] + GOOD[0], "behind the close frame"),
    (GOOD[0], b"", "no close frame"),
    (GOOD[0], frame(CLOSE, (1002).to_bytes(2, "big"), mask=None), "closed with 1002"),
]


@pytest.mark.parametrize(("message", "close", "why"), ANSWERS)
def test_server_that_answers_wrong_has_failed(message: bytes, close: bytes, why: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD.replace(b"Sec-WebSocket-Extensions: %b\r\n", b""))
        await reader.readexactly(11)
        writer.write(message)
        answer = await reader.read(100)
        if answer[:1] == close_frame()[:1]:
            writer.write(close)
        writer.close()

    verdict, found = asyncio.run(_judged(serve, ECHO))
    assert why in found
    assert verdict is (Verdict.FAILED if why else Verdict.OK)


def test_server_that_compresses_another_way_than_agreed_has_failed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD % b"permessage-deflate")
        await reader.read(100)
        writer.write(frame(TEXT, b"hello", rsv=4, mask=None))
        writer.close()

    verdict, found = asyncio.run(_judged(serve, ECHO._replace(offer="permessage-deflate")))
    assert verdict is Verdict.FAILED
    assert "does not inflate" in found


async def _judged(serve: Any, case: Case) -> tuple[Verdict, str]:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port: int = server.sockets[0].getsockname()[1]
        return judge(case, await play(case, port, messages=1))

"""The ASGI rules of a WebSocket: every message in every state, and what the application receives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.protocols.websockets.frames import BINARY, CLOSE, TEXT, Sent, close_frame, closed, frame
from tests.protocols.websockets.peer import HEAD, Peer, settle
from uvicorn.protocols._fields import InvalidResponse
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets._session import CLOSED, DENYING, HANDSHAKE, OPEN

EXPECTED = {
    HANDSHAKE: (
        "Expected ASGI message 'websocket.accept', 'websocket.close' or 'websocket.http.response.start' "
        "but got '{}'."
    ),
    DENYING: "Expected ASGI message 'websocket.http.response.body' but got '{}'.",
    OPEN: "Expected ASGI message 'websocket.send' or 'websocket.close', but got '{}'.",
    CLOSED: "Unexpected ASGI message '{}', after sending 'websocket.close' or response already completed.",
}
MESSAGES: dict[str, dict[str, Any]] = {
    "websocket.accept": {},
    "websocket.send": {"text": "a"},
    "websocket.close": {},
    "websocket.http.response.start": {"status": 401, "headers": []},
    "websocket.http.response.body": {"body": b""},
    "http.response.start": {"status": 200, "headers": []},
    "http.response.body": {"body": b""},
    "websocket.receive": {"text": "a"},
    "nonsense": {},
}
NEXT = {
    (HANDSHAKE, "websocket.accept"): OPEN,
    (HANDSHAKE, "websocket.close"): CLOSED,
    (HANDSHAKE, "websocket.http.response.start"): DENYING,
    (DENYING, "websocket.http.response.body"): CLOSED,
    (OPEN, "websocket.send"): OPEN,
    (OPEN, "websocket.close"): CLOSED,
}


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def in_state(state: int) -> Peer:
    peer = Peer()
    if state == DENYING:
        await peer.send("http.response.start", status=401, headers=[])
    elif state in (OPEN, CLOSED):
        await peer.accept()
    if state == CLOSED:
        await peer.send("close")
    assert peer.connection.session.state == state
    return peer


def messages(records: list[logging.LogRecord]) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in records]


# --- the table --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("state", [HANDSHAKE, DENYING, OPEN, CLOSED])
def test_every_message_in_every_state(state: int, kind: str) -> None:
    async def test() -> None:
        peer = await in_state(state)
        await settle()
        message = {"type": kind, **MESSAGES[kind]}
        if (state, kind) in NEXT:
            await peer.app.send(message)
            assert peer.connection.session.state == NEXT[state, kind]
        else:
            before = peer.transport.take()
            with pytest.raises(RuntimeError) as caught:
                await peer.app.send(message)
            assert type(caught.value) is RuntimeError
            assert str(caught.value) == EXPECTED[state].format(kind)
            assert peer.connection.session.state == state
            assert before == b"" or state == CLOSED
            assert peer.transport.take() == b""

    run(test)


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("state", [HANDSHAKE, DENYING, OPEN])
def test_every_message_after_the_client_has_gone_is_an_oserror(state: int, kind: str) -> None:
    async def test() -> None:
        peer = await in_state(state)
        await settle()
        peer.connection.connection_lost(None)
        peer.transport.take()
        with pytest.raises(ClientDisconnected) as caught:
            await peer.app.send({"type": kind, **MESSAGES[kind]})
        assert isinstance(caught.value, OSError)
        assert peer.transport.take() == b""

    run(test)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"path": None}, '127.0.0.1:4321 - "WebSocket /" [accepted]'),
        ({"path": b"/"}, '127.0.0.1:4321 - "WebSocket /" [accepted]'),
        ({"client": 5}, ' - "WebSocket /" [accepted]'),
        ({"client": ("a\x9bb", 0)}, 'a\\x9bb:0 - "WebSocket /" [accepted]'),
        ({"query_string": "a"}, '127.0.0.1:4321 - "WebSocket /?a" [accepted]'),
    ],
)
def test_scope_that_the_application_has_changed_does_not_fail_the_handshake(
    changes: dict[str, Any], line: str, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        peer = Peer()
        await settle()
        peer.connection.scope.update(changes)
        await peer.accept()
        assert peer.connection.session.state == OPEN

    run(test)
    assert messages(error_log) == [f"INFO {line}"]


# --- what the application receives --------------------------------------------------------------


def test_first_event_is_connect() -> None:
    async def test() -> None:
        assert await Peer().receive() == {"type": "websocket.connect"}

    run(test)


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        (frame(TEXT, "é".encode()), {"type": "websocket.receive", "text": "é"}),
        (frame(TEXT), {"type": "websocket.receive", "text": ""}),
        (frame(BINARY, b"\xff"), {"type": "websocket.receive", "bytes": b"\xff"}),
        (frame(BINARY), {"type": "websocket.receive", "bytes": b""}),
    ],
)
def test_message_is_received_under_its_own_key(wire: bytes, event: dict[str, Any]) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        peer.feed(wire)
        assert await peer.receive() == event

    run(test)


def test_receive_waits_for_what_comes() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        waiting = asyncio.create_task(peer.receive())
        await settle()
        assert not waiting.done()
        peer.feed(frame(TEXT, b"a"))
        assert (await waiting)["text"] == "a"

    run(test)


def test_receive_that_is_cancelled_loses_nothing_and_leaves_nothing() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        for _ in range(3):
            waiting = asyncio.create_task(peer.receive())
            await settle()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert peer.connection.session.waiter is None
        peer.feed(frame(TEXT, b"a"))
        assert (await peer.receive())["text"] == "a"

    run(test)


async def waiting_for(peer: Peer, count: int) -> list[asyncio.Task[Any]]:
    """So many parts of the application, each waiting for an event."""
    tasks = [asyncio.create_task(peer.app.receive()) for _ in range(count)]
    await settle()
    return tasks


def test_message_that_comes_to_a_receive_about_to_be_cancelled_is_still_the_next() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        (waiting,) = await waiting_for(peer, 1)
        peer.feed(frame(TEXT, b"a"))
        peer.feed(frame(BINARY, b"bcd"))
        waiting.cancel()
        await settle()
        assert waiting.cancelled()
        session = peer.connection.session
        assert (session.queued, session.queued_bytes) == (2, 4)
        assert (await peer.receive())["text"] == "a"
        assert (await peer.receive())["bytes"] == b"bcd"
        assert (session.queued, session.queued_bytes) == (0, 0)

    run(test)


def test_message_that_comes_behind_the_cancellation_of_a_receive_is_the_next() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        (waiting,) = await waiting_for(peer, 1)
        waiting.cancel()
        peer.feed(frame(TEXT, b"a"))
        peer.feed(frame(TEXT, b"b"))
        await settle()
        assert waiting.cancelled()
        assert [(await peer.receive())["text"] for _ in range(2)] == ["a", "b"]

    run(test)


def test_receive_that_is_thrown_away_loses_nothing() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        thrown_away = peer.app.receive()
        thrown_away.send(None)
        peer.feed(frame(TEXT, b"a"))
        thrown_away.close()
        assert (await peer.receive())["text"] == "a"

    run(test)


def test_several_that_wait_take_turns() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        tasks = await waiting_for(peer, 3)
        peer.feed(frame(TEXT, b"a") + frame(TEXT, b"b"))
        await settle()
        assert [task.done() for task in tasks] == [True, True, False]
        peer.feed(frame(TEXT, b"c"))
        assert [(await task)["text"] for task in tasks] == ["a", "b", "c"]

    run(test)


@pytest.mark.parametrize("fed", [True, False])
def test_turn_of_a_receive_that_is_cancelled_goes_to_the_next(fed: bool) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        first, second, third = await waiting_for(peer, 3)
        if fed:
            peer.feed(frame(TEXT, b"a"))
        first.cancel()
        second.cancel()
        await settle()
        assert first.cancelled()
        assert second.cancelled()
        if not fed:
            peer.feed(frame(TEXT, b"a"))
        assert (await third)["text"] == "a"
        assert peer.connection.session.waiter is None
        assert peer.connection.session.queued == 0

    run(test)


def test_end_that_a_cancelled_receive_has_got_is_received_all_the_same() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        (waiting,) = await waiting_for(peer, 1)
        peer.feed(close_frame(1001))
        waiting.cancel()
        await settle()
        assert waiting.cancelled()
        assert (await peer.receive())["code"] == 1001

    run(test)


def test_two_that_wait_are_both_woken_by_the_end() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        waiting = [asyncio.create_task(peer.receive()) for _ in range(2)]
        await settle()
        peer.feed(close_frame(1001, b"off"))
        end = {"type": "websocket.disconnect", "code": 1001, "reason": "off"}
        assert await asyncio.gather(*waiting) == [end, end]

    run(test)


@pytest.mark.parametrize(
    ("wire", "code", "reason"),
    [
        (close_frame(1001, b"custom reason"), 1001, "custom reason"),
        (close_frame(1000), 1000, ""),
        (close_frame(), 1005, ""),
        (close_frame(4321), 4321, ""),
        (frame(TEXT, b"\xff"), 1007, None),
        (frame(0x3), 1002, None),
    ],
)
def test_end_by_the_client_is_received_after_its_messages(wire: bytes, code: int, reason: str | None) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        peer.feed(frame(TEXT, b"a") + frame(BINARY, b"b") + wire)
        peer.connection.connection_lost(None)
        assert (await peer.receive())["text"] == "a"
        assert (await peer.receive())["bytes"] == b"b"
        for _ in range(2):  # however often it asks
            end = await peer.receive()
            assert end["type"] == "websocket.disconnect"
            assert end["code"] == code
            assert end["reason"] == reason or reason is None

    run(test)


def test_each_disconnect_is_a_dict_of_its_own() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        peer.feed(close_frame(1000))
        (await peer.receive()).clear()
        assert (await peer.receive())["code"] == 1000

    run(test)


@pytest.mark.parametrize("state", [HANDSHAKE, DENYING])
def test_loss_of_the_connection_before_accept_is_1006_without_a_reason(state: int) -> None:
    async def test() -> None:
        peer = await in_state(state)
        assert (await peer.receive())["type"] == "websocket.connect"
        peer.connection.connection_lost(ConnectionResetError())
        assert await peer.receive() == {"type": "websocket.disconnect", "code": 1006}

    run(test)


def test_loss_of_the_connection_after_accept_is_1006_with_an_empty_reason() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        waiting = asyncio.create_task(peer.receive())
        await settle()
        peer.connection.connection_lost(None)
        assert await waiting == {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    run(test)


# --- accepting and refusing -----------------------------------------------------------------------


def test_accept_takes_subprotocol_and_headers() -> None:
    async def test() -> None:
        peer = Peer(headers=[(b"sec-websocket-protocol", b"a, b")])
        await peer.send("accept", subprotocol="b", headers=[[b"x", b"1"]])
        assert peer.transport.take() == HEAD + b"Sec-WebSocket-Protocol: b\r\nx: 1\r\n\r\n"

    run(test)


def test_accept_may_leave_everything_out() -> None:
    async def test() -> None:
        for message in ({}, {"subprotocol": None, "headers": None}):
            peer = Peer()
            await peer.send("accept", **message)
            assert peer.transport.take() == HEAD + b"\r\n"

    run(test)


def test_accept_that_cannot_be_written_is_an_error_and_ends_as_500(
    error_log: list[logging.LogRecord],
) -> None:
    async def test() -> None:
        peer = Peer()
        with pytest.raises(InvalidResponse) as caught:
            await peer.send("accept", headers=[(b"x", b"1\r\ny: 2")])
        assert peer.transport.take() == b""
        await peer.end(caught.value)
        assert peer.transport.take() == REFUSED_500
        assert peer.transport.closed

    run(test)
    assert messages(error_log) == ["ERROR Exception in ASGI application\n"]


REFUSED_500 = (
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 21\r\nconnection: close\r\n\r\nInternal Server Error"
)
REFUSED_403 = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def test_close_before_accept_is_403(error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        peer = Peer(path=b"/x%20y", query=b"a=%20")
        await peer.receive()
        await peer.send("close", code=4000, reason="no")
        assert peer.transport.take() == REFUSED_403
        assert peer.transport.closed
        assert await peer.receive() == {"type": "websocket.disconnect", "code": 1006}

    run(test)
    assert messages(error_log) == ['INFO 127.0.0.1:4321 - "WebSocket /x%20y?a=%20" 403']


def test_own_response_is_written_with_its_length(error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.receive()
        await peer.send("http.response.start", status=404, headers=[("X-A", b"1")])
        assert peer.transport.take() == b""
        await peer.send("http.response.body", body=b"nowhere")
        assert peer.transport.take() == (
            b"HTTP/1.1 404 Not Found\r\nx-a: 1\r\ncontent-length: 7\r\nconnection: close\r\n\r\nnowhere"
        )
        assert peer.transport.closed
        assert await peer.receive() == {"type": "websocket.disconnect", "code": 1006}

    run(test)
    assert messages(error_log) == ['INFO 127.0.0.1:4321 - "WebSocket /" 404']


def test_own_response_in_parts_is_chunked() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.send("http.response.start", status=400)
        await peer.send("http.response.body", body=b"ab", more_body=True)
        await peer.send("http.response.body", body=b"", more_body=True)
        await peer.send("http.response.body", body=b"c", more_body=True)
        assert not peer.transport.closed
        await peer.send("http.response.body")
        assert peer.transport.take() == (
            b"HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        )
        assert peer.transport.closed

    run(test)


def test_own_response_keeps_the_applications_length() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.send("http.response.start", status=400, headers=[(b"content-length", b"3")])
        await peer.send("http.response.body", body=b"ab", more_body=True)
        await peer.send("http.response.body", body=b"c")
        assert peer.transport.take() == (
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
        )

    run(test)


@pytest.mark.parametrize(
    ("pieces", "written", "error"),
    [
        ([b"abcd"], b"", "longer"),
        ([b"ab", b"cd"], b"ab", "longer"),
        ([b"ab"], b"ab", "shorter"),
        ([b""], b"", "shorter"),
    ],
)
def test_own_response_of_another_length_than_it_says_is_an_error(
    pieces: list[bytes], written: bytes, error: str
) -> None:
    """RFC 9110 8.6: never more on the wire than Content-Length says, and a cut where there is less."""

    async def test() -> None:
        peer = Peer()
        await peer.send("http.response.start", status=400, headers=[(b"content-length", b"3")])
        for piece in pieces[:-1]:
            await peer.send("http.response.body", body=piece, more_body=True)
        with pytest.raises(RuntimeError, match=f"^Response content {error} than Content-Length$"):
            await peer.send("http.response.body", body=pieces[-1])
        await peer.end(RuntimeError("no"))
        assert peer.transport.take().endswith(b"\r\ncontent-length: 3\r\nconnection: close\r\n\r\n" + written)
        assert peer.transport.closed

    run(test)


def test_own_response_with_a_length_and_without_a_body_is_cut() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.send("http.response.start", status=400, headers=[(b"content-length", b"3")])
        await peer.end()
        assert peer.transport.take().endswith(b"\r\ncontent-length: 3\r\nconnection: close\r\n\r\n")
        assert peer.transport.closed

    run(test)


@pytest.mark.parametrize(("status", "phrase"), [(204, b"No Content"), (304, b"Not Modified")])
def test_own_response_without_a_body_has_none(status: int, phrase: bytes) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.send("http.response.start", status=status)
        await peer.send("http.response.body", body=b"ignored")
        assert peer.transport.take() == (b"HTTP/1.1 %d %b\r\nconnection: close\r\n\r\n" % (status, phrase))

    run(test)


@pytest.mark.parametrize(
    "start",
    [
        {"status": 100},
        {"status": 101},
        {"status": 199},
        {"status": 600},
        {"status": 1000},
        {"status": "403"},
        {"status": None},
        {"status": 403, "headers": [(b"x", b"1\r\ny: 2")]},
        {"status": 403, "headers": [(b"x y", b"1")]},
        {"status": 403, "headers": [(b"content-length", b"-1")]},
        {"status": 403, "headers": [(b"transfer-encoding", b"gzip")]},
        {"status": 403, "headers": [("x", "\xe9")]},
        {},
    ],
    ids=str,
)
def test_own_response_that_cannot_be_written_is_an_error_and_ends_as_500(
    start: dict[str, Any], error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        peer = Peer()
        with pytest.raises((InvalidResponse, TypeError, KeyError)) as caught:
            await peer.send("http.response.start", **start)
        await peer.end(caught.value)
        assert peer.transport.take() == REFUSED_500
        assert peer.transport.closed

    run(test)
    assert messages(error_log) == ["ERROR Exception in ASGI application\n"]


@pytest.mark.parametrize("result", [None, ValueError("no")], ids=repr)
def test_own_response_without_a_body_message_still_goes_out(result: object) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.send("http.response.start", status=418)
        await peer.end(result)
        head, _, body = peer.transport.take().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 418 ")
        assert b"content-length: 0" in head
        assert body == b""
        assert peer.transport.closed

    run(test)


def test_own_response_that_breaks_off_is_cut() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.send("http.response.start", status=400)
        await peer.send("http.response.body", body=b"ab", more_body=True)
        await peer.end(ValueError("no"))
        assert peer.transport.take().endswith(b"\r\n\r\n2\r\nab\r\n")
        assert peer.transport.closed

    run(test)


# --- sending --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ({"text": "é"}, Sent(TEXT, "é".encode())),
        ({"text": ""}, Sent(TEXT, b"")),
        ({"text": "a", "bytes": None}, Sent(TEXT, b"a")),
        ({"bytes": b"\xff"}, Sent(BINARY, b"\xff")),
        ({"bytes": b""}, Sent(BINARY, b"")),
        ({"bytes": b"a", "text": None}, Sent(BINARY, b"a")),
        ({"bytes": bytearray(b"a")}, Sent(BINARY, b"a")),
        ({"bytes": memoryview(b"a")}, Sent(BINARY, b"a")),
    ],
)
def test_message_is_sent(message: dict[str, Any], sent: Sent) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        await peer.send("send", **message)
        assert peer.frames() == [sent]

    run(test)


@pytest.mark.parametrize("message", [{}, {"text": None}, {"text": 5}, {"bytes": 5}, {"bytes": [1]}], ids=str)
def test_message_with_nothing_to_send_is_an_error(message: dict[str, Any]) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        with pytest.raises((TypeError, KeyError)):
            await peer.send("send", **message)
        assert peer.frames() == []
        await peer.send("send", text="still open")
        assert peer.frames() == [Sent(TEXT, b"still open")]

    run(test)


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "sent", "code", "reason"),
    [
        ({}, closed(1000), 1000, ""),
        ({"code": None, "reason": None}, closed(1000), 1000, ""),
        ({"code": 1001, "reason": "é"}, closed(1001, "é"), 1001, "é"),
        ({"code": 3000}, closed(3000), 3000, ""),
        ({"code": 4999}, closed(4999), 4999, ""),
        ({"code": 1014}, closed(1014), 1014, ""),
        ({"code": 1005}, Sent(CLOSE, b""), 1005, ""),
        ({"reason": "x" * 200}, closed(1000, "x" * 123), 1000, "x" * 123),
        ({"reason": "€" * 50}, closed(1000, "€" * 41), 1000, "€" * 41),
    ],
)
def test_close_sends_a_close_frame_and_is_received_back(
    message: dict[str, Any], sent: Sent, code: int, reason: str
) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        await peer.send("close", **message)
        assert peer.frames() == [sent]
        assert not peer.transport.closed
        assert await peer.receive() == {"type": "websocket.disconnect", "code": code, "reason": reason}
        peer.feed(close_frame(code if code != 1005 else None))
        assert peer.transport.closed

    run(test)


def test_close_with_1006_cuts_the_connection() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        await peer.send("close", code=1006)
        assert peer.frames() == []
        assert peer.transport.closed

    run(test)


@pytest.mark.parametrize("code", [0, 999, 1004, 1015, 1016, 2999, 5000])
def test_close_with_a_code_that_must_not_be_sent_is_an_error(code: int) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        with pytest.raises(RuntimeError) as caught:
            await peer.send("close", code=code)
        assert str(caught.value) == f"Invalid WebSocket close code: {code}."
        assert peer.frames() == []
        assert peer.connection.session.state == OPEN

    run(test)


def test_messages_that_come_after_the_own_close_are_dropped() -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        peer.feed(frame(TEXT, b"before"))
        await peer.send("close", code=4000)
        peer.feed(frame(TEXT, b"after") + close_frame(4000))
        assert (await peer.receive())["text"] == "before"
        assert (await peer.receive())["code"] == 4000

    run(test)


# --- how the application ends ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (None, "ERROR ASGI callable returned without completing handshake."),
        (5, "ERROR ASGI callable should return None, but returned '5'."),
        (ValueError("no"), "ERROR Exception in ASGI application\n"),
        (SystemExit(1), "ERROR Exception in ASGI application\n"),
    ],
    ids=repr,
)
def test_end_before_the_handshake_is_500(
    result: object, line: str, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.end(result)
        assert peer.transport.take() == REFUSED_500
        assert peer.transport.closed
        assert peer.state.tasks == set()

    run(test)
    assert messages(error_log) == [line]
    assert bool(error_log[0].exc_info) == isinstance(result, BaseException)


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        (None, []),
        (5, ["ERROR ASGI callable should return None, but returned '5'."]),
        (ValueError("no"), ["ERROR Exception in ASGI application\n"]),
    ],
    ids=repr,
)
def test_end_while_open_cuts_the_connection(
    result: object, lines: list[str], error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        await peer.end(result)
        assert peer.transport.take() == b""
        assert peer.transport.closed

    run(test)
    assert messages(error_log) == ['INFO 127.0.0.1:4321 - "WebSocket /" [accepted]', *lines]


def test_end_after_the_own_close_waits_for_the_clients(error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        await peer.send("close")
        await peer.end()
        assert peer.frames() == [closed(1000)]
        assert not peer.transport.closed
        assert peer.state.tasks == set()

    run(test)
    assert messages(error_log)[1:] == []


def test_error_after_the_own_close_is_told_and_leaves_the_close_to_the_client(
    error_log: list[logging.LogRecord],
) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        await peer.send("close")
        await peer.end(ValueError("no"))
        assert peer.frames() == [closed(1000)]
        assert not peer.transport.closed

    run(test)
    assert messages(error_log)[1:] == ["ERROR Exception in ASGI application\n"]


@pytest.mark.parametrize("exc", [ClientDisconnected(), asyncio.CancelledError()], ids=repr)
def test_end_by_a_client_that_has_gone_is_no_error(
    exc: BaseException, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        peer = Peer()
        await peer.accept()
        peer.connection.connection_lost(None)
        await peer.end(exc)
        assert peer.state.tasks == set()

    run(test)
    assert messages(error_log)[1:] == []


@pytest.mark.parametrize("state", [HANDSHAKE, DENYING, OPEN])
def test_task_that_is_cancelled_cuts_the_connection(state: int, error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        peer = await in_state(state)
        await settle()
        (task,) = peer.state.tasks
        task.cancel()
        await settle()
        assert task.cancelled()
        assert peer.transport.take() == b""
        assert peer.transport.closed
        assert peer.state.tasks == set()

    run(test)
    assert [record for record in error_log if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("state", [HANDSHAKE, DENYING, OPEN])
def test_cancellation_of_the_applications_own_making_is_an_error(
    state: int, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        peer = await in_state(state)
        peer.transport.take()
        await peer.end(asyncio.CancelledError())
        status = {HANDSHAKE: b"HTTP/1.1 500 ", DENYING: b"HTTP/1.1 401 ", OPEN: b""}[state]
        assert peer.transport.take().startswith(status)
        assert peer.transport.closed

    run(test)
    assert messages(error_log)[-1] == "ERROR Exception in ASGI application\n"


def test_last_task_tells_who_waits_for_it() -> None:
    async def test() -> None:
        told = []
        peer = Peer()
        await peer.accept()
        peer.state.on_emptied = lambda: told.append(set(peer.state.tasks))
        await peer.end()
        assert told == [set()]

    run(test)


class Done(asyncio.Future[None]):
    """As much of a task as event loops ask for."""

    def set_name(self, name: object) -> None:
        pass


def test_task_that_has_ended_when_it_is_made_is_not_kept() -> None:
    def eager(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        with pytest.raises(StopIteration):
            coroutine.send(None)
        done = Done(loop=loop)
        done.set_result(None)
        return done

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    async def test() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(eager)
        try:
            peer = Peer(app=app)
        finally:
            loop.set_task_factory(None)
        assert peer.transport.take() == REFUSED_403
        assert peer.state.tasks == set()

    run(test)

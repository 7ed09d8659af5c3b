"""One request and its response as the application sees them: receive(), send(), and what mistakes get."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.fakes.transport import FakeTransport
from tests.protocols.http.conftest import Log
from tests.protocols.http.harness import (
    GET,
    IMPLEMENTATIONS,
    Answer,
    Script,
    TaskLoop,
    connect,
    read_responses,
    request,
    settle,
)
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, service_unavailable

POST_5 = request("POST / HTTP/1.1", "Content-Length: 5")
DISCONNECT = {"type": "http.disconnect"}


def answered(protocol_class: Any, app: Any, data: bytes = GET, **settings: Any) -> FakeTransport:
    """The transport after the application has run on these requests."""
    protocol = connect(protocol_class, app, **settings)
    protocol.data_received(data)
    asyncio.run(protocol.loop.run_all())
    transport: FakeTransport = protocol.transport
    return transport


def script(protocol_class: Any, *data: bytes, **settings: Any) -> tuple[Any, Script, FakeTransport]:
    """A protocol with a Script behind it that has been given these packets."""
    app = Script()
    protocol = connect(protocol_class, app, loop=TaskLoop(), **settings)
    for packet in data:
        protocol.data_received(packet)
    return protocol, app, protocol.transport


def play(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())  # type: ignore[arg-type]


# --- receive() --------------------------------------------------------------------------------


def test_request_without_body_has_one_empty_message(protocol_class: Any) -> None:
    async def main() -> None:
        _, app, _ = script(protocol_class, GET)
        await settle()
        assert await app.receive() == {"type": "http.request", "body": b"", "more_body": False}
        await app.answer()

    play(main)


def test_body_that_has_come_is_one_message(protocol_class: Any) -> None:
    async def main() -> None:
        _, app, _ = script(protocol_class, POST_5, b"he", b"llo")
        await settle()
        assert await app.receive() == {"type": "http.request", "body": b"hello", "more_body": False}
        await app.answer()

    play(main)


def test_body_comes_in_the_pieces_that_have_arrived(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, _ = script(protocol_class, POST_5, b"h")
        await settle()
        assert await app.receive() == {"type": "http.request", "body": b"h", "more_body": True}
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        assert not waiting.done()
        for piece in (b"e", b"l", b"l"):
            protocol.data_received(piece)
        assert await waiting == {"type": "http.request", "body": b"ell", "more_body": True}
        protocol.data_received(b"o")
        assert await app.receive() == {"type": "http.request", "body": b"o", "more_body": False}
        await app.answer()

    play(main)


def test_end_of_a_chunked_body_is_an_empty_message(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, _ = script(
            protocol_class, request("POST / HTTP/1.1", "Transfer-Encoding: chunked"), b"2\r\nhi\r\n"
        )
        await settle()
        assert await app.receive() == {"type": "http.request", "body": b"hi", "more_body": True}
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        protocol.data_received(b"0\r\n\r\n")
        assert await waiting == {"type": "http.request", "body": b"", "more_body": False}
        await app.answer()

    play(main)


def test_receive_behind_the_body_waits_for_the_end_of_the_response(protocol_class: Any) -> None:
    async def main() -> None:
        _, app, transport = script(protocol_class, GET)
        await settle()
        await app.receive()
        waiting = [asyncio.ensure_future(app.receive()) for _ in range(2)]
        await settle()
        assert not any(task.done() for task in waiting)
        await app.answer()
        assert [await task for task in waiting] == [DISCONNECT, DISCONNECT]
        assert await app.receive() == DISCONNECT
        assert not transport.closed

    play(main)


def test_receive_of_two_tasks_gives_each_piece_once(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, _ = script(protocol_class, POST_5)
        await settle()
        waiting = [asyncio.ensure_future(app.receive()) for _ in range(2)]
        await settle()
        protocol.data_received(b"hel")
        await settle()
        protocol.data_received(b"lo")
        await settle()
        assert sorted([task.result()["body"] for task in waiting]) == [b"hel", b"lo"]
        await app.answer()

    play(main)


def test_receive_that_is_given_up_leaves_nothing_behind(protocol_class: Any) -> None:
    # Frameworks ask in every round whether the client is still there, and cancel at once.
    async def main() -> None:
        protocol, app, _ = script(protocol_class, GET)
        await settle()
        await app.receive()
        other = asyncio.ensure_future(app.receive())
        await settle()
        for _ in range(100):
            task = asyncio.ensure_future(app.receive())
            await settle(2)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        assert len(protocol.current._waiters) == 1
        assert not other.done()
        protocol.connection_lost(None)
        assert await other == DISCONNECT
        app.finish()
        await settle()

    play(main)


def test_disconnect_messages_are_not_shared(protocol_class: Any) -> None:
    async def main() -> None:
        _, app, _ = script(protocol_class, GET)
        await settle()
        await app.answer()
        message = await app.receive()
        message["spoiled"] = True
        assert await app.receive() == DISCONNECT

    play(main)


@pytest.mark.parametrize("piece", [b"", b"he"])
def test_client_that_goes_in_the_middle_of_a_body_is_a_disconnect(protocol_class: Any, piece: bytes) -> None:
    async def main() -> None:
        protocol, app, _ = script(protocol_class, POST_5 + piece)
        await settle()
        protocol.connection_lost(ConnectionResetError())
        # What has come is not handed on: nobody must take it for the body.
        assert await app.receive() == DISCONNECT
        app.finish()
        await settle()
        assert protocol.transport.buffer == b""

    play(main)


def test_client_that_goes_wakes_whoever_waits(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, _ = script(protocol_class, POST_5)
        await settle()
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        protocol.connection_lost(None)
        assert await waiting == DISCONNECT
        app.finish()
        await settle()

    play(main)


def test_send_after_the_client_has_gone_returns_silently(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET, now=1.0)
        await settle()
        protocol.connection_lost(None)
        await app.start()
        await app.body(b"x", more=True)
        await app.send({"type": "nonsense"})
        await app.body()
        await app.body()
        app.finish()
        await settle()
        assert transport.buffer == b""
        assert not protocol.server_state.tasks

    play(main)
    assert log.messages == []


@pytest.mark.parametrize("start_first", [False, True])
def test_application_that_leaves_after_a_disconnect_is_no_error(
    protocol_class: Any, log: Log, start_first: bool
) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        if start_first:
            await app.start()
        protocol.connection_lost(None)
        app.finish()
        await settle()
        assert not transport.closed  # nobody closes what has gone

    play(main)
    assert log.messages == []


# --- 100 Continue -----------------------------------------------------------------------------

EXPECT = request("POST / HTTP/1.1", "Content-Length: 5", "Expect: 100-continue")


def test_100_is_written_when_the_application_first_asks(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, EXPECT)
        await settle()
        assert transport.buffer == b""
        waiting = asyncio.ensure_future(app.receive())
        await settle()
        assert transport.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
        protocol.data_received(b"hello")
        assert (await waiting)["body"] == b"hello"
        asyncio.ensure_future(app.receive())  # noqa: RUF006
        await settle()
        assert transport.buffer == b""
        await app.answer()
        assert not transport.closed

    play(main)


def test_100_is_not_written_where_the_body_is_there_already(protocol_class: Any) -> None:
    app = Answer(reads=True)
    transport = answered(protocol_class, app, EXPECT + b"hello")
    assert app.bodies == [b"hello"]
    assert [response.status for response in read_responses(transport.buffer)] == [200]


def test_100_is_written_for_a_request_without_a_body(protocol_class: Any) -> None:
    transport = answered(
        protocol_class, Answer(reads=True), request("GET / HTTP/1.1", "Expect: 100-continue")
    )
    assert [response.status for response in read_responses(transport.buffer)] == [100, 200]


def test_100_is_not_written_to_http_1_0(protocol_class: Any) -> None:
    data = request("POST / HTTP/1.0", "Content-Length: 5", "Expect: 100-continue", body=b"hello")
    transport = answered(protocol_class, Answer(reads=True), data)
    assert [response.status for response in read_responses(transport.buffer)] == [200]


def test_answer_without_reading_an_expected_body_closes(protocol_class: Any) -> None:
    # RFC 9110 10.1.1: the client may send the body all the same, or not; nobody knows where the next request begins.
    transport = answered(protocol_class, Answer(), EXPECT)
    [response] = read_responses(transport.buffer)
    assert response.headers["connection"] == "close"
    assert transport.closed


def test_100_is_not_written_after_the_start_of_the_response(protocol_class: Any) -> None:
    async def main() -> None:
        _, app, transport = script(protocol_class, EXPECT)
        await settle()
        await app.start(200, [(b"content-length", b"0")])
        asyncio.ensure_future(app.receive())  # noqa: RUF006
        await settle()
        await app.body()
        app.finish()
        await settle()
        assert b"100 Continue" not in transport.buffer

    play(main)


def test_100_is_not_written_to_a_client_that_has_gone(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, EXPECT)
        await settle()
        protocol.connection_lost(None)
        assert await app.receive() == DISCONNECT
        app.finish()
        await settle()
        assert transport.buffer == b""

    play(main)


# --- responses --------------------------------------------------------------------------------

FORMS = {
    "httptools": b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\nx-a: b\r\ncontent-length: 2\r\n\r\nok",
    "h11": b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\nX-A: b\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_response_byte_for_byte(implementation: str) -> None:
    app = Answer(headers=[(b"X-A", b"b"), (b"Content-Length", b"2")])
    protocol = connect(IMPLEMENTATIONS[implementation], app)
    protocol.server_state.default_headers = [(b"server", b"uvicorn")]
    protocol.data_received(GET)
    asyncio.run(protocol.loop.run_all())
    assert protocol.transport.buffer == FORMS[implementation]


def test_body_without_a_length_is_chunked(protocol_class: Any) -> None:
    transport = answered(protocol_class, Answer([b"hello ", b"", b"world", b""], headers=[]))
    assert transport.buffer.partition(b"\r\n\r\n")[2] == b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
    assert not transport.closed


def test_last_piece_of_a_chunked_body_carries_its_end(protocol_class: Any) -> None:
    transport = answered(protocol_class, Answer(b"hello", headers=[]))
    assert transport.buffer.partition(b"\r\n\r\n")[2] == b"5\r\nhello\r\n0\r\n\r\n"


def test_empty_body_without_a_length_keeps_its_framing(protocol_class: Any) -> None:
    transport = answered(protocol_class, Answer(b"", headers=[]), GET + GET)
    first, second = read_responses(transport.buffer)
    assert (first.body, first.ended, second.body, second.ended) == (b"", True, b"", True)


@pytest.mark.parametrize("size", [HIGH_WATER_LIMIT, HIGH_WATER_LIMIT + 1])
def test_large_pieces_are_chunked_like_small_ones(protocol_class: Any, size: int) -> None:
    transport = answered(protocol_class, Answer([b"x" * size, b"y" * size], headers=[]))
    [response] = read_responses(transport.buffer)
    assert response.body == b"x" * size + b"y" * size
    assert response.ended


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"4")]])
@pytest.mark.parametrize("make", [bytearray, memoryview])
def test_body_may_be_any_buffer(protocol_class: Any, make: Any, headers: Any) -> None:
    app = Answer([b"he", b"ho"], headers=headers)
    app.pieces = [make(piece) for piece in app.pieces]
    [response] = read_responses(answered(protocol_class, app).buffer)
    assert response.body == b"heho"


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")], [(b"transfer-encoding", b"chunked")]])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)])
def test_response_that_has_no_body_sends_none(
    protocol_class: Any, headers: Any, method: str, status: int
) -> None:
    app = Answer([b"he", b"llo"], status=status, headers=headers)
    transport = answered(protocol_class, app, request(f"{method} / HTTP/1.1") * 2)
    responses = read_responses(transport.buffer, (method, method))
    assert [response.status for response in responses] == [status, status]
    assert all("transfer-encoding" not in response.headers for response in responses)
    assert not transport.closed


@pytest.mark.parametrize("status", [200, 204, 304])
def test_response_of_no_length_is_complete_without_a_body(protocol_class: Any, status: int) -> None:
    app = Answer(b"", status=status, headers=[(b"content-length", b"0")])
    [response] = read_responses(answered(protocol_class, app).buffer)
    assert (response.status, response.body) == (status, b"")


def test_http_1_0_gets_no_chunks_and_the_end_by_close(protocol_class: Any) -> None:
    data = request("GET / HTTP/1.0", "Connection: keep-alive")
    transport = answered(protocol_class, Answer([b"hello ", b"", b"world"], headers=[]), data)
    head, _, body = transport.buffer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body == b"hello world"
    assert transport.closed


def test_headers_may_be_absent(protocol_class: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    [response] = read_responses(answered(protocol_class, app).buffer)
    assert (response.status, response.body) == (200, b"")


def test_own_date_and_server_are_sent_beside_the_servers(protocol_class: Any) -> None:
    app = Answer(headers=[(b"date", b"mine"), (b"server", b"mine"), (b"content-length", b"2")])
    protocol = connect(protocol_class, app)
    protocol.server_state.default_headers = [(b"date", b"now"), (b"server", b"uvicorn")]
    protocol.data_received(GET)
    asyncio.run(protocol.loop.run_all())
    lines = protocol.transport.buffer.split(b"\r\n")
    assert lines[1:5] == [b"date: now", b"server: uvicorn", b"date: mine", b"server: mine"]


# --- mistakes of the application --------------------------------------------------------------


def fail_with(exc: BaseException) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise exc

    return app


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    pass


async def returns_after_start(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def returns_in_body(scope: Any, receive: Any, send: Any) -> None:
    await returns_after_start(scope, receive, send)
    await send({"type": "http.response.body", "body": b"hello", "more_body": True})


async def raises_in_body(scope: Any, receive: Any, send: Any) -> None:
    await returns_in_body(scope, receive, send)
    raise RuntimeError("in the middle")


def assert_is_500(transport: FakeTransport) -> None:
    [response] = read_responses(transport.buffer)
    assert response.status == 500
    assert response.body == b"Internal Server Error"
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["content-length"] == "21"
    assert response.headers["connection"] == "close"
    assert transport.closed


class FailingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise PermissionError("no log today")


def test_a_log_that_fails_keeps_no_client_waiting(protocol_class: Any, log: Log) -> None:
    handler = FailingHandler()
    logging.getLogger("uvicorn.error").addHandler(handler)
    try:
        assert_is_500(answered(protocol_class, fail_with(RuntimeError("broken"))))
    finally:
        logging.getLogger("uvicorn.error").removeHandler(handler)


@pytest.mark.parametrize(
    "exc",
    [RuntimeError("broken"), KeyError("x"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()],
)
def test_exception_before_the_start_is_a_500(protocol_class: Any, log: Log, exc: BaseException) -> None:
    assert_is_500(answered(protocol_class, fail_with(exc)))
    assert log.messages == ["Exception in ASGI application\n"]
    [record] = log.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is exc


def test_return_before_the_start_is_a_500(protocol_class: Any, log: Log) -> None:
    assert_is_500(answered(protocol_class, returns_at_once))
    assert log.messages == ["ASGI callable returned without starting response."]


def test_500_has_no_body_for_head(protocol_class: Any) -> None:
    transport = answered(protocol_class, returns_at_once, request("HEAD / HTTP/1.1"))
    [response] = read_responses(transport.buffer, ("HEAD",))
    assert (response.status, response.headers["content-length"]) == (500, "21")
    assert transport.buffer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (returns_after_start, "ASGI callable returned without completing response."),
        (returns_in_body, "ASGI callable returned without completing response."),
        (raises_in_body, "Exception in ASGI application\n"),
    ],
)
def test_end_in_the_middle_of_a_response_closes_without_its_end(
    protocol_class: Any, log: Log, app: Any, message: str
) -> None:
    transport = answered(protocol_class, app)
    [response] = read_responses(transport.buffer)
    assert response.status == 200
    assert not response.ended
    assert transport.closed
    assert log.messages == [message]


def test_exception_after_the_response_is_logged_and_harms_nobody(protocol_class: Any, log: Log) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Answer()(scope, receive, send)
        raise RuntimeError("too late")

    transport = answered(protocol_class, app)
    assert [response.status for response in read_responses(transport.buffer)] == [200]
    assert not transport.closed
    assert log.messages == ["Exception in ASGI application\n"]


def test_exception_after_the_client_has_gone_is_logged(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        protocol.connection_lost(None)
        app.finish(RuntimeError("late"))
        await settle()
        assert transport.buffer == b""

    play(main)
    assert log.messages == ["Exception in ASGI application\n"]


@pytest.mark.parametrize("where", ["after the response", "in the response", "before it"])
def test_returned_value_is_an_error_and_closes(protocol_class: Any, log: Log, where: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> int:
        if where == "after the response":
            await Answer()(scope, receive, send)
        elif where == "in the response":
            await returns_in_body(scope, receive, send)
        return 5

    transport = answered(protocol_class, app)
    responses = read_responses(transport.buffer)
    assert [(each.status, each.ended) for each in responses] == {
        "after the response": [(200, True)], "in the response": [(200, False)], "before it": []
    }[where]  # fmt: skip
    assert transport.closed
    assert log.messages == ["ASGI callable should return None, but returned '5'."]


def test_returned_value_after_the_client_has_gone_is_an_error(protocol_class: Any, log: Log) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        protocol.connection_lost(None)
        app.finish(5)
        await settle()
        assert not transport.closed

    play(main)
    assert log.messages == ["ASGI callable should return None, but returned '5'."]


def test_returned_value_does_not_cut_the_request_behind(protocol_class: Any, log: Log) -> None:
    calls = []

    async def app(scope: Any, receive: Any, send: Any) -> Any:
        calls.append(scope)
        await Answer()(scope, receive, send)
        return None if len(calls) > 1 else 5

    transport = answered(protocol_class, app, GET + GET)
    first, second = read_responses(transport.buffer)
    assert "connection" not in first.headers
    assert second.headers["connection"] == "close"
    assert transport.closed
    assert log.messages == ["ASGI callable should return None, but returned '5'."]


def test_returned_value_after_a_response_that_closes_closes_once(protocol_class: Any, log: Log) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> Any:
        await Answer()(scope, receive, send)
        return 5

    transport = answered(protocol_class, app, request("GET / HTTP/1.1", "Connection: close"))
    assert transport.closed
    assert len(log.messages) == 1


def test_what_other_tasks_send_after_the_end_goes_nowhere(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        send = app.send
        await app.start()
        app.finish(RuntimeError("broken"))
        await settle()
        assert transport.closed
        written = transport.buffer
        await send({"type": "http.response.body", "body": b"late"})
        assert transport.buffer == written
        protocol.connection_lost(None)

    play(main)


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
BODY = {"type": "http.response.body", "body": b"hello"}
MORE = BODY | {"more_body": True}


@pytest.mark.parametrize(
    ("messages", "text", "statuses"),
    [
        ([BODY], "Expected ASGI message 'http.response.start', but got 'http.response.body'.", [500]),
        (
            [{"type": "http.disconnect"}],
            "Expected ASGI message 'http.response.start', but got 'http.disconnect'.",
            [500],
        ),
        ([START, START], "Expected ASGI message 'http.response.body', but got 'http.response.start'.", [200]),
        (
            [START, MORE, START],
            "Expected ASGI message 'http.response.body', but got 'http.response.start'.",
            [200],
        ),
        (
            [START, BODY, BODY],
            "Unexpected ASGI message 'http.response.body' sent, after response already completed.",
            [200],
        ),
        (
            [START, BODY, START],
            "Unexpected ASGI message 'http.response.start' sent, after response already completed.",
            [200],
        ),
        ([START, BODY | {"body": b"hello!"}], "Response content longer than Content-Length", [200]),
        ([START, MORE, MORE], "Response content longer than Content-Length", [200]),
        ([START, BODY | {"body": b"hell"}], "Response content shorter than Content-Length", [200]),
        ([START, BODY | {"body": b""}], "Response content shorter than Content-Length", [200]),
    ],
)
def test_wrong_message_raises_its_text_and_closes(
    protocol_class: Any, messages: list[Any], text: str, statuses: list[int]
) -> None:
    raised = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            try:
                await send(message)
            except RuntimeError as exc:
                raised.append(str(exc))
                raise

    transport = answered(protocol_class, app)
    assert raised == [text]
    responses = read_responses(transport.buffer)
    assert [response.status for response in responses] == statuses
    assert transport.closed
    # Never more than was announced.
    assert all(len(response.body) <= int(response.headers["content-length"]) for response in responses)


@pytest.mark.parametrize(
    "start",
    [
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"x y", b"a")]},
        {"type": "http.response.start", "status": 200, "headers": [("x", "\xe9")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"-5")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"x",)]},
        {"type": "http.response.start", "status": 200, "headers": [(1, 2)]},
        {"type": "http.response.start", "status": 200, "headers": 5},
        {"type": "http.response.start", "status": 1000, "headers": []},
        {"type": "http.response.start", "status": 101, "headers": []},
        {"type": "http.response.start", "status": [], "headers": []},
        {"type": "http.response.start", "headers": []},
        {},
    ],
)
def test_start_that_cannot_be_written_is_a_500(protocol_class: Any, log: Log, start: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)

    assert_is_500(answered(protocol_class, app))
    assert log.messages == ["Exception in ASGI application\n"]


def test_start_may_be_tried_again_after_a_mistake(protocol_class: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(RuntimeError):
            await send(START | {"headers": [(b"x\n", b"y")]})
        await Answer()(scope, receive, send)

    [response] = read_responses(answered(protocol_class, app).buffer)
    assert (response.status, response.body) == (200, b"ok")


def test_message_after_the_end_does_not_cut_the_request_behind(protocol_class: Any) -> None:
    calls = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope)
        await Answer()(scope, receive, send)
        if len(calls) == 1:
            with pytest.raises(RuntimeError, match="Unexpected ASGI message"):
                await send(BODY)

    transport = answered(protocol_class, app, GET + GET)
    assert [response.status for response in read_responses(transport.buffer)] == [200, 200]
    assert transport.closed


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"8")]])
@pytest.mark.parametrize(
    "body", [bytearray(b"abcdefgh"), memoryview(b"abcdefgh"), memoryview(b"abcdefgh").cast("I")]
)
def test_body_may_be_anything_that_holds_bytes(protocol_class: Any, headers: Any, body: Any) -> None:
    [response] = read_responses(answered(protocol_class, Answer([body], headers=headers)).buffer)
    assert response.body == b"abcdefgh"
    assert response.ended


# --- the head waits for the body ----------------------------------------------------------------


def test_head_and_first_piece_of_the_body_are_one_write(protocol_class: Any) -> None:
    async def main() -> None:
        _, app, transport = script(protocol_class, GET)
        await settle()
        await app.start()
        assert transport.writes == []
        await app.body(b"one", more=True)
        assert len(transport.writes) == 1
        await app.body(b"two")
        assert len(transport.writes) == 2
        [response] = read_responses(transport.buffer)
        assert response.body == b"onetwo"
        app.finish()
        await settle()
        assert len(transport.writes) == 2

    play(main)


def test_large_body_is_not_copied_behind_its_head(protocol_class: Any) -> None:
    async def main() -> None:
        _, app, transport = script(protocol_class, GET)
        await settle()
        large = b"x" * 70_000
        await app.send({**START, "headers": [(b"content-length", b"70000")]})
        await app.body(large)
        assert transport.writes[1] is large
        app.finish()
        await settle()

    play(main)


def test_head_does_not_wait_longer_than_a_turn(protocol_class: Any) -> None:
    async def main() -> None:
        _, app, transport = script(protocol_class, GET)
        await settle()
        await app.start()
        await settle(2)
        assert transport.buffer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert transport.buffer.endswith(b"\r\n\r\n")
        await app.body(b"late")
        [response] = read_responses(transport.buffer)
        assert response.body == b"late"
        app.finish()
        await settle()

    play(main)


def test_head_that_waits_is_written_before_the_connection_is_cut(protocol_class: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        raise ValueError("no body")

    async def main() -> None:
        protocol = connect(protocol_class, app, loop=TaskLoop())
        protocol.data_received(GET)
        await settle()
        [response] = read_responses(protocol.transport.buffer)
        assert (response.status, response.ended) == (200, False)
        assert protocol.transport.closed

    play(main)


def test_head_that_waits_goes_nowhere_when_the_client_has_gone(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        await app.start()
        transport.close()
        protocol.connection_lost(None)
        await settle()
        assert transport.writes == []
        app.finish()
        await settle()

    play(main)


def test_loop_without_call_soon_gets_the_head_at_once(protocol_class: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        assert connection.transport.buffer.endswith(b"\r\n\r\n")
        await send(BODY)

    connection = connect(protocol_class, app)
    connection.data_received(GET)
    asyncio.run(connection.loop.run_all())
    [response] = read_responses(connection.transport.buffer)
    assert response.status == 200


# --- cancellation -----------------------------------------------------------------------------


@pytest.mark.parametrize("started", [False, True])
def test_cancelled_request_is_cut_without_a_500(protocol_class: Any, log: Log, started: bool) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        if started:
            await app.start()
            await settle()
        written = transport.buffer
        [task] = protocol.server_state.tasks
        task.cancel("Task cancelled, timeout graceful shutdown exceeded")
        await asyncio.wait([task])
        assert task.cancelled()
        assert transport.buffer == written
        assert transport.closed
        assert not protocol.server_state.tasks

    play(main)
    assert log.messages == []


def test_request_cancelled_after_its_response_leaves_the_connection(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        await app.start(200, [(b"content-length", b"0")])
        await app.body()
        [task] = protocol.server_state.tasks
        task.cancel()
        await asyncio.wait([task])
        assert not transport.closed

    play(main)


def test_application_whose_loop_is_gone_is_closed_quietly(protocol_class: Any, log: Log) -> None:
    app = Script()
    protocol = connect(protocol_class, app)
    protocol.data_received(GET)
    [coroutine] = protocol.loop.coroutines

    async def first_step() -> None:
        coroutine.send(None)

    asyncio.run(first_step())
    coroutine.close()
    assert protocol.transport.buffer == b""
    assert log.messages == []


def test_generator_exit_of_the_application_is_a_500(protocol_class: Any, log: Log) -> None:
    """It must not pass for the end of the event loop: the connection would stay open for ever."""

    async def main() -> None:
        protocol = connect(protocol_class, fail_with(GeneratorExit()), loop=TaskLoop())
        protocol.data_received(GET)
        await settle()
        assert_is_500(protocol.transport)
        assert log.messages == ["Exception in ASGI application\n"]

    play(main)


# --- the server's own application -------------------------------------------------------------


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_service_unavailable_byte_for_byte(implementation: str) -> None:
    protocol = connect(IMPLEMENTATIONS[implementation], service_unavailable)
    protocol.server_state.default_headers = [(b"server", b"uvicorn")]
    protocol.data_received(GET)
    asyncio.run(protocol.loop.run_all())
    assert protocol.transport.buffer == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"server: uvicorn\r\n"
        b"content-type: text/plain; charset=utf-8\r\n"
        b"content-length: 19\r\n"
        b"connection: close\r\n"
        b"\r\n"
        b"Service Unavailable"
    )
    assert protocol.transport.closed


# --- what the transport does not take ---------------------------------------------------------


def test_send_waits_while_the_transport_is_full(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        await app.start()
        transport.unsent = 100_000
        protocol.pause_writing()
        sending = asyncio.ensure_future(app.body(b"hello"))
        await settle()
        assert not sending.done()
        assert b"hello" not in transport.buffer
        protocol.resume_writing()
        await sending
        assert b"hello" in transport.buffer
        app.finish()
        await settle()

    play(main)


def test_send_that_waits_returns_when_the_client_goes(protocol_class: Any) -> None:
    async def main() -> None:
        protocol, app, transport = script(protocol_class, GET)
        await settle()
        await app.start()
        await settle()
        written = transport.buffer
        protocol.pause_writing()
        sending = asyncio.ensure_future(app.body(b"hello"))
        await settle()
        protocol.connection_lost(ConnectionResetError())
        await sending
        await app.body(b"more")
        assert transport.buffer == written
        app.finish()
        await settle()

    play(main)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nobody_stops_reading_for_an_application_that_waits_for_more(implementation: str) -> None:
    """Only what comes before it has had its turn counts."""
    much = bytes(HIGH_WATER_LIMIT + 1)
    received = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while len(received) < 3:
            received.append(len((await receive())["body"]))
        await asyncio.Event().wait()

    async def main() -> list[bool]:
        protocol = connect(IMPLEMENTATIONS[implementation], app, loop=TaskLoop())
        reads = []
        protocol.data_received(request("POST / HTTP/1.1", "Content-Length: 1000000"))
        await settle()
        for pieces in ([much], [much, much[:1], much], [much]):
            for piece in pieces:
                protocol.data_received(piece)
                reads.append(protocol.transport.is_reading())
            await settle()
            reads.append(protocol.transport.is_reading())
        # The application takes no more.
        protocol.data_received(much)
        reads.append(protocol.transport.is_reading())
        return reads

    assert asyncio.run(main()) == [True, True, True, False, False, True, True, True, False]
    assert received == [len(much), 2 * len(much) + 1, len(much)]

"""One request of a WSGI application: its body as it comes, its response as it goes, threads, and what is closed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.middleware.scopes import SCOPE
from uvicorn.middleware._wsgi_request import READ_AHEAD, ClientGone, RequestBody, WSGIResponder

DISCONNECT = {"type": "http.disconnect"}


def body(*pieces: bytes) -> list[dict[str, Any]]:
    """The messages of a request body."""
    last = len(pieces) - 1
    return [{"type": "http.request", "body": piece, "more_body": i < last} for i, piece in enumerate(pieces)]


@pytest.fixture
def call() -> Iterator[Callable[..., list[Any]]]:
    """Serves one request with a WSGI application; returns the messages that it has sent."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:

        def call(
            app: Any, messages: list[Any] | None = None, scope: Any = None, sent: Any = None
        ) -> list[Any]:
            queue = body(b"") if messages is None else messages
            out: list[Any] = [] if sent is None else sent

            async def receive() -> Any:
                return queue.pop(0) if queue else await asyncio.Event().wait()

            async def send(message: Any) -> None:
                await asyncio.sleep(0)
                out.append(message)

            asyncio.run(WSGIResponder(app, executor, {**SCOPE, **(scope or {})})(receive, send))  # type: ignore[arg-type]
            return out

        yield call


Call = Callable[..., list[Any]]


def response(*chunks: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> list[Any]:
    """The messages of a response."""
    return [
        {"type": "http.response.start", "status": status, "headers": list(headers)},
        *({"type": "http.response.body", "body": chunk, "more_body": True} for chunk in chunks),
        {"type": "http.response.body", "body": b""},
    ]


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Name ", " é")])
    return [b"hello"]


# --- the request body -----------------------------------------------------------------------------------


def echo(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


@pytest.mark.parametrize(
    "pieces",
    [[b"one"], [b"one", b"two", b""], [b"x" * READ_AHEAD], [b"x" * READ_AHEAD, b"y"], [b"x" * 700_000] * 3],
    ids=["one", "several", "all that may wait", "one more", "far above it"],
)
def test_body_is_given_whole_to_who_reads_it_whole(call: Call, pieces: list[bytes]) -> None:
    assert call(echo, body(*pieces)) == response(b"".join(pieces))


def test_body_is_received_as_it_is_read(call: Call) -> None:
    """However large it is, no more than the read-ahead of it waits for an application that does not read."""
    pieces = [b"x" * 65536] * 64
    messages = body(*pieces)
    left = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        size = 0
        while piece := environ["wsgi.input"].read(65536):
            size += len(piece)
            # What is neither read nor to come waits: here, and in the reader's own buffer.
            left.append(len(pieces) * 65536 - size - len(messages) * 65536)
        start_response("200 OK", [])
        return [str(size).encode()]

    assert call(app, messages) == response(str(64 * 65536).encode())
    assert max(left) <= READ_AHEAD + 65536


def test_body_that_nobody_reads_is_not_received(call: Call) -> None:
    messages = body(*[b"x" * 65536] * 64)
    assert call(hello, messages)[-1] == {"type": "http.response.body", "body": b""}
    assert len(messages) >= 64 - READ_AHEAD // 65536 - 1


def test_continue_is_left_to_the_application(call: Call) -> None:
    """The first receive() makes the server say it: not before the application reads, or answers."""
    messages = body(b"x")
    expecting = {"headers": [(b"expect", b"100-continue")]}
    left = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        left.append(len(messages))
        return echo(environ, start_response)

    assert call(app, messages, expecting) == response(b"x")
    assert left == [1]


def test_body_is_read_by_lines_and_pieces(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        stream = environ["wsgi.input"]
        start_response("200 OK", [])
        return [stream.readline(), stream.read(2), *stream.readlines()]

    assert call(app, body(b"a\nbc", b"d\ne")) == response(b"a\n", b"bc", b"d\n", b"e")


@pytest.mark.parametrize("before", [[], body(b"part", b"")[:1]], ids=["at once", "in the middle"])
def test_truncated_body_is_an_error_where_it_is_read(call: Call, before: list[Any]) -> None:
    errors = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        try:
            return echo(environ, start_response)
        except OSError as exc:
            errors.append(str(exc))
            raise

    assert call(app, [*before, DISCONNECT]) == []
    assert errors == ["the client went away before its request body was complete"]


# --- the response -----------------------------------------------------------------------------------------


def test_response_has_status_and_lower_case_headers(call: Call) -> None:
    assert call(hello) == response(b"hello", headers=[(b"content-type", b"text/plain"), (b"x-name", b"\xe9")])


def test_response_is_written_by_the_callable_too(call: Call) -> None:
    """PEP 3333's write(): what it gets has gone out when it returns; the iterable follows."""
    sent: list[Any] = []
    seen = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"one")
        seen.append(len(sent))
        write(b"")
        return [b"two"]

    assert call(app, sent=sent) == response(b"one", b"two")
    assert seen == [2]


def test_response_of_text_is_an_error(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> list[str]:
        start_response("200 OK", [])
        return ["text"]

    with pytest.raises(AssertionError, match="consists of bytes, not str"):
        call(app)


def test_head_ends_with_the_head_and_closes(call: Call) -> None:
    chunks = Closing(b"a", RuntimeError("asked for more"))

    def app(environ: Any, start_response: Any) -> Closing:
        start_response("200 OK", [("Content-Length", "2")])
        return chunks

    assert call(app, scope={"method": "HEAD"}) == response(b"a", headers=[(b"content-length", b"2")])
    assert chunks.closed == 1


def test_endless_response_stops_when_the_client_has_gone(call: Call) -> None:
    closed = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"tick"
        finally:
            closed.append(True)

    sent = call(app, [*body(b""), DISCONNECT])
    assert sent == response(*[b"tick"] * (len(sent) - 1))[:-1]
    assert closed == [True]


def test_list_is_sent_to_its_end_to_a_client_that_only_listens(call: Call) -> None:
    """A client that has shut down its sending direction shows as gone, and reads all the same."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"a"] * 50

    assert call(app, [*body(b""), DISCONNECT]) == response(*[b"a"] * 50)


@pytest.mark.parametrize(("text", "status"), [("204 No Content", 204), ("599", 599), ("404 Not Found", 404)])
def test_status_is_the_number(call: Call, text: str, status: int) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(text, [])
        return []

    assert call(app) == response(status=status)


def test_application_runs_in_another_thread(call: Call) -> None:
    threads = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        threads.append(threading.current_thread())
        start_response("200 OK", [])
        return []

    call(app)
    assert threading.current_thread() not in threads
    assert len(threads) == 1


def test_response_goes_out_piece_by_piece(call: Call) -> None:
    sent: list[Any] = []
    seen = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for piece in (b"one", b"two", b"three"):
            seen.append(len(sent))
            yield piece
        seen.append(len(sent))

    assert call(app, sent=sent) == response(b"one", b"two", b"three")
    assert seen == [0, 2, 3, 4]


def test_nothing_is_sent_for_empty_pieces(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("200 OK", [])
        yield b""
        yield b"a"
        yield b""

    assert call(app) == response(b"a")


class Closing:
    """A response that says when it was closed."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed += 1


def test_response_is_closed_at_its_end(call: Call) -> None:
    chunks = Closing(b"a")

    def app(environ: Any, start_response: Any) -> Closing:
        start_response("200 OK", [])
        return chunks

    assert call(app) == response(b"a")
    assert chunks.closed == 1


def test_response_that_breaks_off_is_closed_and_the_error_passes(call: Call) -> None:
    chunks = Closing(b"a", ValueError("no"), b"b")
    sent: list[Any] = []

    def app(environ: Any, start_response: Any) -> Closing:
        start_response("200 OK", [])
        return chunks

    with pytest.raises(ValueError, match="no"):
        call(app, sent=sent)
    assert sent == response(b"a")[:-1]
    assert chunks.closed == 1


def test_response_without_start_is_closed_and_an_error(call: Call) -> None:
    chunks = Closing(b"a")
    sent: list[Any] = []
    with pytest.raises(AssertionError, match="did not call start_response"):
        call(lambda environ, start_response: chunks, sent=sent)
    assert sent == []
    assert chunks.closed == 1


# --- errors -------------------------------------------------------------------------------------------------


def test_error_before_the_response_passes(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise RuntimeError("something went wrong")

    sent: list[Any] = []
    with pytest.raises(RuntimeError, match="something went wrong"):
        call(app, sent=sent)
    assert sent == []


def test_error_with_a_response_of_its_own_is_raised_after_that(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        try:
            raise RuntimeError("something went wrong")
        except RuntimeError:
            start_response("500 Internal Server Error", [("x", "1")], sys.exc_info())
            return [b"sorry"]

    sent: list[Any] = []
    with pytest.raises(RuntimeError, match="something went wrong"):
        call(app, sent=sent)
    assert sent == response(b"sorry", status=500, headers=[(b"x", b"1")])


def test_error_response_replaces_one_that_has_not_gone_out(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        try:
            raise RuntimeError("late")
        except RuntimeError:
            start_response("503 Service Unavailable", [], sys.exc_info())
        yield b"sorry"

    sent: list[Any] = []
    with pytest.raises(RuntimeError, match="late"):
        call(app, sent=sent)
    assert sent == response(b"sorry", status=503)


def test_error_response_after_the_first_piece_raises_the_error_at_once(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        try:
            raise RuntimeError("too late")
        except RuntimeError:
            start_response("500 Internal Server Error", [], sys.exc_info())
        yield b"never"

    sent: list[Any] = []
    with pytest.raises(RuntimeError, match="too late"):
        call(app, sent=sent)
    assert sent == response(b"a")[:-1]


def test_second_start_without_an_error_is_an_error(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        start_response("201 Created", [])
        return []

    with pytest.raises(AssertionError, match="only with exc_info"):
        call(app)


# --- the end of the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["read", "send"])
def test_cancelled_request_releases_its_thread(where: str) -> None:
    """It waits for an event loop that may never run again."""
    ended = threading.Event()
    waits = asyncio.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield environ["wsgi.input"].read() if where == "read" else b"x"
        finally:
            ended.set()

    async def forever(*_: Any) -> Any:
        waits.set()
        await asyncio.Event().wait()

    async def main(executor: Any) -> None:
        responder: Any = WSGIResponder(app, executor, SCOPE)  # type: ignore[arg-type]
        queue = body(b"")

        async def receive() -> Any:
            return queue.pop(0) if where == "send" and queue else await forever()

        task = asyncio.ensure_future(responder(receive, forever))
        await waits.wait()
        task.cancel()
        await asyncio.wait([task])

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        asyncio.run(main(executor))
        assert ended.wait(30)


def test_read_after_the_end_of_the_event_loop_fails() -> None:
    loop = asyncio.new_event_loop()

    async def receive() -> Any:
        raise AssertionError("not to be called")

    stream = RequestBody(loop, receive)
    loop.close()
    with pytest.raises(ClientGone):
        stream.read(1)

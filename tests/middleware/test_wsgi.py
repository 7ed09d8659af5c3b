"""WSGI applications behind the built-in middleware: the environment, the response, threads, and what is closed."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import a2wsgi
import pytest

from uvicorn.config import Config
from uvicorn.middleware import wsgi
from uvicorn.middleware.wsgi import SPOOL_SIZE, build_environ

SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "https",
    "root_path": "",
    "path": "/x",
    "query_string": b"a=1&b=%20",
    "headers": [],
    "server": ("10.0.0.1", 8443),
    "client": ("10.0.0.2", 4321),
}
DISCONNECT = {"type": "http.disconnect"}


def body(*pieces: bytes) -> list[dict[str, Any]]:
    """The messages of a request body."""
    last = len(pieces) - 1
    return [{"type": "http.request", "body": piece, "more_body": i < last} for i, piece in enumerate(pieces)]


@pytest.fixture
def call() -> Iterator[Callable[..., list[Any]]]:
    """Calls a WSGI application through the middleware; returns the messages that it has sent."""
    made: list[Any] = []

    def call(app: Any, messages: list[Any] | None = None, scope: Any = None, sent: Any = None) -> list[Any]:
        with pytest.deprecated_call(match="^Uvicorn's native WSGI implementation is deprecated"):
            middleware = wsgi._WSGIMiddleware(app, workers=1)
        made.append(middleware)
        queue = list(body(b"") if messages is None else messages)
        out: list[Any] = [] if sent is None else sent

        async def receive() -> Any:
            return queue.pop(0)

        async def send(message: Any) -> None:
            await asyncio.sleep(0)
            out.append(message)

        asyncio.run(middleware({**SCOPE, **(scope or {})}, receive, send))  # type: ignore[arg-type]
        return out

    yield call
    for middleware in made:
        middleware.executor.shutdown()


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


# --- which class it is --------------------------------------------------------------------------------


def test_default_is_the_class_of_a2wsgi_where_that_is_installed() -> None:
    assert wsgi.WSGIMiddleware is a2wsgi.WSGIMiddleware


def test_interface_wsgi_wraps_the_application_and_has_no_websockets() -> None:
    config = Config(hello, interface="wsgi", log_config=None, proxy_headers=False)
    config.load()
    assert isinstance(config.loaded_app, wsgi.WSGIMiddleware)
    assert config.loaded_app.app is hello
    assert config.ws_protocol_class is None
    assert config.asgi_version == "3.0"
    config.loaded_app.executor.shutdown()


# --- the environment ----------------------------------------------------------------------------------


def environ(**scope: Any) -> Any:
    message: Any = {"type": "http.request", "body": b"", "more_body": False}
    return build_environ({**SCOPE, **scope}, message, io.BytesIO())  # type: ignore[typeddict-item]


def test_environment_of_a_plain_request() -> None:
    stream = io.BytesIO()
    message: Any = {"type": "http.request"}
    assert build_environ(SCOPE, message, stream) == {  # type: ignore[arg-type]
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/x",
        "QUERY_STRING": "a=1&b=%20",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "10.0.0.1",
        "SERVER_PORT": 8443,
        "REMOTE_ADDR": "10.0.0.2",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": stream,
        "wsgi.errors": sys.stdout,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def test_environment_without_addresses() -> None:
    found = environ(server=None, client=None)
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == ("localhost", 80)
    assert "REMOTE_ADDR" not in found


@pytest.mark.parametrize(
    ("root_path", "path", "script_name", "path_info"),
    [
        ("", "/文", "", "/文".encode().decode("latin1")),
        ("/文", "/文/x", "/文".encode().decode("latin1"), "/x"),
        ("/api", "/api", "/api", ""),
        ("/api", "/other", "/api", "/other"),
    ],
)
def test_path_is_split_at_the_root_path(root_path: str, path: str, script_name: str, path_info: str) -> None:
    found = environ(root_path=root_path, path=path)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == (script_name, path_info)


def test_headers_are_variables_and_repeated_ones_are_joined() -> None:
    found = environ(
        headers=[
            (b"content-type", b"text/plain"),
            (b"content-length", b"5"),
            (b"x-name", b"J\xc3\xa9"),
            (b"accept", b"a"),
            (b"accept", b"b"),
        ]
    )
    assert found["CONTENT_TYPE"] == "text/plain"
    assert found["CONTENT_LENGTH"] == "5"
    assert found["HTTP_X_NAME"] == "J\xc3\xa9"
    assert found["HTTP_ACCEPT"] == "a,b"


# --- the request body -----------------------------------------------------------------------------------


def echo(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


@pytest.mark.parametrize(
    "pieces",
    [[b"one"], [b"one", b"two", b""], [b"x" * SPOOL_SIZE], [b"x" * SPOOL_SIZE, b"y"], [b"x" * 700_000] * 3],
    ids=["one", "several", "spool size", "above it", "far above it"],
)
def test_body_is_given_whole(call: Call, pieces: list[bytes]) -> None:
    assert call(echo, body(*pieces)) == response(b"".join(pieces))


def test_body_above_the_spool_size_waits_in_a_file(call: Call) -> None:
    rolled = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        rolled.append(environ["wsgi.input"]._rolled)
        start_response("200 OK", [])
        return []

    call(app, body(b"x" * SPOOL_SIZE))
    call(app, body(b"x" * SPOOL_SIZE, b"y"))
    assert rolled == [False, True]


def test_body_is_read_by_lines_and_pieces(call: Call) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        stream = environ["wsgi.input"]
        start_response("200 OK", [])
        return [stream.readline(), stream.read(2), *stream.readlines()]

    assert call(app, body(b"a\nbc", b"d\ne")) == response(b"a\n", b"bc", b"d\n", b"e")


@pytest.mark.parametrize("before", [[], body(b"part", b"")[:1]], ids=["at once", "in the middle"])
def test_client_that_goes_before_its_body_is_complete_is_not_served(call: Call, before: list[Any]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise AssertionError("not to be called")

    assert call(app, [*before, DISCONNECT]) == []


# --- the response -----------------------------------------------------------------------------------------


def test_response_has_status_and_lower_case_headers(call: Call) -> None:
    assert call(hello) == response(b"hello", headers=[(b"content-type", b"text/plain"), (b"x-name", b"\xe9")])


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


# --- other scopes -----------------------------------------------------------------------------------------


def test_lifespan_is_not_supported(call: Call) -> None:
    with pytest.raises(RuntimeError, match="WSGI applications have no lifespan"):
        call(hello, [], {"type": "lifespan"})


def test_other_scope_is_left_alone(call: Call) -> None:
    assert call(hello, [], {"type": "websocket"}) == []

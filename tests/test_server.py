"""The Server in one process: sockets, signals, limits, and the order of start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import signal
import socket
import struct
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from uvicorn.config import LOGGING_CONFIG, Config
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.server import HANDLED_SIGNALS, HANDSHAKE_GRACE, Server, ServerHooks, ServerState

LIMIT = 20  # seconds after which a test has hung
PID = os.getpid()

Test = Callable[[], Coroutine[Any, Any, None]]


# --- applications -------------------------------------------------------------------------------------


async def hello(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await answer(send, b"hello")


async def answer(send: Any, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Slow:
    """Answers when the test lets it. Made in a running event loop."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.ended: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        self.called.set()
        try:
            await self.goes_on.wait()
            await answer(send, b"late")
        except BaseException as exc:
            self.ended = exc
            raise


class Lived:
    """Has a lifespan, and notes what becomes of it."""

    def __init__(self, **raises: BaseException) -> None:
        self.events: list[str] = []
        self.raises = raises

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await answer(send, repr(scope["state"]).encode())
            return
        scope["state"]["name"] = "value"
        try:
            for name in ("startup", "shutdown"):
                await receive()
                self.events.append(name)
                if name in self.raises:
                    raise self.raises[name]
                await send({"type": f"lifespan.{name}.complete"})
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise


# --- helpers --------------------------------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Test], None]:
    """Runs a test in each kind of event loop."""
    factory = asyncio.SelectorEventLoop if request.param == "asyncio" else uvloop.new_event_loop

    def run(test: Test) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT):
                await test()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(limited())

    return run


Run = Callable[[Test], None]


@pytest.fixture(params=["httptools", "h11"])
def http(request: pytest.FixtureRequest) -> Any:
    return request.param


def make(app: Any, **settings: Any) -> Server:
    return Server(Config(app, **{"port": 0, "log_config": None, **settings}))


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition that nobody tells of."""
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(server: Server, sockets: list[socket.socket] | None = None) -> AsyncIterator[Server]:
    """The server serves; at the end it is told to stop, if it was not, and has stopped."""
    task = asyncio.create_task(server.serve(sockets=sockets))
    try:
        await until(lambda: server.started or task.done())
        if task.done():
            await task
        yield server
        server.should_exit = True
        await task
    finally:
        server.force_exit = server.should_exit = True
        task.cancel()


def port_of(server: Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


class Client:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def request(self, path: str = "/") -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    async def response(self) -> tuple[bytes, bytes]:
        """Head and body of a response with Content-Length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        match = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
        assert match is not None
        return head, await self.reader.readexactly(int(match[1]))

    async def get(self, path: str = "/") -> tuple[bytes, bytes]:
        self.request(path)
        return await self.response()

    def reset(self) -> None:
        """End the connection so that the server hears of it at once, also where it does not read."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> bytes:
        """What comes until the server closes."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b"reset"


@contextlib.asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def body_from(port: int, host: str = "127.0.0.1") -> bytes:
    async with connected(port, host) as client:
        return (await client.get())[1]


async def refused(port: int) -> None:
    """Wait until nobody listens there."""
    while True:
        try:
            async with connected(port):
                pass
        except ConnectionRefusedError:
            return


def listening(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(address)
    sock.listen()
    return sock


def texts(records: list[logging.LogRecord], lowest: int = logging.INFO) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in records if record.levelno >= lowest]


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Signals that reach the host: its handlers are afterwards the ones from before."""
    got: list[int] = []
    before = {sig: signal.signal(sig, lambda sig, frame: got.append(sig)) for sig in HANDLED_SIGNALS}
    host = {sig: signal.getsignal(sig) for sig in HANDLED_SIGNALS}
    yield got
    assert {sig: signal.getsignal(sig) for sig in HANDLED_SIGNALS} == host
    for sig, handler in before.items():
        signal.signal(sig, handler)


# --- where it listens -------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        listening(socket.AF_INET6, ("::1", 0)).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        (None, "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        pytest.param("::1", "::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
    ],
)
def test_serves_on_a_host_and_a_free_port(
    host: str | None, where: str, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        async with serving(make(hello, host=host, lifespan="off")) as server:
            sockets = [sock for each in server.servers for sock in each.sockets]
            (port, *_) = [
                sock.getsockname()[1]
                for sock in sockets
                if (sock.family == socket.AF_INET6) == (":" in where)
            ]
            assert await body_from(port, where) == b"hello"
            shown = sockets[0].getsockname()
        assert server.servers == []
        address = f"[{shown[0]}]" if ":" in shown[0] else shown[0]
        line = f"INFO Uvicorn running on http://{address}:{shown[1]} (Press CTRL+C to quit)"
        assert texts(error_log)[1] == line

    run(test)


def test_serves_on_a_unix_socket_and_removes_it(
    tmp_path: Path, run: Run, error_log: list[logging.LogRecord]
) -> None:
    path = tmp_path / "s.sock"

    async def test() -> None:
        async with serving(make(hello, uds=str(path), lifespan="off")):
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(transport=transport) as client:
                response = await client.get("http://host/")
            assert (response.status_code, response.text) == (200, "hello")
        assert not path.exists()

    run(test)
    assert texts(error_log)[1] == f"INFO Uvicorn running on unix socket {path} (Press CTRL+C to quit)"


def test_serves_on_an_inherited_descriptor(run: Run, error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        with listening() as sock:
            address = sock.getsockname()
            async with serving(make(hello, fd=sock.fileno(), lifespan="off")):
                assert await body_from(address[1]) == b"hello"
            assert sock.getsockname() == address  # the descriptor is its owner's
        assert texts(error_log)[1] == f"INFO Uvicorn running on socket {address!r} (Press CTRL+C to quit)"

    run(test)


@pytest.mark.parametrize("count", [1, 3])
def test_serves_on_given_sockets_and_closes_them(
    count: int, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        sockets = [listening() for _ in range(count)]
        ports = [sock.getsockname()[1] for sock in sockets]
        async with serving(make(hello, lifespan="off"), sockets):
            for port in ports:
                assert await body_from(port) == b"hello"
        assert [sock.fileno() for sock in sockets] == [-1] * count
        for port in ports:
            await refused(port)

    run(test)
    assert not [line for line in texts(error_log) if "running on" in line]


def test_serves_on_a_given_unix_socket(tmp_path: Path, run: Run) -> None:
    path = str(tmp_path / "s.sock")

    async def test() -> None:
        async with serving(make(hello, lifespan="off"), [listening(socket.AF_UNIX, path)]):
            reader, writer = await asyncio.open_unix_connection(path)
            assert (await Client(reader, writer).get())[1] == b"hello"
            writer.close()

    run(test)


def test_serves_on_several_bind_addresses(
    tmp_path: Path, run: Run, error_log: list[logging.LogRecord]
) -> None:
    path = str(tmp_path / "s.sock")

    async def test() -> None:
        async with serving(make(hello, bind=["127.0.0.1:0", f"unix:{path}"], lifespan="off")) as server:
            port = port_of(server)
            assert await body_from(port) == b"hello"
            reader, writer = await asyncio.open_unix_connection(path)
            assert (await Client(reader, writer).get())[1] == b"hello"
            writer.close()
        assert texts(error_log)[1:3] == [
            f"INFO Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)",
            f"INFO Uvicorn running on unix socket {path} (Press CTRL+C to quit)",
        ]

    run(test)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT here")
def test_reuse_port_lets_two_servers_listen_on_one_port(run: Run) -> None:
    async def test() -> None:
        async with serving(make(hello, lifespan="off", reuse_port=True)) as first:
            second = make(hello, lifespan="off", reuse_port=True, port=port_of(first))
            async with serving(second):
                assert port_of(second) == port_of(first)

    run(test)


@pytest.mark.parametrize("by_bind", [False, True])
def test_address_that_cannot_be_had_is_told_and_ends_with_3(
    by_bind: bool, run: Run, error_log: list[logging.LogRecord]
) -> None:
    app = Lived()

    async def test() -> None:
        with listening() as taken:
            port = taken.getsockname()[1]
            # Where there are several, those that could be had are given back.
            settings: dict[str, Any] = (
                {"bind": ["127.0.0.1:0", f"127.0.0.1:{port}"]} if by_bind else {"port": port}
            )
            server = make(app, **settings)
            with pytest.raises(SystemExit) as caught:
                await server.serve()
            assert caught.value.code == 3
            assert not server.started
            assert server.servers == []

    run(test)
    gc.collect()  # a socket left open would warn
    assert app.events == ["startup", "shutdown"]
    (line,) = texts(error_log, logging.ERROR)
    assert "address already in use" in line
    assert texts(error_log)[-2:] == [
        "INFO Waiting for application shutdown.",
        "INFO Application shutdown complete.",
    ]


def test_port_is_free_after_shutdown(run: Run) -> None:
    async def test() -> None:
        async with serving(make(hello, lifespan="off")) as server:
            port = port_of(server)
            assert await body_from(port) == b"hello"
        async with serving(make(hello, lifespan="off", port=port)) as server:
            assert port_of(server) == port

    run(test)


# --- the lines of a life ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_start_and_stop_are_told_in_order(mode: str, run: Run, error_log: list[logging.LogRecord]) -> None:
    app = Lived()

    async def test() -> None:
        async with serving(make(app, lifespan=mode)) as server:
            port = port_of(server)
            assert await body_from(port) == b"{'name': 'value'}"
        assert texts(error_log) == [
            f"INFO Started server process [{PID}]",
            "INFO Waiting for application startup.",
            "INFO Application startup complete.",
            f"INFO Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)",
            "INFO Shutting down",
            "INFO Waiting for application shutdown.",
            "INFO Application shutdown complete.",
            f"INFO Finished server process [{PID}]",
        ]

    run(test)
    assert app.events == ["startup", "shutdown"]


@pytest.mark.parametrize(
    ("mode", "startup"),
    [
        ("off", []),
        (
            "auto",
            [
                "INFO Waiting for application startup.",
                "INFO ASGI 'lifespan' protocol appears unsupported.",
                "INFO Application startup complete.",
            ],
        ),
    ],
)
def test_without_a_lifespan_the_stop_has_no_lines_of_the_application(
    mode: str, startup: list[str], run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        async with serving(make(hello, lifespan=mode)) as server:
            port = port_of(server)
        assert texts(error_log) == [
            f"INFO Started server process [{PID}]",
            *startup,
            f"INFO Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)",
            "INFO Shutting down",
            f"INFO Finished server process [{PID}]",
        ]

    run(test)


def test_waiting_is_told_once_for_each_thing(run: Run, error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        app = Slow()
        async with serving(make(app, lifespan="off")) as server, connected(port_of(server)) as client:
            client.request()
            await app.called.wait()
            server.should_exit = True
            await until(lambda: "to close" in texts(error_log)[-1])
            client.reset()
            await until(lambda: "background" in texts(error_log)[-1])
            app.goes_on.set()

    run(test)
    lines = texts(error_log)
    assert lines[lines.index("INFO Shutting down") :] == [
        "INFO Shutting down",
        "INFO Waiting for connections to close. (CTRL+C to force quit)",
        "INFO Waiting for background tasks to complete. (CTRL+C to force quit)",
        f"INFO Finished server process [{PID}]",
    ]


def test_trace_lines_of_a_connection(http: Any, run: Run, process_state: None) -> None:
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == TRACE_LOG_LEVEL:
                lines.append(record.getMessage())

    logging.getLogger("uvicorn.error").addHandler(Keeper())
    logging.getLogger("uvicorn.asgi").addHandler(Keeper())

    async def test() -> None:
        async with serving(make(hello, lifespan="off", http=http, log_level="trace")) as server:
            async with connected(port_of(server)) as client:
                await client.get()
                port = client.writer.get_extra_info("sockname")[1]
            await until(lambda: not server.server_state.connections)
        who = f"127.0.0.1:{port} - "
        assert [line.split(" scope=")[0].split(" {")[0] for line in lines] == [
            f"{who}HTTP connection made",
            f"{who}ASGI [1] Started",
            f"{who}ASGI [1] Send",
            f"{who}ASGI [1] Send",
            f"{who}ASGI [1] Completed",
            f"{who}HTTP connection lost",
        ]

    run(test)


def test_access_lines_are_written_before_the_end(
    run: Run, process_state: None, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test() -> None:
        async with (
            serving(make(hello, lifespan="off", log_config=LOGGING_CONFIG)) as server,
            connected(port_of(server)) as client,
        ):
            await client.get("/x?a=1")
            port = client.writer.get_extra_info("sockname")[1]
        assert capfd.readouterr().out == f'INFO:     127.0.0.1:{port} - "GET /x?a=1 HTTP/1.1" 200 OK\n'

    run(test)


# --- lifespans that end it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "mode"),
    [
        (Lived(startup=ValueError("no")), "on"),
        (hello, "on"),
    ],
    ids=["raises", "unsupported"],
)
def test_failed_startup_ends_the_server_before_it_listens(
    app: Any, mode: str, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        server = make(app, lifespan=mode)
        await server.serve()
        assert not server.started
        assert server.should_exit
        assert server.servers == []

    run(test)
    assert texts(error_log) == [
        f"INFO Started server process [{PID}]",
        "INFO Waiting for application startup.",
        "ERROR Exception in 'lifespan' protocol\n",
        "ERROR Application startup failed. Exiting.",
    ]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_failed_shutdown_is_told_and_the_server_ends(
    mode: str, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "not flushed"})

    async def test() -> None:
        async with serving(make(app, lifespan=mode)):
            pass

    run(test)
    assert texts(error_log)[-4:] == [
        "INFO Waiting for application shutdown.",
        "ERROR not flushed",
        "ERROR Application shutdown failed. Exiting.",
        f"INFO Finished server process [{PID}]",
    ]


class Stuck:
    """Never answers one of the two questions of its lifespan."""

    def __init__(self, question: str) -> None:
        self.question = question
        self.asked = asyncio.Event()
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            for name in ("startup", "shutdown"):
                await receive()
                if name == self.question:
                    self.asked.set()
                    await asyncio.Event().wait()
                await send({"type": f"lifespan.{name}.complete"})
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_stop_during_startup_gives_the_application_up(
    mode: str, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        app = Stuck("startup")
        server = make(app, lifespan=mode)
        task = asyncio.create_task(server.serve())
        await app.asked.wait()
        server.should_exit = True
        await task
        assert app.cancelled
        assert not server.started

    run(test)
    assert texts(error_log) == [
        f"INFO Started server process [{PID}]",
        "INFO Waiting for application startup.",
    ]


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
def test_stop_before_the_start_serves_nothing(mode: str, run: Run) -> None:
    app = Lived()

    async def test() -> None:
        server = make(app, lifespan=mode)
        server.should_exit = True
        await server.serve()
        assert not server.started

    run(test)
    assert app.events == []


def test_shutdown_of_the_application_has_its_time(run: Run, error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        app = Stuck("shutdown")
        async with serving(make(app, timeout_lifespan_shutdown=0.01)):
            pass
        assert app.cancelled

    run(test)
    assert texts(error_log)[-3:] == [
        "INFO Waiting for application shutdown.",
        "ERROR Application shutdown not complete after 0.01 seconds. Exiting.",
        f"INFO Finished server process [{PID}]",
    ]


def test_force_exit_does_not_wait_for_the_applications_shutdown(
    run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        app = Stuck("shutdown")
        async with serving(make(app)) as server:
            server.should_exit = True
            await app.asked.wait()
            server.force_exit = True
        assert app.cancelled

    run(test)
    assert texts(error_log, logging.WARNING) == []


def test_force_exit_asks_for_no_shutdown(run: Run, error_log: list[logging.LogRecord]) -> None:
    app = Lived()

    async def test() -> None:
        async with serving(make(app)) as server:
            server.force_exit = True

    run(test)
    assert app.events == ["startup", "cancelled"]
    assert texts(error_log)[-2:] == ["INFO Shutting down", f"INFO Finished server process [{PID}]"]


def test_configuration_that_cannot_be_loaded_ends_before_anything_starts(
    run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        with pytest.raises(SystemExit) as caught:
            await make("tests.no_such_module_anywhere:app").serve()
        assert caught.value.code == 3

    run(test)
    assert texts(error_log) == [
        'ERROR Error loading ASGI app. Could not import module "tests.no_such_module_anywhere".'
    ]


def test_subclass_that_serves_in_its_own_way_gets_a_loaded_configuration(run: Run) -> None:
    class Own(Server):
        async def serve(self, sockets: list[socket.socket] | None = None) -> None:
            await self._serve(sockets)

    async def test() -> None:
        async with serving(Own(make(hello).config)) as server:
            assert await body_from(port_of(server)) == b"hello"

    run(test)


# --- how it is told to stop --------------------------------------------------------------------------------------


def test_server_has_a_loop_only_once_it_serves(run: Run) -> None:
    async def test() -> None:
        server = make(hello)
        assert server.loop is None
        async with serving(server):
            assert server.loop is asyncio.get_running_loop()

    run(test)


def test_should_exit_can_be_taken_back_before_the_start() -> None:
    server = make(hello)
    server.should_exit = True
    server.should_exit = False
    assert not server.should_exit


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "auto", "none"])
def test_run_serves_in_a_thread_until_it_is_told_from_another_one(loop: str) -> None:
    before = {sig: signal.getsignal(sig) for sig in HANDLED_SIGNALS}
    server = make(hello, loop=loop)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        asyncio.run(until(lambda: server.started))
        assert {sig: signal.getsignal(sig) for sig in HANDLED_SIGNALS} == before
        assert httpx.get(f"http://127.0.0.1:{port_of(server)}/").text == "hello"
    finally:
        server.should_exit = True
        thread.join(LIMIT)
    assert not thread.is_alive()
    server.should_exit = True  # its loop is closed: nobody waits any more


def test_handle_exit_can_be_called_directly_in_a_thread() -> None:
    server = make(hello)
    thread = threading.Thread(target=server.run)
    thread.start()
    asyncio.run(until(lambda: server.started))
    server.handle_exit(signal.SIGTERM, None)
    thread.join(LIMIT)
    assert not thread.is_alive()


@pytest.mark.parametrize("sig", HANDLED_SIGNALS)
def test_signal_stops_the_server_and_then_reaches_the_host(sig: int, run: Run, received: list[int]) -> None:
    async def test() -> None:
        async with serving(make(hello)) as server:
            for each in HANDLED_SIGNALS:
                assert signal.getsignal(each) == server.handle_exit
            signal.raise_signal(sig)
            assert received == []
            assert server.should_exit
            assert not server.force_exit

    run(test)
    assert received == [sig]


def test_signals_reach_the_host_last_first(run: Run, received: list[int]) -> None:
    async def test() -> None:
        async with serving(make(hello)):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

    run(test)
    assert received == [signal.SIGINT, signal.SIGTERM]


def test_handlers_of_the_hosts_loop_see_the_signal(run: Run) -> None:
    async def test() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, told.set)
        try:
            async with serving(make(hello)):
                signal.raise_signal(signal.SIGTERM)
            await told.wait()
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    run(test)


@pytest.mark.parametrize(
    ("first", "second", "forced"),
    [
        (signal.SIGINT, signal.SIGINT, True),
        (signal.SIGTERM, signal.SIGINT, True),
        (signal.SIGINT, signal.SIGTERM, False),
        (signal.SIGTERM, signal.SIGTERM, False),
    ],
)
def test_second_interrupt_does_not_wait(first: int, second: int, forced: bool) -> None:
    server = make(hello)
    server.handle_exit(first, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(second, None)
    assert (server.should_exit, server.force_exit) == (True, forced)


def test_handlers_of_the_host_are_put_back_after_an_error(run: Run, received: list[int]) -> None:
    class Broken(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("no")

    async def test() -> None:
        with pytest.raises(ValueError, match="no"):
            await Broken(make(hello).config).serve()

    run(test)
    assert received == []  # the error is what the host sees


def test_several_servers_in_one_loop_are_independent(run: Run) -> None:
    async def test() -> None:
        apps = [Lived(), Lived()]
        async with serving(make(apps[0])) as first:
            async with serving(make(apps[1])) as second:
                assert port_of(first) != port_of(second)
                assert await body_from(port_of(second)) == b"{'name': 'value'}"
            assert apps[1].events == ["startup", "shutdown"]
            assert apps[0].events == ["startup"]
            assert await body_from(port_of(first)) == b"{'name': 'value'}"

    run(test)


def test_one_signal_stops_several_servers_in_one_loop(run: Run, received: list[int]) -> None:
    async def test() -> None:
        async with serving(make(hello)) as first, serving(make(hello)) as second:
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: second.should_exit and first.should_exit)

    run(test)
    assert received == [signal.SIGTERM]


def test_server_that_is_shut_down_from_outside_starts_again(run: Run) -> None:
    async def test() -> None:
        async with serving(make(hello, lifespan="off")) as server:
            port = server.config.port = port_of(server)
            for _ in range(2):
                async with connected(port) as idle:
                    assert (await idle.get())[1] == b"hello"
                    await server.shutdown()
                    assert await idle.gone() == b""
                await refused(port)
                await server.startup()
                assert await body_from(port) == b"hello"
                assert b"connection: close" not in (await once(port))[0]

    run(test)


async def once(port: int) -> tuple[bytes, bytes]:
    async with connected(port) as client:
        return await client.get()


def test_task_may_be_cancelled_after_shutdown(run: Run) -> None:
    async def test() -> None:
        server = make(hello)
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        await server.shutdown()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test)


def test_startup_of_a_subclass_wraps_ours(run: Run) -> None:
    started = []

    class Own(Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            started.append(port_of(self))

    async def test() -> None:
        async with serving(Own(make(hello).config)) as server:
            assert started == [port_of(server)]

    run(test)


# --- what is answered while it stops --------------------------------------------------------------------------------


def test_request_in_flight_is_answered_and_new_connections_are_refused(http: Any, run: Run) -> None:
    async def test() -> None:
        app = Slow()
        async with serving(make(app, lifespan="off", http=http)) as server:
            port = port_of(server)
            async with connected(port) as client:
                client.request()
                await app.called.wait()
                server.should_exit = True
                await refused(port)
                app.goes_on.set()
                head, body = await client.response()
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"\r\nconnection: close\r\n" in head.lower()
                assert body == b"late"
                assert await client.gone() == b""

    run(test)


def test_idle_connection_is_closed(http: Any, run: Run) -> None:
    async def test() -> None:
        async with (
            serving(make(hello, lifespan="off", http=http)) as server,
            connected(port_of(server)) as client,
        ):
            await client.get()
            server.should_exit = True
            assert await client.gone() == b""

    run(test)


def test_connections_that_the_kernel_has_taken_are_answered(http: Any, run: Run) -> None:
    async def test() -> None:
        async with serving(make(hello, lifespan="off", http=http)) as server:
            port = port_of(server)
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            # The event loop has not run since they came.
            assert not server.server_state.connections
            server.should_exit = True
        for client in clients:
            with client, client.makefile("rb") as file:
                answered = file.read()
            assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answered.endswith(b"\r\n\r\nhello")

    run(test)


def test_grace_period_ends_requests(http: Any, run: Run, error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        app = Slow()
        settings: Any = {"lifespan": "off", "http": http, "timeout_graceful_shutdown": 0.05}
        async with serving(make(app, **settings)) as server, connected(port_of(server)) as client:
            client.request()
            await app.called.wait()
            server.should_exit = True
            assert await client.gone() == b""
        assert isinstance(app.ended, asyncio.CancelledError)

    run(test)
    assert texts(error_log, logging.WARNING) == [
        "ERROR Cancel 1 running task(s), timeout graceful shutdown exceeded"
    ]


def test_grace_period_ends_connections_that_never_sent_a_whole_request(
    http: Any, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        settings: Any = {"lifespan": "off", "http": http, "timeout_graceful_shutdown": 0.05}
        async with serving(make(hello, **settings)) as server, connected(port_of(server)) as client:
            client.writer.write(b"GET / HT")
            (connection,) = await connections(server)
            await until(lambda: connection._head_pending)
            server.should_exit = True
            assert await client.gone() in (b"", b"reset")

    run(test)
    assert texts(error_log, logging.WARNING) == []


async def connections(server: Server, count: int = 1) -> set[Any]:
    await until(lambda: len(server.server_state.connections) == count)
    return server.server_state.connections


def test_streams_are_told_before_the_grace_period_ends(
    http: Any, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"bye"})

    async def test() -> None:
        settings: Any = {"lifespan": "off", "http": http, "timeout_graceful_shutdown": 1}
        async with serving(make(app, **settings)) as server, connected(port_of(server)) as client:
            client.request()
            await client.reader.readuntil(b"one\r\n")
            server.should_exit = True
            assert await client.gone() == b"3\r\nbye\r\n0\r\n\r\n"

    run(test)
    assert texts(error_log, logging.WARNING) == []


def test_force_exit_does_not_wait_for_requests(http: Any, run: Run) -> None:
    async def test() -> None:
        app = Slow()
        async with (
            serving(make(app, lifespan="off", http=http)) as server,
            connected(port_of(server)) as client,
        ):
            client.request()
            await app.called.wait()
            server.handle_exit(signal.SIGINT, None)
            server._captured_signals.clear()
            await refused(port_of(server)) if server.servers else None
            server.force_exit = True
            assert await client.gone() == b""
        assert isinstance(app.ended, asyncio.CancelledError)

    run(test)


def test_shutdown_delay_keeps_serving(run: Run, error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        async with serving(make(hello, lifespan="off", shutdown_delay=60)) as server:
            port = port_of(server)
            server.should_exit = True
            await until(lambda: "Serving on" in texts(error_log)[-1])
            assert await body_from(port) == b"hello"
            server.force_exit = True  # the second signal does not wait

    run(test)
    assert texts(error_log)[-3:] == [
        "INFO Serving on for 60 seconds before shutting down.",
        "INFO Shutting down",
        f"INFO Finished server process [{PID}]",
    ]


def test_shutdown_delay_ends(run: Run, error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        async with serving(make(hello, lifespan="off", shutdown_delay=0.01)):
            pass

    run(test)
    assert "INFO Serving on for 0.01 seconds before shutting down." in texts(error_log)


# --- limits -------------------------------------------------------------------------------------------------------


def test_limit_of_requests_ends_the_server(http: Any, run: Run, error_log: list[logging.LogRecord]) -> None:
    async def test() -> None:
        server = make(hello, lifespan="off", http=http, limit_max_requests=2)
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        async with connected(port_of(server)) as client:
            await client.get()
            assert not server.should_exit
            assert (await client.get())[1] == b"hello"
            assert await client.gone() == b""
        await task
        assert server.server_state.total_requests == 2

    run(test)
    assert texts(error_log, logging.WARNING) == [
        "WARNING Maximum request limit of 2 exceeded. Terminating process."
    ]


def test_limit_of_requests_lets_those_in_flight_end(http: Any, run: Run) -> None:
    async def test() -> None:
        slow = Slow()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await (slow if scope["path"] == "/slow" else hello)(scope, receive, send)

        server = make(app, lifespan="off", http=http, limit_max_requests=1)
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        async with connected(port_of(server)) as first, connected(port_of(server)) as second:
            first.request("/slow")
            await slow.called.wait()
            await second.get()
            await until(lambda: not server.servers)
            slow.goes_on.set()
            assert (await first.response())[1] == b"late"
        await task

    run(test)


UNAVAILABLE = b"content-type: text/plain; charset=utf-8\r\ncontent-length: 19\r\nconnection: close\r\n\r\nService Unavailable"


async def unavailable(client: Client) -> None:
    """The client asks once more, and is told that the server has enough to do."""
    client.request()
    head, _, rest = (await client.gone()).partition(b"server: uvicorn\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\ndate: ")
    assert rest.lower() == UNAVAILABLE.lower()


def test_limit_of_concurrency_counts_connections(
    http: Any, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        app = Slow()
        async with serving(make(app, lifespan="off", http=http, limit_concurrency=2)) as server:
            port = port_of(server)
            async with connected(port), connected(port) as second:
                await connections(server, 2)
                await unavailable(second)
        assert not app.called.is_set()

    run(test)
    assert texts(error_log, logging.WARNING) == ["WARNING Exceeded concurrency limit."]


def test_limit_of_concurrency_counts_calls_that_still_run(
    http: Any, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        ends = asyncio.Event()
        calls = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            calls.append(scope["path"])
            await answer(send, b"")
            await ends.wait()

        async with serving(make(app, lifespan="off", http=http, limit_concurrency=2)) as server:
            async with connected(port_of(server)) as client:
                await client.get()
                await client.get()
                await unavailable(client)
            assert len(calls) == 2
            ends.set()

    run(test)
    assert texts(error_log, logging.WARNING) == ["WARNING Exceeded concurrency limit."]


# --- headers --------------------------------------------------------------------------------------------------------

DATE = re.compile(
    rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) "
    rb"\d{4} \d\d:\d\d:\d\d GMT"
)


def test_default_headers_are_the_date_then_the_configured_ones(http: Any, run: Run) -> None:
    assert ServerState().default_headers == []

    async def test() -> None:
        headers = [("X-A", "1"), ("x-b", "2")]
        async with serving(make(hello, lifespan="off", http=http, headers=headers)) as server:
            (name, date), *others = server.server_state.default_headers
            assert name == b"date"
            assert DATE.fullmatch(date)
            assert others == [(b"server", b"uvicorn"), (b"x-a", b"1"), (b"x-b", b"2")]
            head, _ = await once(port_of(server))
            status, first, *lines = head.split(b"\r\n")
            assert status == b"HTTP/1.1 200 OK"
            assert DATE.fullmatch(first.removeprefix(b"date: "))
            assert lines == [b"server: uvicorn", b"x-a: 1", b"x-b: 2", b"content-length: 5", b"", b""]

    run(test)


def test_default_headers_can_be_switched_off(http: Any, run: Run) -> None:
    async def test() -> None:
        settings: Any = {"lifespan": "off", "http": http, "date_header": False, "server_header": False}
        async with serving(make(hello, **settings)) as server:
            assert server.server_state.default_headers == []
            assert await once(port_of(server)) == (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"hello")

    run(test)


def test_date_is_renewed(run: Run) -> None:
    async def test() -> None:
        async with serving(make(hello, lifespan="off", timeout_keep_alive=0.2)) as server:
            before = server.server_state.default_headers
            server._ticker._date_second = 0  # type: ignore[union-attr] # another second
            await until(lambda: server.server_state.default_headers is not before)

    run(test)


# --- the ticker -----------------------------------------------------------------------------------------------------


def test_callback_is_called_at_the_start_and_again(run: Run) -> None:
    async def test() -> None:
        called = 0

        async def callback() -> None:
            nonlocal called
            called += 1

        settings: Any = {"callback_notify": callback, "timeout_notify": 0, "timeout_keep_alive": 0.2}
        async with serving(make(hello, lifespan="off", **settings)) as server:
            assert server.last_notified > 0
            await until(lambda: called >= 3)

    run(test)


def test_callback_is_not_called_more_often_than_asked_for(run: Run) -> None:
    async def test() -> None:
        called = []

        async def callback() -> None:
            called.append(server.last_notified)

        server = make(hello, lifespan="off", callback_notify=callback, timeout_keep_alive=0.2)
        ticks = []
        server.hooks = TickHooks(ticks)
        async with serving(server):
            await until(lambda: len(ticks) >= 4)
        assert len(called) == 1

    run(test)


class TickHooks(ServerHooks):
    """Counts the ticks."""

    def __init__(self, ticks: list[float]) -> None:
        self.ticks = ticks

    def tick(self, server: Server, now: float) -> None:
        assert server.server_state.now == now
        self.ticks.append(now)


def failing_at_once() -> Awaitable[None]:
    raise ValueError("no")


async def failing_later() -> None:
    raise ValueError("no")


@pytest.mark.parametrize("callback", [failing_at_once, failing_later])
def test_callback_that_fails_is_told_and_called_again(
    callback: Any, run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        settings: Any = {"callback_notify": callback, "timeout_notify": 0, "timeout_keep_alive": 0.2}
        async with serving(make(hello, lifespan="off", **settings)):
            await until(lambda: len(texts(error_log, logging.ERROR)) >= 2)

    run(test)
    assert set(texts(error_log, logging.ERROR)) == {"ERROR callback_notify has failed."}


def test_connection_is_closed_at_its_deadline(http: Any, run: Run) -> None:
    async def test() -> None:
        settings: Any = {"http": http, "timeout_keep_alive": 0.2, "timeout_request_head": 0.2}
        async with serving(make(hello, lifespan="off", **settings)) as server:
            async with connected(port_of(server)) as client:
                await client.get()
                assert await client.gone() == b""
            async with connected(port_of(server)) as client:
                assert await client.gone() == b""

    run(test)


class OwnProtocol(asyncio.Protocol):
    """An HTTP class that knows only the documented part: it is told to shut down, and nothing else."""

    deadline = float("inf")
    expired = 0

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self.server_state = server_state

    def connection_made(self, transport: Any) -> None:
        self.link = transport
        self.server_state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server_state.connections.discard(self)

    def shutdown(self) -> None:
        self.link.write(b"bye")
        self.link.close()

    def expire(self, now: float) -> None:
        type(self).expired += 1
        raise ValueError("no")


def test_protocol_class_of_the_users_own_is_told_to_shut_down(run: Run) -> None:
    async def test() -> None:
        async with (
            serving(make(hello, lifespan="off", http=OwnProtocol)) as server,
            connected(port_of(server)) as client,
        ):
            await connections(server)
            server.should_exit = True
            assert await client.gone() == b"bye"

    run(test)


def test_connection_whose_deadline_fails_does_not_stop_the_ticker(
    run: Run, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        OwnProtocol.expired = 0
        settings: Any = {"http": OwnProtocol, "timeout_keep_alive": 0.2}
        async with (
            serving(make(hello, lifespan="off", **settings)) as server,
            connected(port_of(server)) as client,
        ):
            (connection,) = await connections(server)
            connection.deadline = 0.0
            await until(lambda: OwnProtocol.expired >= 2)
            connection.link.close()
            assert await client.gone() == b""

    run(test)
    assert set(texts(error_log, logging.ERROR)) == {"ERROR A connection's deadline could not be handled."}


# --- subclasses -----------------------------------------------------------------------------------------------------


def test_a_subclass_that_overrides_on_tick_is_asked_and_may_end_the_server(run: Run) -> None:
    class Ticking(Server):
        counters: list[int] = []

        async def on_tick(self, counter: int) -> bool:
            self.counters.append(counter)
            return counter == 3 or await super().on_tick(counter)

    async def test() -> None:
        server = Ticking(Config(hello, port=0, log_config=None, lifespan="off"))
        await server.serve()
        assert server.started
        assert server.counters == [0, 1, 2, 3]

        server = Ticking(Config(hello, port=0, log_config=None, lifespan="off"))
        server.counters = []
        async with serving(server):
            server.should_exit = True
        assert server.counters[-1] < 3

    run(test)


# --- context variables ----------------------------------------------------------------------------------------------

VISITS = ContextVar("VISITS", default="fresh")
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


async def visited(scope: Any, receive: Any, send: Any) -> None:
    seen = VISITS.get()
    VISITS.set("of the last request")
    await answer(send, seen.encode())


@pytest.mark.parametrize(("reset", "seen"), [(False, b"of the server"), (True, b"fresh")])
@pytest.mark.parametrize("eager", [False, True])
def test_context_of_a_request_is_a_copy_of_the_servers_or_empty(
    reset: bool, seen: bytes, eager: bool, run: Run, http: Any
) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        if eager:
            if sys.version_info < (3, 12):
                pytest.skip("eager tasks came with Python 3.12")
            if not isinstance(loop, asyncio.SelectorEventLoop):
                pytest.skip("uvloop gives the factory an argument that it does not know")
            loop.set_task_factory(asyncio.eager_task_factory)
        VISITS.set("of the server")
        server = make(visited, http=http, lifespan="off", reset_contextvars=reset)
        async with serving(server), connected(port_of(server)) as client:
            assert (await client.get())[1] == seen
            assert (await client.get())[1] == seen
        loop.set_task_factory(None)  # the end of an event loop does not work with one

    run(test)


@pytest.mark.parametrize("limit", [None, 50])
def test_a_pipelined_request_does_not_see_what_the_one_before_has_set(
    limit: int | None, run: Run, http: Any
) -> None:
    async def test() -> None:
        VISITS.set("of the server")
        async with serving(make(visited, http=http, lifespan="off", limit_concurrency=limit)) as server:
            async with connected(port_of(server)) as client, connected(port_of(server)) as other:
                post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
                client.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3 + post + b"x")
                other.request()
                found = [await client.response() for _ in range(4)] + [await other.response()]
            assert [body for _, body in found] == [b"of the server"] * 5

    run(test)


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_a_websocket_does_not_see_what_the_request_in_front_of_it_has_set(
    ws: str, run: Run, http: Any
) -> None:
    seen: list[str] = []

    async def either(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await visited(scope, receive, send)
            return
        seen.append(VISITS.get())
        await receive()
        await send({"type": "websocket.close"})

    async def test() -> None:
        VISITS.set("of the server")
        async with serving(make(either, http=http, lifespan="off", ws=ws)) as server:
            for _ in range(2):
                async with connected(port_of(server)) as client:
                    client.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + UPGRADE)
                    assert (await client.response())[1] == b"of the server"
                    await client.reader.read()
        assert seen == ["of the server"] * 2

    run(test)


# --- hooks ----------------------------------------------------------------------------------------------------------


class Acceptor:
    """Stands in for a server object that accepts in its own way."""

    attaching = 0

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.sockets = ()

    def empty_queue(self) -> None:
        self.calls.append("empty_queue")

    def close(self) -> None:
        self.calls.append("close")

    def end_attaching(self, seconds: float) -> None:
        self.calls.append(f"end_attaching {seconds}")

    def abort_attaching(self) -> None:
        self.calls.append("abort_attaching")


class OwnHooks(ServerHooks):
    """Notes what it is told, and is asked."""

    def __init__(self, acceptor: Any = None) -> None:
        self.calls: list[str] = []
        self.is_final = False
        self.own_acceptor = acceptor

    def final(self) -> bool:
        return self.is_final

    def acceptor(
        self, server: Server, sock: socket.socket, factory: Callable[[], Any], open_server: Any
    ) -> Any:
        assert factory().server_state is server.server_state
        return self.own_acceptor

    def started(self, server: Server) -> None:
        self.calls.append(f"started {server.started}")

    def stopped_accepting(self, server: Server) -> None:
        self.calls.append(f"stopped_accepting {len(server.servers)}")

    def finished(self, server: Server) -> None:
        self.calls.append(f"finished {len(server.server_state.connections)}")

    def request_limit_reached(self, server: Server, limit: int) -> None:
        self.calls.append(f"request_limit_reached {limit}")


@pytest.mark.parametrize("final", [False, True])
def test_acceptor_of_the_hooks_is_used_and_emptied_where_nobody_else_would(final: bool, run: Run) -> None:
    async def test() -> None:
        acceptor = Acceptor()
        server = make(hello, lifespan="off")
        server.hooks = hooks = OwnHooks(acceptor)
        hooks.is_final = final
        with listening() as sock:
            async with serving(server, [sock]):
                assert server.servers == [acceptor]
        given_time = [f"end_attaching {HANDSHAKE_GRACE}"] if final else []
        emptied = ["empty_queue"] if final else []
        assert acceptor.calls == [*emptied, "close", *given_time, "abort_attaching"]
        assert hooks.calls == ["started True", "stopped_accepting 0", "finished 0"]

    run(test)


@pytest.mark.parametrize("final", [False, True])
def test_what_was_accepted_and_is_not_set_up_yet_is_waited_for(
    final: bool, run: Run, error_log: list[logging.LogRecord]
) -> None:
    class Late:
        def __init__(self) -> None:
            self.drained: list[bool] = []

        def drain(self, final: bool) -> None:
            self.drained.append(final)

    async def test() -> None:
        late = Late()
        gate = Acceptor()
        gate.attaching = 1
        server = make(hello, lifespan="off")
        server.hooks = hooks = OwnHooks(gate)
        hooks.is_final = final
        with listening() as sock:
            async with serving(server, [sock]):
                server.should_exit = True
                await until(lambda: "to close" in texts(error_log)[-1])
                drained = late.drained
                server.server_state.connections.add(late)
                await until(lambda: drained)
                gate.attaching = 0
                server.server_state.connections.clear()
        assert set(drained) == {final}
        assert hooks.calls[-1] == "finished 0"

    run(test)


def test_idle_connection_is_kept_until_the_whole_service_stops(http: Any, run: Run) -> None:
    async def test() -> None:
        server = make(hello, lifespan="off", http=http)
        server.hooks = hooks = OwnHooks()
        async with serving(server), connected(port_of(server)) as client:
            await client.get()
            server.should_exit = True
            await until(lambda: "stopped_accepting 0" in hooks.calls)
            head, _body = await client.get()  # it has its chance, and it is the last one
            assert b"\r\nconnection: close\r\n" in head.lower()
            assert await client.gone() == b""
        assert hooks.calls[-1] == "finished 0"

    run(test)


def test_stop_of_the_whole_service_closes_idle_connections_that_were_kept(http: Any, run: Run) -> None:
    async def test() -> None:
        server = make(hello, lifespan="off", http=http, timeout_keep_alive=60)
        server.hooks = hooks = OwnHooks()
        async with serving(server), connected(port_of(server)) as client:
            await client.get()
            server.should_exit = True
            await until(lambda: "stopped_accepting 0" in hooks.calls)
            hooks.is_final = True
            assert await client.gone() == b""

    run(test)


def test_limit_of_requests_is_the_hooks_to_decide(run: Run) -> None:
    async def test() -> None:
        server = make(hello, lifespan="off", limit_max_requests=1, limit_max_requests_jitter=0)
        server.hooks = hooks = OwnHooks()
        async with serving(server):
            await once(port_of(server))
            await until(lambda: "request_limit_reached 1" in hooks.calls)
            assert not server.should_exit

    run(test)


def test_address_is_known_where_there_is_just_one(run: Run) -> None:
    async def test() -> None:
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["server"])
            await answer(send, b"")

        for host, known in (("127.0.0.1", True), ("0.0.0.0", False)):
            server = make(app, lifespan="off", host=host)
            async with serving(server):
                port = port_of(server)
                assert server.server_state.address == (("127.0.0.1", port) if known else None)
                await once(port)
                assert seen.pop() == ("127.0.0.1", port)

    run(test)

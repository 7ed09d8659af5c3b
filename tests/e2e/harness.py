"""Starts the real command in a session of its own, talks to it, and ends whatever is left of the session."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).parents[2]

# Where the tests run as root, most of what they start does, too, and says so; test_privileges.py has what happens to who
# does not.
AS_ROOT = {"UVICORN_USER": "root"} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}

# Ten times what a condition usually takes: on a busy machine a test may be slow, but must not fail.
PATIENCE = 30.0
POLL = 0.02

APP = """
import asyncio, os, time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await asyncio.sleep(float(os.environ.get("STARTUP", "0")))
                await send({"type": "lifespan.startup.complete"})
            else:
                await asyncio.sleep(float(os.environ.get("SHUTDOWN", "0")))
                print("lifespan shutdown", os.getpid(), flush=True)
                await send({"type": "lifespan.shutdown.complete"})
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                print("websocket gone", message["code"], flush=True)
                return
            await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
    await ROUTES.get(scope["path"], pid)(scope, receive, send)

async def answer(send, body, status=200):
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

async def pid(scope, receive, send):
    await answer(send, f"{os.getpid()} {VERSION}".encode())

async def slow(scope, receive, send):
    await asyncio.sleep(float(scope["query_string"] or b"0.5"))
    await answer(send, b"slow answer")

async def held(scope, receive, send):
    with open("held", "a") as file:
        file.write(".")
    while not os.path.exists("released"):
        await asyncio.sleep(0.01)
    await answer(send, b"held answer")

async def block(scope, receive, send):
    print("blocked", flush=True)
    time.sleep(float(scope["query_string"] or b"1000"))
    await answer(send, b"unblocked")

async def hold_gil(scope, receive, send):
    import ctypes
    ctypes.PyDLL(None).sleep(int(scope["query_string"] or b"1000"))
    await answer(send, b"released")

async def leave(scope, receive, send):
    os._exit(int(scope["query_string"] or b"1"))

async def stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    task = asyncio.ensure_future(receive_disconnect(receive))
    while not task.done():
        await send({"type": "http.response.body", "body": b"tick\\n", "more_body": True})
        await asyncio.wait([task], timeout=0.05)
    print("stream saw disconnect", flush=True)
    await send({"type": "http.response.body", "body": b"bye\\n"})

async def receive_disconnect(receive):
    while (await receive())["type"] != "http.disconnect":
        pass

async def echo(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await answer(send, body)

VERSION = "v1"
ROUTES = {
    "/slow": slow, "/held": held, "/block": block, "/gil": hold_gil, "/exit": leave, "/stream": stream, "/echo": echo,
}
"""


def wait_for(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """The condition's value, once it is true."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not seen in {patience:g} s: {what}"
        time.sleep(POLL)


class Service:
    """One running server.

    Args:
        directory: Where it runs; `app.py` is written there unless it exists.
        arguments: The command line after the app.
        app: The app's import string, or "" to leave it out.
        environ: More environment variables.
        through: A command that runs the server's in its place, by exec.
        pass_fds: Descriptors that it inherits.
        module: What is run with `python -m`.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        app: str = "app:app",
        environ: dict[str, str] | None = None,
        through: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        module: str = "uvicorn",
    ) -> None:
        self.directory = directory
        if not (directory / "app.py").exists():
            (directory / "app.py").write_text(APP)
        self._log_path = directory / f"log-{time.monotonic_ns()}"
        self._log_file = self._log_path.open("wb")
        # The tests themselves may have been started by systemd. Unbuffered, what an application prints would be written
        # in pieces, and the lines of two workers would come into one another.
        ours = ("UVICORN_", "LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET", "FDSTORE", "PYTHONUNBUFFERED")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        command = [*through, sys.executable, "-m", module, *([app] if app else []), *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
            env={
                **inherited,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                **AS_ROOT,
                **(environ or {}),
            },
            start_new_session=True,
            pass_fds=pass_fds,
        )

    # --- what it says ------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def wait_log(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until the log has the pattern this many times; the last match."""

        def found() -> re.Match[str] | None:
            matches = list(re.finditer(pattern, self.log))
            return matches[count - 1] if len(matches) >= count else None

        try:
            return wait_for(found, f"{count} x {pattern!r} in the log")  # type: ignore[no-any-return]
        except AssertionError:
            raise AssertionError(f"not in the log {count} times: {pattern!r}\n{self.log}") from None

    @property
    def port(self) -> int:
        return int(self.wait_log(r"Uvicorn running on https?://[^ ]*:(\d+)")[1])

    def wait_ready(self, workers: int) -> Service:
        """Wait until this many workers have said that they are ready."""
        self.wait_log(r"worker=\d+ gen=\d+ pid=\d+ ready", workers)
        return self

    def wait_serving(self) -> Service:
        self.wait_log("Application startup complete|appears unsupported")
        wait_for(lambda: self.request("/").status == 200, "an answer")
        return self

    # --- processes ---------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self.process.pid

    def workers(self) -> dict[int, str]:
        """The live children and their titles."""
        found = {}
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found[child.pid] = " ".join(child.cmdline()).strip()
        return found

    def session(self) -> list[int]:
        """Every live process of the session."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_exit(self, patience: float = PATIENCE) -> int:
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {patience:g} s\n{self.log}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it in order; nothing may be left."""
        self.send_signal(number)
        code = self.wait_exit()
        wait_for(lambda: not self.session(), "the end of every process of the session")
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._log_file.close()
        if failure[0] is not None:
            sys.stderr.write(self.log)

    # --- requests ----------------------------------------------------------------------------

    def request(self, path: str, method: str = "GET", body: bytes | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        except OSError:
            return Answer(0, {}, b"")
        finally:
            connection.close()

    def hold(self, *clients: socket.socket) -> None:
        """Ask for `/held` on each, and wait until the application has them all: they are in flight until `release`."""
        for client in clients:
            client.sendall(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        held = self.directory / "held"
        wait_for(lambda: held.exists() and held.stat().st_size >= len(clients), "the requests in flight")

    def release(self) -> None:
        """Have what is held answered, with `held answer`."""
        (self.directory / "released").touch()

    def serving_pid(self) -> int:
        return int(self.request("/").body.split()[0])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body


def read_response(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One response with a Content-Length, or up to the end of the connection; status 0 where there is none."""
    response = http.client.HTTPResponse(sock)
    try:
        response.begin()
        return (
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
    except (http.client.HTTPException, OSError):
        return 0, {}, b""


@contextlib.contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """The file with a replacement in it; put back afterwards."""
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))
    try:
        yield
    finally:
        path.write_text(before)

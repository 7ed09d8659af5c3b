"""Many requests in one turn of the event loop: whatever the applications do, each is answered as if it were alone.

The server stands still until all requests have come, and finds them together.
"""

from __future__ import annotations

import os
import random
import signal
import socket
from pathlib import Path

import pytest

from tests.e2e.harness import Service, read_response, wait_for

CONNECTIONS = 150
ROUNDS = 6
KINDS = ("plain", "plain", "plain", "waits", "times_out", "has_children", "fails", "sets", "sets_and_waits")

APP = """
import asyncio
import contextvars

variable = contextvars.ContextVar("variable", default=None)
tasks = []


async def plain():
    pass


async def waits():
    await asyncio.sleep(0)


async def times_out():
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(1000)
    except TimeoutError:
        return
    raise AssertionError("no timeout")


async def has_children():
    async with asyncio.TaskGroup() as group:
        children = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
    assert [child.result() for child in children] == [0, 1, 2]


async def fails():
    raise RuntimeError("meant to fail")


async def sets():
    variable.set("set")


async def sets_and_waits():
    variable.set("set")
    await asyncio.sleep(0.01)
    assert variable.get() == "set"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    assert variable.get() is None, "another request's context"
    task = asyncio.current_task()
    assert task in asyncio.all_tasks()
    assert task not in tasks, "another request's task"
    tasks.append(task)
    try:
        await globals()[scope["query_string"].decode()]()
        assert asyncio.current_task() is task, "another task goes on"
    finally:
        tasks.remove(task)
        del task
    body = scope["query_string"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


def unread(sock: socket.socket) -> bool:
    """Whether what was sent waits at the server."""
    with open("/proc/net/tcp") as table:
        here = f":{sock.getpeername()[1]:04X} 0100007F:{sock.getsockname()[1]:04X} "
        return any(here in line and not line.split()[4].endswith(":00000000") for line in table)


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="what waits is told by /proc")
@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_every_request_of_many_is_answered_as_if_it_were_alone(tmp_path: Path, http: str, loop: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    chance = random.Random(7)
    with Service(tmp_path, "--port", "0", "--http", http, "--loop", loop) as service:
        service.wait_log("Application startup complete")
        clients = [service.connect() for _ in range(CONNECTIONS)]
        for _ in range(ROUNDS):
            kinds = chance.choices(KINDS, k=CONNECTIONS)
            service.send_signal(signal.SIGSTOP)
            for client, kind in zip(clients, kinds, strict=True):
                client.sendall(b"GET /?%b HTTP/1.1\r\nHost: a\r\n\r\n" % kind.encode())
            last = clients[-1]
            wait_for(lambda sock=last: unread(sock), "requests that wait at the server")
            service.send_signal(signal.SIGCONT)
            for number, kind in enumerate(kinds):
                status, _, body = read_response(clients[number])
                if kind == "fails":
                    assert (status, body) == (500, b"Internal Server Error")
                    clients[number].close()
                    clients[number] = service.connect()
                else:
                    assert (status, body) == (200, kind.encode())
        service.send_signal(signal.SIGTERM)
        assert service.wait_exit() == -signal.SIGTERM  # raised again for whoever waits
        log = service.log
        for client in clients:
            client.close()
    assert log.count("RuntimeError: meant to fail") == log.count("Traceback")
    assert "AssertionError" not in log

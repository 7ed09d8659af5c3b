"""Clients that ask as fast as they are answered, and count what goes wrong. Run in a thread beside the test."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self

REQUEST = b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n"


class Load:
    """Load on one port while the `with` block runs.

    Args:
        port: Where.
        clients: How many at the same time.
        keep_alive: Whether a client keeps its connection as long as the server lets it.
        path: What to ask for.
        tls: How to speak TLS, for "localhost".

    Attributes:
        answers: How many good answers there were.
        failures: What went wrong, and how often: "refused", "fresh" (a new connection gave no answer), "stale" (a
            kept one did not), "cut" (in the middle of an answer), or the status.
    """

    def __init__(
        self,
        port: int,
        clients: int = 8,
        keep_alive: bool = True,
        path: str = "/",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answers = 0
        self.failures: Counter[str] = Counter()
        self._port = port
        self._clients = clients
        self._tls: dict[str, Any] = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
        self._keep_alive = keep_alive
        self._request = REQUEST % (path.encode(), b"" if keep_alive else b"Connection: close\r\n")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._clients)))

    async def _client(self) -> None:
        while not self._stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, **self._tls)
            except OSError:
                self.failures["refused"] += 1
                await asyncio.sleep(0.01)
                continue
            try:
                await self._requests(reader, writer)
            finally:
                writer.close()
                if self._tls:
                    # TLS says goodbye first, and waits for an answer, also when the loop is about to end.
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used = False
        answered = time.monotonic()
        while not self._stop.is_set():
            head = b""
            asked = time.monotonic()
            try:
                writer.write(self._request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError):
                kind = "cut" if head else "stale" if used else "fresh"
                self.failures[kind] += 1
                now = time.monotonic()
                print(
                    f"{kind}: asked {asked - answered:.3f} s after the last answer, and waited {now - asked:.3f} s"
                )
                return
            status = head.split(b" ")[1].decode()
            if status == "200":
                self.answers += 1
            else:
                self.failures[status] += 1
            if b"connection: close" in head.lower():
                return
            used = True
            answered = time.monotonic()

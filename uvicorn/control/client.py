"""The other end of the control socket: HTTP over a UNIX connection."""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

# While the queue of the control socket is full, it is tried again after so many seconds.
RETRY = 0.05


class Unreachable(Exception):
    """Nobody answers; the text says why, and what to do."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        give_up_at = time.monotonic() + (float("inf") if self.timeout is None else self.timeout)
        while True:
            try:
                self.sock.connect(self._path)
            except BlockingIOError:
                # The queue is full. Linux waits for room only on a socket without a timeout.
                if time.monotonic() >= give_up_at:
                    raise TimeoutError from None
                time.sleep(RETRY)  # noqa: TID251 - a command, without an event loop
            else:
                return


class Client:
    """One conversation with a service.

    Args:
        path: The control socket.
        timeout: Seconds to wait for an answer; None for ever.
    """

    def __init__(self, path: str, timeout: float | None) -> None:
        self._path = path
        self._connection = _UnixConnection(path, timeout)

    def ask(self, method: str, path: str, content: Any = None) -> tuple[int, Any]:
        """The status and the content of the answer.

        Raises:
            Unreachable: There is none.
        """
        body = None if content is None else json.dumps(content).encode()
        try:
            self._connection.request(method, path, body)
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except FileNotFoundError:
            why = "there is no such socket; is the service running, with --control-socket?"
        except ConnectionRefusedError:
            # The system says the same of a file of any other kind.
            is_socket = Path(self._path).is_socket()
            why = "nobody listens; the service has ended." if is_socket else "this is no socket."
        except PermissionError:
            why = "permission denied; run this as the service's user or as root."
        except TimeoutError:
            why = "no answer in time; a longer --timeout waits longer, and the log has the outcome."
        except (OSError, http.client.HTTPException, ValueError) as exc:
            why = f"no answer ({type(exc).__name__}: {exc})."
        self.close()
        raise Unreachable(f"{self._path}: {why}")

    def wait_end(self) -> bool:
        """Wait until the service ends; whether it has in time."""
        try:
            self._connection.request("GET", "/v1/end")
            self._connection.getresponse().read()
        except TimeoutError:
            return False
        except (OSError, http.client.HTTPException):
            pass  # gone before it could say so
        return True

    def close(self) -> None:
        self._connection.close()

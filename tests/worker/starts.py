"""What a worker is started with, for tests: real shared memory, a real channel, and nobody but the test as its master."""

from __future__ import annotations

import os
import socket
from typing import Any

from uvicorn._ipc.channel import Message, Receiver, Sender, channel_pair
from uvicorn._ipc.scoreboard import Scoreboard
from uvicorn._ipc.start import WorkerStart


class Started:
    """A worker's start, and the master's side of it."""

    def __init__(self, **changes: Any) -> None:
        ours, theirs = channel_pair()
        self.receiver = Receiver(ours)
        self.board = Scoreboard()
        self.row = self.board.take()
        fields: dict[str, Any] = {
            "wid": 7,
            "slot": 2,
            "generation": 3,
            "size": 4,
            "row": self.row,
            "scoreboard": self.board,
            "sender": Sender(theirs),
            "sockets": [],
            "reuse_port": False,
            "target": lambda sockets: None,
            "master_pid": os.getppid(),
            "title": "app:app",
            "healthcheck": 5.0,
            "watched": True,
            "first": False,
            "failure_token": -1,
        }
        self.start = WorkerStart(**{**fields, **changes})

    def told(self) -> list[Message]:
        """What the worker has said since the last call."""
        return self.receiver.receive()[0]

    def close_master_end(self) -> None:
        self.receiver.sock.shutdown(socket.SHUT_RDWR)
        self.receiver.sock.close()

    def close(self) -> None:
        self.receiver.sock.close()
        self.start.sender.sock.close()
        os.close(self.board.fd)

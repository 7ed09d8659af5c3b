"""What is given up is closed, whatever the system says to it."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from uvicorn._closing import close_quietly


class Complaining(socket.socket):
    """A socket whose close(2) tells an error, and has closed it."""

    def close(self) -> None:
        super().close()
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_all_are_closed_though_one_complains() -> None:
    first, second = Complaining(), socket.socket()
    fd = os.dup(second.fileno())
    close_quietly(first, -1, fd, second)
    assert first.fileno() == second.fileno() == -1
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)


def test_a_mistake_is_no_trouble_of_the_systems() -> None:
    with pytest.raises(AttributeError):
        close_quietly(None)  # type: ignore[arg-type]

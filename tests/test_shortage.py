"""What is said when asyncio finds no descriptor for a connection, and what is left to others."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from uvicorn.loops.shortage import OVER, ShortageHandler, hand_back, handle_shortage

MESSAGE = "socket.accept() out of system resource"


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time the test moves."""

    now = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Any] = []

    def time(self) -> float:
        return self.now

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.left.append(context)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def short(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_shortage_is_one_line_however_long_it_lasts(
    loop: Loop, number: int, error_log: list[logging.LogRecord]
) -> None:
    handle_shortage(loop)
    for _ in range(30):
        for _ in range(100):
            loop.call_exception_handler({"message": MESSAGE, "exception": short(number)})
        loop.now += 1
    assert len(error_log) == 1
    assert os.strerror(number) in error_log[0].getMessage()
    assert error_log[0].exc_info is None
    loop.now += OVER + 1
    loop.call_exception_handler({"message": MESSAGE, "exception": short(number)})
    assert len(error_log) == 2
    assert loop.left == []


@pytest.mark.parametrize(
    "context",
    [
        {"message": "Task exception was never retrieved", "exception": ValueError()},
        {"message": "Task exception was never retrieved", "exception": short(errno.EMFILE)},
        {"message": MESSAGE, "exception": short(errno.EBADF)},
        {"message": "unclosed"},
    ],
)
def test_everything_else_is_the_loops(loop: Loop, context: dict[str, Any]) -> None:
    handle_shortage(loop)
    loop.call_exception_handler(context)
    assert loop.left == [context]


def test_a_handler_that_somebody_has_set_stays(loop: Loop) -> None:
    seen: list[Any] = []

    def own(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        seen.append(context)

    loop.set_exception_handler(own)
    handle_shortage(loop)
    loop.call_exception_handler({"message": MESSAGE, "exception": short(errno.EMFILE)})
    assert len(seen) == 1
    hand_back(loop)
    assert loop.get_exception_handler() is own


def test_the_loop_is_handed_back_as_it_was(loop: Loop) -> None:
    handle_shortage(loop)
    assert isinstance(loop.get_exception_handler(), ShortageHandler)
    hand_back(loop)
    assert loop.get_exception_handler() is None

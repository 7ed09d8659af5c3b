"""What connections work out once of the configuration."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Any

import pytest

from tests.fakes.loop import FakeLoop
from uvicorn.config import Config
from uvicorn.protocols._access import RecordAccessLog
from uvicorn.protocols._context import ConnectionContext, ProtocolConfig
from uvicorn.protocols._state import ServerState


async def app(scope: Any, receive: Any, send: Any) -> None:
    pass


def context_of(loop: Any = None, state: ServerState | None = None, **settings: Any) -> ConnectionContext:
    config = Config(app, log_config=None, proxy_headers=False, **settings)
    config.load()
    return ConnectionContext(config, state or ServerState(), loop or FakeLoop())


def test_configuration_is_one_that_protocols_know() -> None:
    config: ProtocolConfig = Config(app, log_config=None)
    assert not config.loaded


def test_context_has_the_loaded_application() -> None:
    context = context_of()
    assert context.app is context.config.loaded_app
    assert context.asgi_version == "3.0"
    assert context.logger is logging.getLogger("uvicorn.error")


@pytest.mark.parametrize(
    ("root_path", "raw"),
    [("", b""), ("/api", b"/api"), ("/a b%20/~", b"/a b%20/~"), ("/ä€", b"/%C3%A4%E2%82%AC")],
)
def test_root_path_is_bytes_as_well(root_path: str, raw: bytes) -> None:
    context = context_of(root_path=root_path)
    assert (context.root_path, context.root_path_bytes) == (root_path, raw)


def test_default_lines_are_made_once_for_each_change() -> None:
    state = ServerState()
    context = context_of(state=state)
    assert context.default_lines() == b""
    state.default_headers = [(b"date", b"now"), (b"server", b"uvicorn")]
    lines = context.default_lines()
    assert lines == b"date: now\r\nserver: uvicorn\r\n"
    assert context.default_lines() is lines
    state.default_headers = [(b"date", b"later")]
    assert context.default_lines() == b"date: later\r\n"


@pytest.mark.parametrize(
    ("limit", "connections", "tasks", "overloaded"),
    [
        (None, 1000, 1000, False),
        (2, 1, 1, False),
        (2, 2, 0, True),
        (2, 0, 2, True),
        (2, 3, 3, True),
    ],
)
def test_limit_of_concurrency_counts_connections_and_tasks(
    limit: int | None, connections: int, tasks: int, overloaded: bool
) -> None:
    state = ServerState()
    state.connections = set(range(connections))
    state.tasks = set(range(tasks))  # type: ignore[arg-type]
    assert context_of(state=state, limit_concurrency=limit).overloaded() is overloaded


def test_tasks_of_a_foreign_loop_are_made_by_it() -> None:
    loop = FakeLoop()
    context = context_of(loop)
    coroutine = app(None, None, None)
    context.create_task(coroutine)
    assert loop.coroutines == [coroutine]
    coroutine.close()
    assert not context.starts_eagerly


def test_tasks_of_an_event_loop_are_made_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = context_of(loop)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "create_task", None)
            task = context.create_task(app(None, None, None))
        assert not context.starts_eagerly
        await task

    asyncio.run(main())


seen: ContextVar[str] = ContextVar("seen", default="nothing")


async def tells(told: list[str]) -> None:
    told.append(seen.get())
    seen.set("by the application")


@pytest.mark.parametrize(("reset", "expected"), [(False, "by the server"), (True, "nothing")])
@pytest.mark.parametrize("factory", [False, True])
def test_tasks_see_what_the_first_connection_saw_or_nothing(
    factory: bool, reset: bool, expected: str
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if factory:
            loop.set_task_factory(
                lambda loop, coroutine, **kwargs: asyncio.Task(coroutine, loop=loop, **kwargs)
            )
        seen.set("by the server")
        state, told = ServerState(), list[str]()
        first = context_of(loop, state, reset_contextvars=reset)
        seen.set("by an application that calls")
        for context in (first, context_of(loop, state, reset_contextvars=reset)):
            await context.create_task(tells(told))
            await context.create_task(tells(told))
        assert told == [expected] * 4
        loop.set_task_factory(None)

    asyncio.run(main())


def test_task_factory_is_honoured() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: list[Any] = []

        def factory(loop: Any, coroutine: Any, **kwargs: Any) -> Any:
            task = asyncio.Task(coroutine, loop=loop, **kwargs)
            made.append(task)
            return task

        loop.set_task_factory(factory)
        context = context_of(loop)
        loop_task = context.create_task(app(None, None, None))
        loop.set_task_factory(None)
        assert context.starts_eagerly
        assert made == [loop_task]
        await loop_task

    asyncio.run(main())


@pytest.fixture
def access_logger() -> Any:
    logger = logging.getLogger("uvicorn.access")
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [logging.NullHandler()], False
    yield logger
    logger.handlers, logger.propagate = before


def test_access_log_of_its_own_makes_records(access_logger: logging.Logger) -> None:
    assert isinstance(context_of().own_access, RecordAccessLog)


def test_access_log_that_is_off_is_none(access_logger: logging.Logger) -> None:
    config = Config(app, log_config=None)
    config.load()
    config.access_log = False
    assert ConnectionContext(config, ServerState(), FakeLoop()).own_access is None  # type: ignore[arg-type]


def test_access_log_without_handlers_is_none(access_logger: logging.Logger) -> None:
    access_logger.handlers = []
    assert context_of().own_access is None

"""The lifespan protocol: what the application is asked, what its answers mean, and the lines in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from uvicorn.config import Config
from uvicorn.lifespan.off import LifespanOff
from uvicorn.lifespan.on import LifespanOn

TRANSITION = "Got invalid state transition on lifespan protocol."
WAITING_UP, COMPLETE_UP = "INFO Waiting for application startup.", "INFO Application startup complete."
FAILED_UP = "ERROR Application startup failed. Exiting."
WAITING_DOWN, COMPLETE_DOWN = (
    "INFO Waiting for application shutdown.",
    "INFO Application shutdown complete.",
)
FAILED_DOWN = "ERROR Application shutdown failed. Exiting."
UNSUPPORTED = "INFO ASGI 'lifespan' protocol appears unsupported."
EXCEPTION = "ERROR Exception in 'lifespan' protocol\n"

Test = Callable[[], Coroutine[Any, Any, None]]


def lifespan_of(app: Any, mode: Any = "auto", **settings: Any) -> LifespanOn:
    return LifespanOn(Config(app, lifespan=mode, log_config=None, **settings))


def run(test: Test) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(limited())


def lines(records: list[logging.LogRecord]) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in records]


def failures(lifespan: Any) -> dict[str, bool]:
    names = ("should_exit", "startup_failed", "shutdown_failed", "error_occured")
    return {name: True for name in names if getattr(lifespan, name)}


def scripted(*steps: Any) -> Any:
    """An application that receives (for "receive"), sends (for a dict), raises (for an exception)."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if step == "receive":
                await receive()
            elif isinstance(step, BaseException):
                raise step
            else:
                await send(step)

    return app


def event(name: str, **more: Any) -> dict[str, Any]:
    return {"type": f"lifespan.{name}", **more}


# --- the orderly way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_application_is_asked_twice_in_one_task(mode: str, error_log: list[logging.LogRecord]) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        for name in ("startup", "shutdown"):
            seen.append((await receive(), asyncio.current_task()))
            await send(event(f"{name}.complete"))

    async def test() -> None:
        lifespan = lifespan_of(app, mode, proxy_headers=False)
        await lifespan.startup()
        assert len(seen) == 2
        await lifespan.shutdown()
        scope, (first, first_task), (second, second_task) = seen
        assert scope == {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        assert scope["state"] is lifespan.state
        assert (first, second) == (event("startup"), event("shutdown"))
        assert first_task is second_task
        assert first_task is not asyncio.current_task()
        assert failures(lifespan) == {}

    run(test)
    assert lines(error_log) == [WAITING_UP, COMPLETE_UP, WAITING_DOWN, COMPLETE_DOWN]


def test_scope_names_the_applications_version() -> None:
    versions = []

    def app(scope: Any) -> Any:
        versions.append(scope["asgi"])
        return scripted_instance

    async def scripted_instance(receive: Any, send: Any) -> None:
        await send(event("startup.complete"))

    run(lifespan_of(app, interface="asgi2").startup)
    assert versions == [{"version": "2.0", "spec_version": "2.0"}]


def test_state_is_what_the_application_puts_in() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["db"] = "open"
        await send(event("startup.complete"))

    lifespan = lifespan_of(app)
    run(lifespan.startup)
    assert lifespan.state == {"db": "open"}


def test_configuration_is_loaded_if_it_is_not() -> None:
    config = Config(scripted(), log_config=None)
    LifespanOn(config)
    assert config.loaded
    LifespanOn(config)


# --- startup that goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [[ValueError("no")], ["receive", ValueError("no")]], ids=["first", "later"])
def test_error_before_startup_in_auto_means_unsupported(
    steps: list[Any], error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        lifespan = lifespan_of(scripted(*steps))
        await lifespan.startup()
        assert failures(lifespan) == {"error_occured": True}
        await lifespan.shutdown()

    run(test)
    assert lines(error_log) == [WAITING_UP, UNSUPPORTED, COMPLETE_UP]


@pytest.mark.parametrize("exc", [ValueError("no"), SystemExit(1), asyncio.CancelledError()], ids=repr)
def test_error_before_startup_in_on_is_a_failure(
    exc: BaseException, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        lifespan = lifespan_of(scripted("receive", exc), "on")
        await lifespan.startup()
        assert failures(lifespan) == {"error_occured": True, "should_exit": True}

    run(test)
    assert lines(error_log) == [WAITING_UP, EXCEPTION, FAILED_UP]
    assert error_log[1].exc_info
    assert error_log[1].exc_info[1] is exc


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("message", ["the database is gone", "", None])
def test_startup_failed_ends_in_both_modes(
    mode: str, raises: bool, message: str | None, error_log: list[logging.LogRecord]
) -> None:
    answer = event("startup.failed") if message is None else event("startup.failed", message=message)
    steps = ["receive", answer, *([ValueError("no")] if raises else [])]

    async def test() -> None:
        lifespan = lifespan_of(scripted(*steps), mode)
        await lifespan.startup()
        raised = {"error_occured": True} if raises else {}
        assert failures(lifespan) == {"should_exit": True, "startup_failed": True, **raised}

    run(test)
    assert lines(error_log) == [WAITING_UP, *([f"ERROR {message}"] if message else []), FAILED_UP]


# --- applications that leave ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("steps", [[], ["receive"], ["receive", event("startup.complete")]], ids=len)
def test_application_that_returns_counts_as_complete(
    mode: str, steps: list[Any], error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        lifespan = lifespan_of(scripted(*steps), mode)
        await lifespan.startup()
        await lifespan.shutdown()
        assert failures(lifespan) == {}

    run(test)
    assert lines(error_log) == [WAITING_UP, COMPLETE_UP, WAITING_DOWN, COMPLETE_DOWN]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_error_between_startup_and_shutdown_is_told_and_nothing_is_asked_any_more(
    mode: str, error_log: list[logging.LogRecord]
) -> None:
    async def test() -> None:
        breaks = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(event("startup.complete"))
            await breaks.wait()
            raise ValueError("no")

        lifespan = lifespan_of(app, mode)
        await lifespan.startup()
        breaks.set()
        await lifespan.shutdown_event.wait()
        assert failures(lifespan) == {"error_occured": True}
        await lifespan.shutdown()

    run(test)
    assert lines(error_log) == [WAITING_UP, COMPLETE_UP, EXCEPTION]


# --- shutdown that goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "exits"), [("auto", {}), ("on", {"should_exit": True})], ids=["auto", "on"])
def test_error_at_shutdown_is_told(
    mode: str, exits: dict[str, bool], error_log: list[logging.LogRecord]
) -> None:
    steps = ("receive", event("startup.complete"), "receive", ValueError("no"))

    async def test() -> None:
        lifespan = lifespan_of(scripted(*steps), mode)
        await lifespan.startup()
        await lifespan.shutdown()
        assert failures(lifespan) == {"error_occured": True, **exits}

    run(test)
    end = FAILED_DOWN if exits else COMPLETE_DOWN
    assert lines(error_log) == [WAITING_UP, COMPLETE_UP, WAITING_DOWN, EXCEPTION, end]


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("message", ["the database is gone", ""])
def test_shutdown_failed_is_told(
    mode: str, raises: bool, message: str, error_log: list[logging.LogRecord]
) -> None:
    end = [event("shutdown.failed", message=message), *([ValueError("no")] if raises else [])]

    async def test() -> None:
        lifespan = lifespan_of(scripted("receive", event("startup.complete"), "receive", *end), mode)
        await lifespan.startup()
        await lifespan.shutdown()
        raised = {"error_occured": True} if raises else {}
        assert failures(lifespan) == {"should_exit": True, "shutdown_failed": True, **raised}

    run(test)
    told = [f"ERROR {message}"] if message else []
    assert lines(error_log) == [WAITING_UP, COMPLETE_UP, WAITING_DOWN, *told, FAILED_DOWN]


# --- messages out of order ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        [event("startup.complete"), event("startup.complete")],
        [event("startup.complete"), event("startup.failed", message="late")],
        [event("startup.failed"), event("startup.complete")],
        [event("shutdown.complete")],
        [event("shutdown.failed", message="early")],
        [event("startup.complete"), event("shutdown.complete"), event("shutdown.complete")],
        [event("startup.complete"), event("shutdown.complete"), event("startup.complete")],
        [event("startup.complete"), event("shutdown.complete"), event("shutdown.failed", message="late")],
        [{"type": "http.response.start"}],
        [event("startup")],
    ],
    ids=str,
)
def test_message_out_of_order_is_an_error_to_the_application(steps: list[Any]) -> None:
    caught: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            for step in steps:
                await send(step)
        except AssertionError as exc:
            caught.append(exc)
            assert step is steps[-1]

    run(lifespan_of(app).startup)
    (exc,) = caught
    assert str(exc) == TRANSITION


def test_message_out_of_order_is_not_told(error_log: list[logging.LogRecord]) -> None:
    run(lifespan_of(scripted(event("shutdown.failed", message="early"))).startup)
    assert lines(error_log) == [WAITING_UP, UNSUPPORTED, COMPLETE_UP]


# --- giving up -----------------------------------------------------------------------------------------------


def test_cancel_ends_the_task_without_blaming_the_application(error_log: list[logging.LogRecord]) -> None:
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send(event("startup.complete"))
            await receive()
        finally:
            ended.append(True)

    async def test() -> None:
        lifespan = lifespan_of(app, "on")
        await lifespan.startup()
        await lifespan.cancel()
        assert ended == [True]
        await lifespan.shutdown()
        await lifespan.cancel()

    run(test)
    assert lines(error_log) == [WAITING_UP, COMPLETE_UP]


def test_cancel_before_startup_does_nothing() -> None:
    run(lifespan_of(scripted()).cancel)


# --- no lifespan -----------------------------------------------------------------------------------------------


def test_off_has_the_same_face_and_says_nothing(error_log: list[logging.LogRecord]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not to be called")

    async def test() -> None:
        config = Config(app, lifespan="off", log_config=None)
        config.load()
        assert config.lifespan_class is LifespanOff
        lifespan = LifespanOff(config)
        await lifespan.startup()
        await lifespan.shutdown()
        await lifespan.cancel()
        assert failures(lifespan) == {}
        assert lifespan.state == {}

    run(test)
    public = {name for name in vars(LifespanOn) if not name.startswith("_")} - {"main", "send", "receive"}
    assert public <= set(dir(LifespanOff))
    assert lines(error_log) == []

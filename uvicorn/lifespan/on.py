"""The lifespan protocol (ASGI lifespan 2.0): one task of the application over the server's whole life.

Exactly two questions are put to the application, startup and shutdown, and each has exactly one answer. Where the
application raises or leaves before it answers startup, mode "auto" takes that for "no lifespan", mode "on" for a
failure.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    LifespanScope,
    LifespanShutdownCompleteEvent,
    LifespanShutdownEvent,
    LifespanShutdownFailedEvent,
    LifespanStartupCompleteEvent,
    LifespanStartupEvent,
    LifespanStartupFailedEvent,
)

if TYPE_CHECKING:
    from uvicorn.config import Config

LifespanReceiveMessage = LifespanStartupEvent | LifespanShutdownEvent
LifespanSendMessage = (
    LifespanStartupCompleteEvent
    | LifespanStartupFailedEvent
    | LifespanShutdownCompleteEvent
    | LifespanShutdownFailedEvent
)

STATE_TRANSITION_ERROR = "Got invalid state transition on lifespan protocol."


class LifespanOn:
    """Runs the application's lifespan.

    Attributes:
        startup_failed, shutdown_failed: What the application answered.
        error_occured: Whether it raised.
        should_exit: Whether the server cannot go on.
        state: The dict that the application fills; every request sees a copy.
    """

    def __init__(self, config: Config) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.logger = logging.getLogger("uvicorn.error")
        self.startup_event = asyncio.Event()
        self.shutdown_event = asyncio.Event()
        self.receive_queue: asyncio.Queue[LifespanReceiveMessage] = asyncio.Queue()
        self.error_occured = False
        self.startup_failed = False
        self.shutdown_failed = False
        self.should_exit = False
        self.state: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Ask for startup and wait for the answer; `should_exit` says whether it was a failure."""
        self.logger.info("Waiting for application startup.")
        self._task = asyncio.get_running_loop().create_task(self.main())
        await self.receive_queue.put({"type": "lifespan.startup"})
        await self.startup_event.wait()
        if self.startup_failed or (self.error_occured and self.config.lifespan == "on"):
            self.logger.error("Application startup failed. Exiting.")
            self.should_exit = True
        else:
            self.logger.info("Application startup complete.")

    async def shutdown(self) -> None:
        """Ask for shutdown and wait for the answer; nothing is asked of an application without lifespan."""
        if self.error_occured:
            return
        self.logger.info("Waiting for application shutdown.")
        await self.receive_queue.put({"type": "lifespan.shutdown"})
        await self.shutdown_event.wait()
        if self.shutdown_failed or (self.error_occured and self.config.lifespan == "on"):
            self.logger.error("Application shutdown failed. Exiting.")
            self.should_exit = True
        else:
            self.logger.info("Application shutdown complete.")

    async def cancel(self) -> None:
        """End the application's lifespan task where it did not answer in time."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)

    async def main(self) -> None:
        """The body of the application's lifespan task."""
        scope: LifespanScope = {
            "type": "lifespan",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            app = cast(ASGI3Application, self.config.loaded_app)
            await app(scope, cast(ASGIReceiveCallable, self.receive), cast(ASGISendCallable, self.send))
        except BaseException as exc:
            self.error_occured = True
            task = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the server has given up on it, or the event loop ends: no fault of the application
            if not (self.startup_failed or self.shutdown_failed):
                self._report(exc)
        finally:
            self.startup_event.set()
            self.shutdown_event.set()

    def _report(self, exc: BaseException) -> None:
        if self.config.lifespan == "auto" and not self.startup_event.is_set():
            self.logger.info("ASGI 'lifespan' protocol appears unsupported.")
        else:
            self.logger.error("Exception in 'lifespan' protocol\n", exc_info=exc)

    async def send(self, message: LifespanSendMessage) -> None:
        """Take the application's answer to one of the two questions."""
        kind = message["type"]
        if kind in ("lifespan.startup.complete", "lifespan.startup.failed"):
            assert not self.startup_event.is_set(), STATE_TRANSITION_ERROR
            assert not self.shutdown_event.is_set(), STATE_TRANSITION_ERROR
            self.startup_event.set()
            self.startup_failed = kind == "lifespan.startup.failed"
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            assert self.startup_event.is_set(), STATE_TRANSITION_ERROR
            assert not self.shutdown_event.is_set(), STATE_TRANSITION_ERROR
            self.shutdown_event.set()
            self.shutdown_failed = kind == "lifespan.shutdown.failed"
        else:
            raise AssertionError(STATE_TRANSITION_ERROR)
        if kind.endswith(".failed") and message.get("message"):
            self.logger.error(message["message"])  # type: ignore[typeddict-item]

    async def receive(self) -> LifespanReceiveMessage:
        """The next question."""
        return await self.receive_queue.get()

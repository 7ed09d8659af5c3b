"""No lifespan: the same face as LifespanOn, and nothing behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.config import Config


class LifespanOff:
    """Stands where the application gets no lifespan events."""

    def __init__(self, config: Config) -> None:
        self.should_exit = False
        self.startup_failed = False
        self.shutdown_failed = False
        self.error_occured = False
        self.state: dict[str, Any] = {}

    async def startup(self) -> None:
        pass

    async def shutdown(self) -> None:
        pass

    async def cancel(self) -> None:
        pass

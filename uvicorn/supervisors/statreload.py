"""Documented path."""

from uvicorn.supervisor.watch import StatReload

__all__ = ["StatReload"]

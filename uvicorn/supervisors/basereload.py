"""Documented path."""

from uvicorn.supervisor.watch import BaseReload

__all__ = ["BaseReload"]

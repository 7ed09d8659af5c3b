"""Documented path: the supervisors by their documented names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.supervisors.basereload import BaseReload
from uvicorn.supervisors.multiprocess import Multiprocess

if TYPE_CHECKING:
    ChangeReload: type[BaseReload]

__all__ = ["ChangeReload", "Multiprocess"]


def __getattr__(name: str) -> Any:
    # Only asked for: what watches files, and what that imports, has no place in a master.
    if name != "ChangeReload":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from uvicorn.supervisors.watchfilesreload import WatchFilesReload  # noqa: PLC0415
    except ImportError:
        from uvicorn.supervisors.statreload import StatReload  # noqa: PLC0415

        return StatReload
    return WatchFilesReload

"""Documented path; there where watchfiles is installed."""

import watchfiles  # noqa: F401 - an ImportError here says that there is no such reloader

from uvicorn.supervisor.watch import FileFilter, WatchFilesReload

__all__ = ["FileFilter", "WatchFilesReload"]

"""Development: start the server again whenever a file changes.

The server runs in a fresh interpreter each time, so that no module of the application survives from before; the
reloader itself imports none. `BaseReload` is the documented base, `StatReload` looks at modification times,
`WatchFilesReload` is told by the kernel.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import click

from uvicorn.importer import own_traceback

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# How long the server gets to stop before it is killed, where `timeout_graceful_shutdown` does not say.
STOP_GRACE = 3.0
# What it gets on top for its lifespan shutdown.
STOP_MARGIN = 1.0

logger = logging.getLogger("uvicorn.error")

_spawning = multiprocessing.get_context("spawn")


class ReloadConfig(Protocol):
    """The part of `uvicorn.Config` that reloaders use."""

    reload_delay: float
    reload_dirs: list[Path]
    reload_dirs_excludes: list[Path]
    reload_includes: list[str]
    reload_excludes: list[str]
    timeout_graceful_shutdown: float | None

    def configure_logging(self) -> None: ...


Target = Callable[..., Any]


class BaseReload:
    """Runs a server in a process of its own and starts it again when `should_restart` says so.

    Args:
        config: The configuration; `reload_delay` is read whenever it is used.
        target: What serves, called with the sockets.
        sockets: Bound sockets; they stay open over restarts and are closed in the end.

    Attributes:
        should_exit: Set when it is to end.
    """

    reloader_name: str | None = None

    def __init__(self, config: Any, target: Target, sockets: list[socket.socket]) -> None:
        self.config: ReloadConfig = config
        self.target = target
        self.sockets = sockets
        self.should_exit = threading.Event()
        self.process: BaseProcess | None = None
        self.pid = os.getpid()

    def signal_handler(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT or SIGTERM: end in order."""
        self.should_exit.set()

    def run(self) -> None:
        """Run the server, and run it again after every change, until told to end."""
        self.startup()
        for changes in self:
            if changes:
                names = ", ".join(map(_displayed, changes))
                logger.warning("%s detected changes in %s. Reloading...", self.reloader_name, names)
                self.restart()
        self.shutdown()

    def __iter__(self) -> Iterator[list[Path] | None]:
        return self

    def __next__(self) -> list[Path] | None:
        return self.should_restart()

    def pause(self) -> None:
        """Wait for `reload_delay`; StopIteration where it is time to end."""
        if self.should_exit.wait(self.config.reload_delay):
            raise StopIteration

    def startup(self) -> None:
        """Start the server's process."""
        text = "Started reloader process [%d] using %s"
        coloured = f"Started reloader process [{click.style('%d', fg='cyan', bold=True)}] using "
        coloured += click.style("%s", fg="cyan", bold=True)
        logger.info(text, self.pid, self.reloader_name, extra={"color_message": coloured})
        for sig in HANDLED_SIGNALS:
            signal.signal(sig, self.signal_handler)
        self._start()

    def restart(self) -> None:
        """End the server's process and start another one."""
        self._stop()
        self._start()

    def shutdown(self) -> None:
        """End the server's process and close the sockets."""
        self._stop()
        for sock in self.sockets:
            sock.close()
        text = "Stopping reloader process [%d]"
        coloured = f"Stopping reloader process [{click.style('%d', fg='cyan', bold=True)}]"
        logger.info(text, self.pid, extra={"color_message": coloured})

    def should_restart(self) -> list[Path] | None:
        """The files that have changed, or None; waits for a while."""
        raise NotImplementedError("Reload strategies should override should_restart()")

    def _start(self) -> None:
        stdin = None
        with contextlib.suppress(OSError, AttributeError, ValueError):
            stdin = sys.stdin.fileno()
        self.process = _spawning.Process(
            target=_serve_in_child, args=(self.config, self.target, self.sockets, stdin)
        )
        self.process.start()

    def _stop(self) -> None:
        process, self.process = self.process, None
        if process is None or process.pid is None:
            return
        grace = self.config.timeout_graceful_shutdown
        process.terminate()
        process.join(STOP_MARGIN + (STOP_GRACE if grace is None else grace))
        if process.exitcode is None:
            logger.warning("The server does not stop: killed. (timeout_graceful_shutdown gives it more time)")
            process.kill()
            process.join()
        process.close()


def _displayed(path: Path) -> str:
    try:
        return f"'{path.relative_to(Path.cwd())}'"
    except ValueError:
        return f"'{path}'"


def _serve_in_child(
    config: ReloadConfig, target: Target, sockets: list[socket.socket], stdin: int | None
) -> None:
    """In the new process: logging as in the reloader, its terminal, its end."""
    if stdin is not None:
        with contextlib.suppress(OSError):
            sys.stdin = os.fdopen(stdin)
    config.configure_logging()
    threading.Thread(target=_end_with_parent, name="uvicorn-parent-watch", daemon=True).start()
    try:
        target(sockets=sockets)
    except KeyboardInterrupt:
        pass  # Ctrl-C goes to the whole group; the reloader ends by itself
    except Exception as exc:
        logger.error(
            "The application could not be started; waiting for the next change.",
            exc_info=(type(exc), exc, own_traceback(exc)),
        )
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """Nobody is left behind: when the reloader is gone, so is the server."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


class StatReload(BaseReload):
    """Looks at the modification times of all Python files below the watched directories."""

    reloader_name = "StatReload"

    def __init__(self, config: Any, target: Target, sockets: list[socket.socket]) -> None:
        super().__init__(config, target, sockets)
        self.mtimes: dict[Path, float] = {}
        if self.config.reload_includes or self.config.reload_excludes:
            logger.warning(
                "--reload-include and --reload-exclude have no effect unless watchfiles is installed."
            )

    def should_restart(self) -> list[Path] | None:
        self.pause()
        return self._look()

    def startup(self) -> None:
        self._take_stock()
        super().startup()

    def restart(self) -> None:
        self._take_stock()
        super().restart()

    def _take_stock(self) -> None:
        """Before the server reads the files: what changes from here on is a change."""
        self.mtimes = {}
        self._look()

    def _look(self) -> list[Path] | None:
        """The first file that has changed since it was last seen."""
        for path in self.iter_py_files():
            try:
                mtime = path.stat().st_mtime
            except OSError:  # it has just been removed
                continue
            before = self.mtimes.get(path)
            if before is None:
                self.mtimes[path] = mtime
            elif mtime > before:
                return [path]
        return None

    def iter_py_files(self) -> Iterator[Path]:
        for directory in self.config.reload_dirs:
            for path in directory.rglob("*.py"):
                yield path.resolve()


class FileFilter:
    """Which changed files count.

    A pattern that somebody includes takes away the default exclusion of the same form; excluded directories and
    patterns win over what is included, but for a file that is included by its very name.
    """

    INCLUDED = ("*.py",)
    EXCLUDED = (".*", ".py[cod]", ".sw.*", "~*")

    def __init__(self, config: ReloadConfig) -> None:
        includes, excludes = config.reload_includes, config.reload_excludes
        self.includes = list(
            dict.fromkeys([*(each for each in self.INCLUDED if each not in excludes), *includes])
        )
        self.excludes = list(
            dict.fromkeys([*(each for each in self.EXCLUDED if each not in includes), *excludes])
        )
        self.exclude_dirs = list(config.reload_dirs_excludes)

    def __call__(self, path: Path) -> bool:
        for pattern in self.includes:
            if not path.match(pattern):
                continue
            if str(path).endswith(pattern):
                return True
            if any(directory in path.parents for directory in self.exclude_dirs):
                return False
            return not any(path.match(excluded) for excluded in self.excludes)
        return False


class WatchFilesReload(BaseReload):
    """Told of changes by the kernel, through watchfiles."""

    reloader_name = "WatchFiles"

    def __init__(self, config: Any, target: Target, sockets: list[socket.socket]) -> None:
        from watchfiles import watch  # noqa: PLC0415 - optional

        super().__init__(config, target, sockets)
        self.watch_filter = FileFilter(self.config)
        self.watcher = watch(
            *self.config.reload_dirs,
            watch_filter=None,
            stop_event=self.should_exit,
            # Empty answers at this pace, so that `should_exit` is seen and a quiet period yields None.
            rust_timeout=1000,
            yield_on_timeout=True,
        )

    def should_restart(self) -> list[Path] | None:
        # Watching begins with the first look. So that one comes before the first pause: a server that is up sooner
        # would be changed unseen.
        changes = next(self.watcher)
        if not changes:
            self.pause()
            return None
        paths = sorted({Path(name) for _, name in changes})
        return [path for path in paths if self.watch_filter(path)]

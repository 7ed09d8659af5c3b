"""The default logging configuration, and how a configuration is put into effect."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import logging.config
import logging.handlers
import os
import stat
from configparser import RawConfigParser
from io import TextIOWrapper
from typing import IO, Any

from uvicorn.logging import TRACE_LOG_LEVEL

LOG_LEVELS: dict[str, int] = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE_LOG_LEVEL,
}

LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "uvicorn.logging.DefaultFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "default": {
            "formatter": "default",
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stderr",
        },
        "access": {
            "formatter": "access",
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
        },
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}

LogConfig = dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None


def configure(
    log_config: LogConfig,
    use_colors: bool | None,
    log_level: str | int | None,
    access_log: bool,
) -> None:
    """Put a logging configuration into effect.

    Args:
        log_config: A dictConfig mapping; a path to one as .json, .yaml or .yml; anything else that fileConfig
            takes; None to leave the handlers as they are.
        use_colors: True or False goes into the formatters "default" and "access" of a mapping.
        log_level: The level of our loggers, by name or number; None keeps the configuration's.
        access_log: False takes the access log's handlers away.

    Raises:
        Exception: Whatever the configuration makes `logging` raise, with a note that says which one it is.
    """
    if isinstance(log_config, os.PathLike):
        log_config = os.fspath(log_config)
    if log_config is not None:
        try:
            _apply(log_config, use_colors)
        except Exception as exc:
            place = f"in the logging configuration {_named(log_config)}".rstrip()
            # dictConfig says which handler it is, and only the error before that one says what is wrong with it.
            exc.add_note(f"{place}: {exc.__cause__}" if exc.__cause__ else place)
            raise
    if log_level is not None:
        level = LOG_LEVELS[log_level.lower()] if isinstance(log_level, str) else log_level
        for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            logging.getLogger(name).setLevel(level)
    if not access_log:
        access_logger = logging.getLogger("uvicorn.access")
        access_logger.handlers = []
        access_logger.propagate = False


def _named(log_config: Any) -> str:
    return repr(log_config) if isinstance(log_config, str) else ""


def _apply(log_config: Any, use_colors: bool | None) -> None:
    if isinstance(log_config, str) and log_config.endswith(".json"):
        with open(log_config, encoding="utf-8") as file:
            log_config = json.load(file)
    elif isinstance(log_config, str) and log_config.endswith((".yaml", ".yml")):
        import yaml  # noqa: PLC0415 - only this form of configuration needs it

        with open(log_config, encoding="utf-8") as file:
            log_config = yaml.safe_load(file)
    elif isinstance(log_config, dict) and use_colors in (True, False):
        # Written into the given mapping, the default one included: callers look at it afterwards.
        for formatter in ("default", "access"):
            if formatter in log_config.get("formatters", {}):
                log_config["formatters"][formatter]["use_colors"] = use_colors
    if isinstance(log_config, dict):
        logging.config.dictConfig(log_config)
    else:
        logging.config.fileConfig(log_config, disable_existing_loggers=False)


def reopen_or_complain(owner: int | None = None) -> str:
    """As `reopen_files`, for who goes on in any case: what cannot be opened is an error in the log.

    Args:
        owner: Whom the files are given to; None for nobody.

    Returns:
        What could not be opened, and why; "" where all are open.
    """
    problem = ""
    try:
        reopen_files()
    except OSError as exc:
        problem = str(exc)
        logging.getLogger("uvicorn.error").error("A log file cannot be reopened: %s", exc)
    if owner is not None:
        give_files(owner)
    return problem


def reopen_files() -> int:
    """Open the files of all log handlers again, after they were renamed; return how many there are.

    Never in a signal handler: it could come in the middle of a line, whose file would be closed under it.

    Raises:
        OSError: One cannot be opened; it goes on as it was, and all others are opened.
    """
    count = 0
    problem: OSError | None = None
    for handler in _file_handlers():
        handler.acquire()
        mode = handler.mode
        try:
            # Where each process opened its file with "w", it would cut off what its siblings have written meanwhile.
            handler.mode = mode.replace("w", "a").replace("x", "a")
            # Opened first: where that fails, the old file goes on.
            stream = handler._open()  # noqa: SLF001 - the documented way to open the handler's file
            previous, handler.stream = handler.stream, stream
            if isinstance(handler, logging.handlers.WatchedFileHandler):
                handler._statstream()  # noqa: SLF001 - else it would take its own new file for a strange one
            if previous is not None:
                previous.close()
        except OSError as exc:
            problem = exc
        finally:
            handler.mode = mode
            handler.release()
        count += 1
    if problem is not None:
        raise problem
    return count


def give_files(owner: int) -> None:
    """Give the log files to the user who writes them, so that its processes can open them again after a rotation.

    From now on also those that this process makes, whenever it does.
    """
    for handler in _file_handlers():
        handler._open = functools.partial(_open_as_theirs, handler, owner)  # type: ignore[method-assign] # noqa: SLF001
        try:
            _give(handler, owner)
        except OSError as exc:
            logging.getLogger("uvicorn.error").warning(
                "The log file %s cannot be given to user %d: %s", handler.baseFilename, owner, exc
            )


def _open_as_theirs(handler: logging.FileHandler, owner: int) -> TextIOWrapper:
    """The handler's own way of opening its file, which is the owner's from its first moment: a worker that looks for it
    just then must be able to open it."""
    directory = os.path.dirname(handler.baseFilename)
    if os.geteuid() != owner and not os.path.lexists(handler.baseFilename):
        with contextlib.suppress(
            OSError, AttributeError
        ):  # not every file system has it: then it is given afterwards
            fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
            try:
                os.fchown(fd, owner, -1)
                # With a directory it follows the link, as linkat(2) says under AT_SYMLINK_FOLLOW.
                os.link(f"/proc/self/fd/{fd}", handler.baseFilename, src_dir_fd=fd)
            finally:
                os.close(fd)
    return type(handler)._open(handler)  # noqa: SLF001


def _give(handler: logging.FileHandler, owner: int) -> None:
    if handler.stream is None:
        # It opens its file with its first line, which may be a worker's: that one could not make it.
        handler.stream = handler._open()  # noqa: SLF001 - see above
    found = os.fstat(handler.stream.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_uid == owner:
        return
    there = os.lstat(handler.baseFilename)
    if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino) or found.st_nlink != 1:
        # Whoever may write to the directory could have put any other file in its place.
        raise OSError("it is a link")
    os.fchown(handler.stream.fileno(), owner, -1)


def _file_handlers() -> list[logging.FileHandler]:
    """All of them, also those that other handlers write to."""
    handlers = [reference() for reference in list(logging._handlerList)]  # type: ignore[attr-defined] # noqa: SLF001
    return [each for each in handlers if isinstance(each, logging.FileHandler) and not each._closed]  # type: ignore[attr-defined] # noqa: SLF001

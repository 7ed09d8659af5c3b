"""Documented path: uvicorn as a worker class of gunicorn (`gunicorn -k uvicorn.workers.UvicornWorker`).

Here gunicorn is the master: it binds, forks, restarts and keeps time; the worker runs the documented Server.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from types import FrameType
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from uvicorn.config import Config
from uvicorn.server import Server

__all__ = ["UvicornH11Worker", "UvicornWorker"]


class UvicornWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """Serves ASGI applications under gunicorn.

    Attributes:
        CONFIG_KWARGS: Arguments of `Config` for a subclass to set.
    """

    CONFIG_KWARGS: dict[str, Any] = {"loop": "auto", "http": "auto"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # gunicorn's log files, formats and levels hold for what we say, too.
        for name, theirs in (("uvicorn.error", self.log.error_log), ("uvicorn.access", self.log.access_log)):
            logger = logging.getLogger(name)
            logger.handlers = theirs.handlers
            logger.setLevel(theirs.level)
            logger.propagate = False
        arguments: dict[str, Any] = {
            "app": None,
            "log_config": None,
            "timeout_keep_alive": self.cfg.keepalive,
            # gunicorn kills a worker that has not notified it within its timeout.
            "timeout_notify": self.timeout,
            "callback_notify": self.callback_notify,
            "limit_max_requests": self.max_requests,
            "forwarded_allow_ips": self.cfg.forwarded_allow_ips,
        }
        if self.cfg.is_ssl:
            options = self.cfg.ssl_options
            arguments |= {
                "ssl_keyfile": options.get("keyfile"),
                "ssl_certfile": options.get("certfile"),
                "ssl_cert_reqs": options.get("cert_reqs") or 0,
                "ssl_ca_certs": options.get("ca_certs"),
            }
            if options.get("ciphers"):
                arguments["ssl_ciphers"] = options["ciphers"]
        if self.cfg.settings["backlog"].value:
            arguments["backlog"] = self.cfg.settings["backlog"].value
        self.config = Config(**(arguments | self.CONFIG_KWARGS))

    def init_signals(self) -> None:
        """The server takes INT and TERM while it runs; USR1 reopens gunicorn's log files; the rest is default."""
        for sig in self.SIGNALS:
            signal.signal(sig, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        # Do not let USR1 interrupt system calls of the application.
        signal.siginterrupt(signal.SIGUSR1, False)

    def run(self) -> None:
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = Server(config=self.config)

        def quit_in_order(number: int, frame: FrameType | None) -> None:
            server.handle_exit(number, frame)

        signal.signal(signal.SIGQUIT, quit_in_order)  # gunicorn's word for "at once, but in order"
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def callback_notify(self) -> None:
        """Called every `timeout_notify` seconds: we are alive."""
        self.notify()


class UvicornH11Worker(UvicornWorker):
    """The same with the standard library's event loop and h11."""

    CONFIG_KWARGS: dict[str, Any] = {"loop": "asyncio", "http": "h11"}

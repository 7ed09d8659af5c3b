"""The documented `Server`: one event loop that accepts, serves, drains and ends.

    startup     lifespan startup, then listen
    main_loop   wait for a reason to stop; a ticker keeps time for everything meanwhile
    shutdown    stop accepting, answer what has come, lifespan shutdown

The ticker (`_ticker.py`) is the only timer: it moves the coarse clock, renews the Date header and sweeps the connections'
deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterable
from types import FrameType
from typing import Any

from uvicorn._addresses import BindError
from uvicorn._attach import SETTING_UP, Helper
from uvicorn._early import before_us
from uvicorn._hooks import TICK, ServerHooks
from uvicorn._interrupt import interruptible
from uvicorn._kernel import connections_at_most
from uvicorn._listener import Listener
from uvicorn._listening import ServerOpener, any_readable, only_address, whole
from uvicorn._passed import take_passed
from uvicorn._sockets import open_listener, privilege_hint
from uvicorn._ticker import Ticker
from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.loops.shortage import hand_back, handle_shortage
from uvicorn.protocols._access import BatchedAccessLog
from uvicorn.protocols._context import NEVER
from uvicorn.protocols._state import ServerState

__all__ = ["HANDLED_SIGNALS", "TICK", "Server", "ServerHooks", "ServerState"]

HANDLED_SIGNALS = (
    signal.SIGINT,  # Ctrl-C
    signal.SIGTERM,  # what process managers send
)
if sys.platform == "win32":  # pragma: no cover - Windows only
    HANDLED_SIGNALS += (signal.SIGBREAK,)

# The period of `Server.on_tick`, and how many of them make a day.
SUBCLASS_TICK = 0.1
TICKS_OF_A_DAY = 864_000
# How often a draining server looks again, besides being told.
DRAIN_POLL = 0.1
# How long emptying the accept queue may take while new connections keep coming.
QUEUE_GRACE = 0.5
# How long before the end of the grace period streams are told that the client has gone.
STREAM_NOTICE = 5.0
# How long a TLS handshake that is under way may still take when the whole service stops.
HANDSHAKE_GRACE = 2.0
# How long cancelled tasks get.
CANCEL_GRACE = 1.0

logger = logging.getLogger("uvicorn.error")


class Server:
    """An ASGI server in one event loop.

    Args:
        config: Its configuration; loaded when it is first served, unless it is already.

    Attributes:
        server_state: What its connections share.
        servers: The listening servers while it is started.
        started: Whether it accepts connections.
        should_exit: Set it, from any thread, to make the server stop in order.
        force_exit: Set it to stop waiting for requests in flight.
        last_notified: When `callback_notify` was last called.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.server_state = ServerState()
        self.servers: list[Any] = []
        self.started = False
        self.force_exit = False
        self.last_notified = 0.0
        self.hooks = ServerHooks()
        self.lifespan: Any = None
        self._should_exit = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._captured_signals: list[int] = []
        self._ticker: Ticker | None = None
        self._listeners: list[Listener] = []
        self._closed_gates: list[Any] = []
        self._opener: ServerOpener | None = None
        self._notifications: set[asyncio.Task[None]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it runs in; None before."""
        return self._loop

    # --- the reason to stop ------------------------------------------------------------------

    @property
    def should_exit(self) -> bool:
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if value:
            self._wake_soon()

    def _wake_soon(self) -> None:
        """Let whoever waits in `_pause` look again; from any thread, and from signal handlers."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _pause(self, timeout: float | None = None) -> None:
        """Wait to be woken, or for the time. Several may wait: `shutdown` may run beside `main_loop`."""
        assert self._loop is not None
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        timer = self._loop.call_later(timeout, self._wake) if timeout is not None else None
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take SIGINT and SIGTERM while the server runs in the main thread, and raise them again afterwards.

        The host's handlers see them when the stop has been orderly: in reverse order, so that the first signal
        decides how the process ends.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {sig: before_us(signal.signal(sig, self.handle_exit)) for sig in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)
        for captured in reversed(self._captured_signals):
            signal.raise_signal(captured)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler: stop in order; a second SIGINT stops waiting."""
        self._captured_signals.append(sig)
        if self.should_exit and sig == signal.SIGINT and self.hooks.interrupt_hurries:
            self.force_exit = True
            self._wake_soon()
        else:
            self.should_exit = True

    # --- running -----------------------------------------------------------------------------

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in an event loop of its own until the server stops.

        Args:
            sockets: Bound sockets to serve on, in place of the configured address.
        """
        with interruptible(), asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self.serve(sockets=sockets))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve in the running event loop until the server stops.

        Args:
            sockets: Bound sockets to serve on, in place of the configured address.

        Raises:
            SystemExit: With code 3 where the application or an address cannot be had; the log says why.
        """
        # Loaded before signals are taken, so that one of them can end an import that hangs.
        if not self.config.loaded:
            self.config.load()
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None) -> None:
        self._loop = asyncio.get_running_loop()
        config = self.config
        if not config.loaded:
            config.load()
        self.lifespan = config.lifespan_class(config)
        process_id = os.getpid()
        logger.info("Started server process [%d]", process_id)
        await self.startup(sockets=sockets)
        if self.should_exit and not self.started:
            return
        await self.main_loop()
        await self.shutdown(sockets=sockets)
        logger.info("Finished server process [%d]", process_id)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Lifespan startup, then listen.

        Args:
            sockets: Bound sockets to serve on, in place of the configured address.
        """
        self._loop = asyncio.get_running_loop()
        if not await self._start_lifespan():
            return
        try:
            await self._listen(sockets)
        except (OSError, BindError) as exc:
            hint = privilege_hint(exc, self.config.port) if isinstance(exc, OSError) else ""
            logger.error("%s%s", exc, hint)
            self._close_listeners(sockets)  # those that could be had
            await self._stop_lifespan()
            sys.exit(STARTUP_FAILURE)
        self.server_state.draining = False
        self.server_state.address = only_address(self.servers)
        self.server_state.connection_limit = self.config.limit_connections or connections_at_most()
        handle_shortage(self._loop)
        self._start_ticking()
        self.started = True
        self.hooks.started(self)

    async def _start_lifespan(self) -> bool:
        """Lifespan startup; a signal to stop ends it early. Whether the server goes on."""
        startup = asyncio.ensure_future(self.lifespan.startup())
        while not startup.done() and not self.should_exit:
            startup.add_done_callback(lambda _: self._wake())
            await self._pause()
        if not startup.done():
            # Only an application whose startup has completed gets a shutdown: this one's task is cancelled.
            startup.cancel()
            await asyncio.wait([startup])
            await self.lifespan.cancel()
            return False
        await startup
        if self.lifespan.should_exit:
            self.should_exit = True
            return False
        return True

    async def _listen(self, sockets: list[socket.socket] | None) -> None:
        assert self._loop is not None
        config = self.config
        protocol_class: Any = config.http_protocol_class
        factory = functools.partial(
            protocol_class,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=self._loop,
        )
        if config.access_log and logging.getLogger("uvicorn.access").hasHandlers():
            self.server_state.access = BatchedAccessLog(
                logging.getLogger("uvicorn.access"), self._loop.call_later
            )
        opener = self._opener = ServerOpener(self._loop, config, factory)
        if sockets is None:
            await self._open_configured(opener)
            return
        share = whole if self.hooks.accepts_alone() else None
        for sock in sockets:
            acceptor = self.hooks.acceptor(self, sock, factory, opener.open)
            self.servers.append(acceptor or await opener.open(sock, factory, share))

    async def _open_configured(self, opener: ServerOpener) -> None:
        """Listen where the configuration says."""
        config = self.config
        passed = self.hooks.passed()
        named = config.addresses or config.uds is not None or config.fd is not None
        if named or ":" in (config.host or ""):
            for address in config.bind_addresses:
                listener = open_listener(
                    address, config.backlog, config.reuse_port, passed, config.socket_rights
                )
                self._listeners.append(listener)
                # Of a descriptor nobody knows who else has it: supervisors give one to several processes.
                share = whole if address.kind != "fd" else None
                self.servers.append(await opener.open(listener.sock, share=share))
                config.announce(listener.sock)
        elif (inherited := take_passed(config.bind_addresses[0], passed)) is not None:
            self._listeners.append(inherited)
            self.servers.append(await opener.open(inherited.sock, share=whole))
            config.announce(inherited.sock)
        else:
            self.servers.extend(await opener.open_host())
            sockets = [sock for server in self.servers for sock in server.sockets]
            # A name may stand for several addresses, and each has got a port of its own where none was asked for.
            for sock in sockets if config.port == 0 else sockets[:1]:
                config.announce(sock)

    async def main_loop(self) -> None:
        """Serve until there is a reason to stop."""
        if type(self).on_tick is Server.on_tick:
            while not self.should_exit:
                await self._pause()
        else:
            await self._tick_for_a_subclass()
        delay = self.hooks.shutdown_delay(self)
        if delay and not self.force_exit:
            logger.info("Serving on for %s seconds before shutting down.", delay)
            deadline = time.monotonic() + delay
            while not self.force_exit and (left := deadline - time.monotonic()) > 0:
                await self._pause(min(left, DRAIN_POLL))

    async def on_tick(self, counter: int) -> bool:
        """For subclasses: called ten times a second where one overrides it. Whether the server stops.

        Args:
            counter: Counts the calls of a day.
        """
        return self.should_exit

    async def _tick_for_a_subclass(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % TICKS_OF_A_DAY
            await self._pause(SUBCLASS_TICK)

    # --- the ticker --------------------------------------------------------------------------

    @property
    def lag(self) -> float:
        """By how much the event loop was late for the ticker's last tick, in seconds."""
        return self._ticker.lag if self._ticker is not None else 0.0

    def _start_ticking(self) -> None:
        assert self._loop is not None
        config = self.config
        limit = config.limit_max_requests
        if limit is not None:
            limit += random.randint(0, config.limit_max_requests_jitter)  # noqa: S311 - spreads load, guards nothing
            self.server_state.request_limit = limit
            self.server_state.on_request_limit = lambda: self.hooks.request_limit_reached(self, limit)
        longest = min(TICK, self.hooks.shortest_period())
        self._ticker = Ticker(self._loop, config, self.server_state, self._tick, longest)
        self._ticker.start()

    def _tick(self, now: float) -> None:
        self.hooks.tick(self, now)
        # 0 is "never": the loop's clock may begin there.
        due = not self.last_notified or now - self.last_notified >= self.config.timeout_notify
        if self.config.callback_notify is not None and due:
            self.last_notified = now
            task = asyncio.ensure_future(self._call_back())
            self._notifications.add(task)
            task.add_done_callback(self._notifications.discard)

    async def _call_back(self) -> None:
        assert self.config.callback_notify is not None
        try:
            await self.config.callback_notify()
        except Exception:
            logger.exception("callback_notify has failed.")

    # --- stopping ----------------------------------------------------------------------------

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, answer what has come, end the application's lifespan.

        Args:
            sockets: The sockets that were given to `startup`; they are closed.
        """
        self._loop = asyncio.get_running_loop()
        logger.info("Shutting down")
        state = self.server_state
        state.draining = (
            True  # of those that come in the last moment, too, each answer is the connection's last
        )
        await self._stop_accepting(sockets)
        state.on_emptied = self._wake
        self._drain_connections(self.hooks.final())
        await self._wait_for_requests()
        await self._stop_lifespan()
        if self._ticker is not None:
            self._ticker.stop()
        self.flush_access_log()
        state.on_emptied = None
        hand_back(self._loop)
        self.hooks.finished(self)

    def _drain_connections(self, final: bool) -> None:
        if final:
            for gate in self._closed_gates:
                gate.end_attaching(HANDSHAKE_GRACE)
        for connection in list(self.server_state.connections):
            drain = getattr(connection, "drain", None)
            if drain is not None:
                drain(final)
            else:
                connection.shutdown()

    async def _stop_accepting(self, sockets: Iterable[socket.socket] | None) -> None:
        if self.hooks.empties_queue() and not self.force_exit:
            # Connections that the kernel has taken for us are ours to answer. The event loop's own servers accept
            # one in each turn of the loop (uvloop), or all that there are (asyncio).
            for server in (*self.servers, *self._helpers()):
                empty_queue = getattr(server, "empty_queue", None)
                if empty_queue is not None:
                    empty_queue()
            queues = [sock.fileno() for server in self.servers for sock in server.sockets]
            deadline = time.monotonic() + QUEUE_GRACE
            while any_readable(queues) and time.monotonic() < deadline:  # noqa: ASYNC110 - a turn is what it takes
                await asyncio.sleep(0)
        self._closed_gates = [server for server in self.servers if hasattr(server, "attaching")]
        self._closed_gates += self._helpers()
        # asyncio's servers set a connection up in some turns more, and must not be closed meanwhile; the request may be
        # here already, and is heard in the last of them.
        assert self._loop is not None
        for sock in [sock for server in self.servers for sock in server.sockets]:
            with contextlib.suppress(NotImplementedError):  # Windows' event loop has no readers
                self._loop.remove_reader(sock.fileno())
        for _ in range(SETTING_UP):
            await asyncio.sleep(0)
        self._close_listeners(sockets)
        self.hooks.stopped_accepting(self)

    def _close_listeners(self, sockets: Iterable[socket.socket] | None) -> None:
        for server in (*self.servers, *self._helpers()):
            server.close()
        self.servers = []
        for sock in sockets or ():
            sock.close()
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    async def _wait_for_requests(self) -> None:
        """Wait for connections and tasks, within the grace period; then end them."""
        state = self.server_state
        grace = self.config.timeout_graceful_shutdown
        started = time.monotonic()
        notice = grace - min(STREAM_NOTICE, grace * 0.2) if grace is not None else None
        final = self.hooks.final()
        said = ""
        attaching = 0
        while (state.connections or state.tasks or self._attaching()) and not self.force_exit:
            if attaching or (not final and self.hooks.final()):
                # Those that have only been set up now are to be told; or all, because it was only to be replaced, and
                # now the whole service stops.
                final = self.hooks.final()
                self._drain_connections(final)
            attaching = self._attaching()
            waits_for_tasks = not state.connections and not attaching
            what = "background tasks to complete" if waits_for_tasks else "connections to close"
            if what != said:
                logger.info("Waiting for %s. (CTRL+C to force quit)", what)
                said = what
            passed = time.monotonic() - started
            if notice is not None and passed >= notice:
                notice = None
                for connection in list(state.connections):
                    end_streams = getattr(connection, "end_streams", None)
                    if end_streams is not None:
                        end_streams()
            if grace is not None and passed >= grace:
                if state.tasks:
                    logger.error(
                        "Cancel %s running task(s), timeout graceful shutdown exceeded", len(state.tasks)
                    )
                break
            await self._pause(DRAIN_POLL)
        await self._end_by_force()

    def _helpers(self) -> list[Helper]:
        return self._opener.helpers if self._opener is not None else []

    def _attaching(self) -> int:
        """How many connections have been accepted and are not set up yet: a TLS handshake takes its time."""
        return sum(gate.attaching for gate in self._closed_gates)

    async def _end_by_force(self) -> None:
        state = self.server_state
        for gate in self._closed_gates:
            gate.abort_attaching()
        if state.tasks:
            for task in list(state.tasks):
                task.cancel(msg="Task cancelled, timeout graceful shutdown exceeded")
            deadline = time.monotonic() + CANCEL_GRACE
            while state.tasks and time.monotonic() < deadline:
                await self._pause(DRAIN_POLL)
        for connection in list(state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    async def _stop_lifespan(self) -> None:
        if self.force_exit:
            await self.lifespan.cancel()
            return
        limit = self.config.timeout_lifespan_shutdown
        deadline = time.monotonic() + limit if limit is not None else NEVER
        shutdown = asyncio.ensure_future(self.lifespan.shutdown())
        shutdown.add_done_callback(lambda _: self._wake())
        while not shutdown.done() and not self.force_exit and (left := deadline - time.monotonic()) > 0:
            await self._pause(min(left, DRAIN_POLL))
        if shutdown.done():
            await shutdown
            return
        if not self.force_exit:
            logger.error("Application shutdown not complete after %s seconds. Exiting.", limit)
        shutdown.cancel()
        await asyncio.wait([shutdown])
        await self.lifespan.cancel()

    def flush_access_log(self) -> None:
        """Write the access lines that wait for their batch."""
        access = self.server_state.access
        if isinstance(access, BatchedAccessLog):
            access.flush()

"""A worker while it serves: what the server tells the master, and what the master wants of the server."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import psutil

from uvicorn._compat import resident_memory
from uvicorn._ipc.channel import Kind
from uvicorn._ipc.scoreboard import DURATION_CELLS, Cell, Drain
from uvicorn._ipc.start import WorkerStart
from uvicorn._tuning import freeze_heap, keep_freed_memory
from uvicorn.server import TICK, Server, ServerHooks
from uvicorn.worker.accept import GatedAcceptor, OpenServer
from uvicorn.worker.limits import Limits

logger = logging.getLogger("uvicorn.error")

# What has been counted is seen by others after this time, in seconds, at the latest: so much of it is lost when the
# process is killed. To count in shared memory would lose nothing, and cost a request 300 ns; this costs it 4 ns.
COUNT_DELAY = 0.1
# What an orphan gets beyond its grace periods before it ends itself.
ORPHAN_MARGIN = 2.0


class WorkerHooks(ServerHooks):
    """Connects the server with the scoreboard and the channel.

    Args:
        start: What the worker was started with.
        set_title: Sets the process title.
    """

    def __init__(self, start: WorkerStart, set_title: Callable[[str], None]) -> None:
        self._start = start
        self._row = start.row
        self._set_title = set_title
        self.channel_ended = False
        self._limits: Limits | None = None
        self._gates: list[GatedAcceptor] = []
        self._pss = False
        self._looked_at = 0.0
        self._ended = 0  # connections since then
        # What is in the row: requests by how long they took.
        self._slow = [0] * len(DURATION_CELLS)
        # Called when the worker is ready.
        self.on_ready: list[Callable[[], None]] = []

    interrupt_hurries = False

    @property
    def orphaned(self) -> bool:
        """Whether the master is gone. The end of its channel is seen first: the kernel closes a process's files before
        it gives its children to somebody else."""
        return self.channel_ended or os.getppid() != self._start.master_pid

    # --- what the master wants ---------------------------------------------------------------

    def final(self) -> bool:
        return self._row[Cell.DRAIN] == Drain.FINAL or self.orphaned

    def empties_queue(self) -> bool:
        return self._row[Cell.DRAIN] in (Drain.MOVE, Drain.FINAL) or self.orphaned

    def shutdown_delay(self, server: Server) -> float:
        return 0.0  # the master's business: it lets all workers serve on

    def shortest_period(self) -> float:
        return min(TICK, self._start.healthcheck / 4)

    def acceptor(
        self, server: Server, sock: socket.socket, factory: Callable[[], Any], open_server: OpenServer
    ) -> Any | None:
        own = self._start.reuse_port and sock.family in (socket.AF_INET, socket.AF_INET6)
        if self._start.size == 1 or own:
            return None  # nobody else accepts here: no gate
        assert server.loop is not None
        gate = GatedAcceptor(
            server.loop,
            sock,
            factory,
            server.config.ssl,
            server.config.timeout_tls_handshake,
            open_server,
            server.server_state,
            self._row,
            self._start.scoreboard,
        )
        server.server_state.counter = self
        self._gates.append(gate)
        return gate

    def accepts_alone(self) -> bool:
        return True  # where it is not so, there is a gate

    # --- what the server tells ---------------------------------------------------------------

    def attach(self, server: Server) -> None:
        """This server serves here. Before its first connection, which may come before it has said that it started."""
        server.hooks = self
        if self._start.watched:
            state = server.server_state
            state.measured = True
            state.settle()
            # Not carried over like the others: what a worker has answered, it has counted when it is killed.
            state.responses = self._row.part(Cell.RESPONSES_OTHER, len(state.responses))
            state.on_unsettled = functools.partial(self._carry_over_soon, server)

    def started(self, server: Server) -> None:
        config = server.config
        lifetime = config.limit_worker_lifetime
        if lifetime is not None:
            lifetime += random.uniform(0, config.limit_worker_lifetime_jitter)  # noqa: S311 - spreads load
        memory = config.limit_worker_memory
        if memory is not None:
            memory += random.randint(0, config.limit_worker_memory_jitter)  # noqa: S311 - spreads load
        self._pss = config.worker_memory_measure == "pss"
        now = time.monotonic()
        measure = config.worker_memory_measure
        self._limits = Limits(lifetime, memory, now, config.worker_memory_interval, measure)
        if config.tune_gc:
            freeze_heap()
        keep_freed_memory()
        self._carry_over(server)
        self._write_usage(server)
        self._look_at_limits(self._limits, now)
        self._row[Cell.ACCEPTING] = 1
        self.say_ready()

    def say_ready(self) -> None:
        """From now on the master measures."""
        self._row.stamp(Cell.LOOP_TICK)
        self._row.stamp(Cell.THREAD_TICK)
        self._row.stamp(Cell.READY)
        for callback in self.on_ready:
            callback()
        self.show("ready")
        self._start.sender.send(Kind.READY)

    def tick(self, server: Server, now: float) -> None:
        self._row.stamp(Cell.LOOP_TICK)
        self._carry_over(server)
        self._write_usage(server)
        self._look_for_churn(now)
        if self._limits is not None and not server.server_state.draining:
            self._look_at_limits(self._limits, now)

    def _look_at_limits(self, limits: Limits, now: float) -> None:
        reason = limits.expired(now)
        if reason is None and limits.wants_sample(now):
            reason = limits.sample(now, self._memory())
            if limits.useless:  # no sample is wanted after this one
                self._start.sender.send(Kind.OVER_LIMIT, limits.useless)
        if reason is not None:
            self._start.sender.send(Kind.RECYCLE, reason)

    def _memory(self) -> int:
        """What the limit is compared with."""
        if not self._pss:
            return self._row[Cell.RSS]
        full = psutil.Process().memory_full_info()
        # Elsewhere than on Linux what is the process's own comes nearest.
        return int(getattr(full, "pss", full.uss))

    def _look_for_churn(self, now: float) -> None:
        passed = now - self._looked_at
        if passed < TICK / 2:
            return
        for gate in self._gates:
            gate.look(self._ended / passed)
        self._looked_at = now
        self._ended = 0

    def connection_lost(self) -> None:
        """One of the server's connections has gone; the siblings' gates want to know."""
        self._ended += 1
        for gate in self._gates:
            gate.connection_lost()

    def finished(self, server: Server) -> None:
        self._carry_over(server)
        self._write_usage(server)

    def _carry_over_soon(self, server: Server) -> None:
        assert server.loop is not None
        server.loop.call_later(COUNT_DELAY, self._carry_over, server)

    def _carry_over(self, server: Server) -> None:
        """Counters are plain attributes while requests run; here they become visible."""
        row, state = self._row, server.server_state
        row[Cell.CONNECTIONS] = len(state.connections)
        row[Cell.REQUESTS] = state.total_requests
        row[Cell.IN_FLIGHT] = len(state.tasks)
        row[Cell.WEBSOCKETS] = state.websockets
        if state.measured:
            row[Cell.BYTES_IN] = state.bytes_in
            row[Cell.BYTES_OUT] = state.bytes_out
            row[Cell.DURATION] = int(state.seconds * 1_000_000)
            row[Cell.DURATIONS] = state.total_requests - state.handshakes - sum(state.slow)
            if state.slow != self._slow:
                self._slow = state.slow.copy()
                for bucket, count in zip(DURATION_CELLS[1:], state.slow[1:], strict=True):
                    row[bucket] = count
            state.settle()

    def _write_usage(self, server: Server) -> None:
        """What is asked of the system, once a second."""
        row = self._row
        row[Cell.LOOP_LAG] = int(server.lag * 1_000_000)
        row[Cell.CPU] = time.process_time_ns() // 1000
        with contextlib.suppress(OSError):  # reading takes a descriptor, and there may be none
            row[Cell.RSS] = resident_memory()

    def request_limit_reached(self, server: Server, limit: int) -> None:
        logger.warning("Maximum request limit of %d exceeded. Terminating process.", limit)
        self._start.sender.send(Kind.RECYCLE, f"limit_max_requests: {limit} requests answered")

    def stopped_accepting(self, server: Server) -> None:
        self._row[Cell.ACCEPTING] = 0
        self.show("draining")
        self._start.sender.send(Kind.STOPPED_ACCEPTING)

    def show(self, state: str) -> None:
        """Say in the process title what the worker does."""
        start = self._start
        self._set_title(f"uvicorn: worker {start.slot} {start.title} gen={start.generation} {state}")


def leave_as_orphan(hooks: WorkerHooks, server: Server | None) -> None:
    """The master is gone: drain, and end this process whatever happens. Runs in the health thread."""
    hooks.channel_ended = True
    logger.warning("The parent process is gone: draining.")
    if server is None:
        os.kill(os.getpid(), signal.SIGTERM)
        return
    server.should_exit = True
    config = server.config
    limit = (config.timeout_graceful_shutdown or 0) + (config.timeout_lifespan_shutdown or 0) + ORPHAN_MARGIN
    time.sleep(limit)  # noqa: TID251 - in the health thread, which has nothing else to do any more
    os.killpg(os.getpgid(0), signal.SIGKILL)

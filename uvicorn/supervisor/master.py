"""The master's loop: wait, turn what happened into events, let the machine decide, perform its actions.

It decides nothing, imports no application, runs no event loop and no thread, and waits in one place only. Everything
it does in one turn is short, so that it answers a signal within 100 ms whatever workers do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from uvicorn._addresses import BindError
from uvicorn._closing import close_quietly
from uvicorn._ipc.channel import Kind, Wish, ask
from uvicorn._ipc.control import ControlMain
from uvicorn._ipc.mold import MoldMain
from uvicorn._ipc.scoreboard import Cell, Drain, Scoreboard
from uvicorn._ipc.start import WorkerMain, make_failure_token
from uvicorn._logconfig import reopen_or_complain
from uvicorn._pidfile import PidFile
from uvicorn.supervisor import actions, events, failures, upgrade
from uvicorn.supervisor.actions import Action
from uvicorn.supervisor.control import ControlPost
from uvicorn.supervisor.events import Event
from uvicorn.supervisor.host import Host
from uvicorn.supervisor.leftovers import Leftovers
from uvicorn.supervisor.links import Link, event_of, hand_links, readings_of, smallest, take_links
from uvicorn.supervisor.listeners import ListenerSet
from uvicorn.supervisor.machine import Machine
from uvicorn.supervisor.notify import ServiceManager
from uvicorn.supervisor.plan import Plan, PlanRejected
from uvicorn.supervisor.pool import NEVER, Stage
from uvicorn.supervisor.signals import SignalSource
from uvicorn.supervisor.spawner import Spawner
from uvicorn.supervisor.state import Phase
from uvicorn.supervisor.steering import Steering

logger = logging.getLogger("uvicorn.error")


class Master:
    """One master.

    Args:
        plan: The first generation.
        worker_main: What a worker process runs.
        reload: Reads the configuration again; raises PlanRejected where it cannot be used.
        host: The operating system.
        listeners: The sockets that are open already.
        set_title: Sets the process title.
        signals: Where signals come from.
        manager: Who has started the master, and is told what happens.
        control_main: What the control process runs; None where there is none.
        mold_main: What a mold runs, from which workers are forked; None where there is none.
        pid_file: Where its process id is written, by whoever has made it.
    """

    def __init__(
        self,
        plan: Plan,
        worker_main: WorkerMain,
        reload: Callable[[], Plan],
        host: Host,
        listeners: ListenerSet,
        set_title: Callable[[str], None],
        signals: SignalSource,
        manager: ServiceManager | None = None,
        control_main: ControlMain | None = None,
        mold_main: MoldMain | None = None,
        pid_file: PidFile | None = None,
    ) -> None:
        self._plans: dict[int, Plan] = {1: plan}
        self._worker_main = worker_main
        self._mold_main = mold_main
        self._reload = reload
        self._host = host
        self._listeners = listeners
        self._set_title = set_title
        self._signals = signals
        self._manager = manager or ServiceManager()
        self._machine = Machine(plan.spec, host.random)
        self._scoreboard: Scoreboard | None = None
        self._links: dict[int, Link] = {}
        self._leftovers = Leftovers(host)
        self._pid_file = pid_file or PidFile("")
        self._control = ControlPost(plan.control, control_main, host, plan.title)
        # Reaped in this turn. From then on a pid may be somebody else's, also before the machine knows of it.
        self._reaped: set[int] = set()
        self._exit_code: int | None = None
        # The machine wants the next program in this one's place.
        self._exec_due = False
        self._title = ""
        self._oom_kills = 0
        self._steering = Steering()
        self._failure_token = -1
        self._made: Spawner | None = None

    @property
    def scoreboard(self) -> Scoreboard:
        assert self._scoreboard is not None
        return self._scoreboard

    @property
    def _spawner(self) -> Spawner:
        assert self._made is not None
        return self._made

    @property
    def plan(self) -> Plan:
        """The plan in effect."""
        return self._plans[self._machine.state.generation]

    # --- running -----------------------------------------------------------------------------

    def run(self, handover: upgrade.Handover | None = None, scoreboard: Scoreboard | None = None) -> int:
        """Run until the service has stopped; return the exit code.

        Args:
            handover: What the program before has handed over.
            scoreboard: That one's shared memory; mapped here where nobody has done so.
        """
        self._signals.install()
        self._scoreboard = scoreboard
        try:
            self._prepare(handover)
            self._made = Spawner(
                self._host,
                self._worker_main,
                self._mold_main,
                self.scoreboard,
                self._failure_token,
                self._links,
                self._let_go_of_all,
                self._control.wanted,
            )
            for mold in self._machine.state.pool.molds.values():
                self._made.take_mold(mold.mid, mold.pid or 0)
            # Signals that came while there were no handlers are delivered now.
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            self._dispatch(events.Start())
            while self._exit_code is None:
                self._turn()
            self._leftovers.wait([self._signals.fileno()], self._told_to_stop)
        except BindError:
            raise
        except BaseException:
            self._manager.leave(self._listeners)
            raise
        finally:
            self._control.end()
            self._listeners.stop()
            self._signals.restore()
            self._signals.close()
            for link in self._links.values():
                if link.receiver is not None:
                    close_quietly(link.receiver.sock)
            if self._failure_token >= 0:
                close_quietly(self._failure_token)
        logger.info("Stopping parent process [%d]", os.getpid())
        return self._exit_code

    def _prepare(self, handover: upgrade.Handover | None) -> None:
        self._oom_kills = self._host.oom_kills()
        if handover is None:
            self._scoreboard = Scoreboard()
            self._failure_token = make_failure_token()
            self._listeners.open(self.plan, self.plan.announce)
            self._control.open()
            logger.info("Started parent process [%d]", os.getpid())
            return
        try:
            plan = self._take_over(handover)
        except Exception as exc:
            self._hand_on(handover, exc)
            raise
        self._manager.took_over()
        try:
            self._control.open(taken=True)
        except OSError as exc:
            logger.error("The control process cannot be had: %s.", failures.reason_of(exc))
        self._listeners.close_unused([plan])
        logger.info("Started parent process [%d]", os.getpid())
        logger.info("Took over %d worker process(es) from the program before.", len(handover.workers))

    def _take_over(self, handover: upgrade.Handover) -> Plan:
        """What the program before has handed over becomes ours; the plan in effect. Nothing of it is closed, and nobody
        told anything."""
        plan = self._plans.pop(1)
        generation = handover.generation + 1
        self._plans[generation] = plan
        self._machine = Machine(plan.spec, self._host.random, generation)
        self._scoreboard = self._scoreboard or Scoreboard(handover.scoreboard_fd)
        self._listeners = upgrade.take_listeners(handover.listeners)
        self._links = take_links(handover.workers, self._scoreboard, self._listeners)
        self._control.take(handover.control)
        try:
            self._listeners.open(plan, plan.announce)
        except (BindError, OSError) as exc:
            # The program before is gone, and with it the way back; its sockets and its workers serve.
            text = "%s The addresses of the program before stay in use; SIGHUP tries again."
            logger.error(text, exc if isinstance(exc, BindError) else f"{failures.reason_of(exc)}.")
            plan = self._plans[generation] = self._listeners.plan_for_held(plan)
        taken = [upgrade.take_worker(handed) for handed in handover.workers]
        molds = upgrade.take_molds(handover, self._host.now())
        self._machine.adopt(taken, plan.spec.size, handover.ledger(), molds)
        return plan

    def _hand_on(self, handover: upgrade.Handover, exc: Exception) -> None:
        """What was handed over could not be taken, which is no reason to lose it: the program starts again with it. Returns
        where that cannot be done, or somebody wants the service to stop."""
        logger.error(
            "Taking over has failed: %s. The workers of the program before serve on. Trying again.",
            failures.reason_of(exc),
        )
        if upgrade.told_to_stop(upgrade.RETRY_AFTER):
            return
        # As it is now: another pid file may be in the place of the one before.
        pid_file = upgrade.hand_pid_file(self._pid_file)
        with contextlib.suppress(OSError):
            self._become_next(replace(handover, pid_file=pid_file))

    def _turn(self) -> None:
        """One wait and everything that follows from it."""
        self.scoreboard.own.stamp(Cell.LOOP_TICK)
        self._control.work(self._machine.state, self.scoreboard, self._let_go, self.plan.identity)
        self._control.publish(self._machine.state, self._links, self._listeners)
        now = self._host.now()
        due = min(self._machine.next_deadline(), self._manager.next_deadline(), self._control.deadline())
        due = min([due, *self._leftovers.deadlines()])
        timeout = None if due == NEVER else max(0.0, due - now)
        channels = {
            link.receiver.sock.fileno(): wid for wid, link in self._links.items() if link.receiver is not None
        }
        molds = self._spawner.mold_fds()
        readable = self._host.wait([self._signals.fileno(), *channels, *molds, *self._control.fds()], timeout)
        # Also where nothing is readable: one that could not be written there was heard all the same.
        happened, _ = self._signals.read()
        # Before the workers: what one of them has said counts only when it is known to be there.
        happened += self._spawner.hear()
        for fd in readable:
            if fd in channels:
                happened += self._hear(channels[fd])
        happened += self._control.hear() + self._reap()
        for event in happened or [events.Wake()]:
            self._dispatch(event)
        if self._exec_due and self._machine.can_exec():
            # Only now: what has happened besides in this turn, such as the end of a worker that is reaped already, the
            # next program would never hear of.
            self._exec_due = False
            self._dispatch(self._exec_upgrade())
        self._reaped.clear()
        self._leftovers.end_overdue()

    def _dispatch(self, event: Event) -> None:
        """Give an event to the machine; perform what it answers, and what comes of that."""
        queue = [event]
        while queue and self._exit_code is None:
            now = self._host.now()
            decided = self._machine.step(now, queue.pop(0))
            self._manager.after(now, self._machine.state, decided)
            # Before anybody is told to leave: new connections are for those who stay.
            self._steer()
            for action in decided:
                try:
                    queue += self._perform(action)
                except (OSError, MemoryError) as exc:
                    queue += failures.events_of(action, exc)
            self._manager.keep(self._listeners)
            self._show_title()

    def _hear(self, wid: int) -> list[Event]:
        """What a worker has said."""
        link = self._links.get(wid)
        if link is None or link.receiver is None:
            return []  # a mold has just said that it could not be forked
        messages, is_open = link.receiver.receive()
        if not is_open:
            close_quietly(link.receiver.sock)
            link.receiver = None
        for message in messages:
            if message.kind is Kind.REPORT:
                worker = self._machine.state.pool.workers.get(wid)
                logger.error("Report of %s:\n%s", worker.name if worker else f"worker {wid}", message.text)
        return [event for message in messages if (event := event_of(wid, message)) is not None]

    def _reap(self) -> list[Event]:
        found: list[Event] = []
        for gone in self._host.reap():
            self._reaped.add(gone.pid)
            if self._control.reaped(gone):
                continue
            # That it was forked was said before it could have ended.
            found += self._spawner.hear()
            wid = next((wid for wid, link in self._links.items() if link.pid == gone.pid), None)
            requests = 0
            out_of_memory = False
            if gone.code == -signal.SIGKILL:
                kills = self._host.oom_kills()
                out_of_memory = kills > self._oom_kills
                self._oom_kills = kills
            if wid is not None:
                requests = self._links[wid].row[Cell.REQUESTS]
                # What it said last may still be in its channel.
                found += self._hear(wid)
            found.append(events.Exited(gone.pid, gone.code, requests, out_of_memory))
        return found

    # --- actions -----------------------------------------------------------------------------

    def _perform(self, action: Action) -> list[Event]:
        """Do one thing; return what comes of it."""
        match action:
            case actions.Log(text, level):
                logger.log(level, "%s", text)
                self._control.note(text, level)
            case actions.Answer(number, ok, text):
                self._control.answer(number, ok, text)
            case actions.AskForReport(wid):
                ask(self._links[wid].receiver, Wish.REPORT)
            case actions.Spawn():
                return self._spawn(action)
            case actions.SpawnMold():
                return [self._spawn_mold(action)]
            case actions.EndMold(mid):
                self._spawner.signal_mold(mid, signal.SIGTERM, self._reaped)
            case actions.AbortMold(mid):
                self._spawner.signal_mold(mid, signal.SIGABRT, self._reaped)
            case actions.KillMold(mid):
                self._spawner.signal_mold(mid, signal.SIGKILL, self._reaped)
            case actions.ForgetMold(mid, pid):
                self._spawner.forget_mold(mid)
                self._leftovers.look(pid)
            case actions.TellToDrain(wid, final):
                self._tell_to_drain(wid, final)
            case actions.Abort(wid):
                self._signal(wid, signal.SIGABRT)
            case actions.Hurry(wid):
                self._signal(wid, signal.SIGQUIT)
            case actions.Kill(wid):
                pid = self._links[wid].pid
                self._signal_group(pid, signal.SIGKILL)
                self._signal(wid, signal.SIGKILL)
            case actions.Forget(wid, pid):
                self._forget(wid, pid)
            case actions.ReadHealth():
                headroom = self._host.has_headroom(smallest(self._links))
                return [events.HealthRead(readings_of(self._links), headroom)]
            case actions.Inspect(wid):
                return self._inspect(wid)
            case actions.LoadSettings(generation):
                return [self._load_settings(generation)]
            case actions.Adopt(generation):
                self._plans = {generation: self._plans[generation]}
                self._listeners.close_unused(self._plans.values())
            case actions.Abandon(generation):
                self._abandon(generation)
            case actions.ReopenLogs(wids):
                own = events.Reopened(0, reopen_or_complain(self.plan.identity.uid))
                self._control.reopen_logs()
                self._spawner.reopen_logs(self._reaped)
                return [own, *(gone for wid in wids for gone in self._reopen_in(wid))]
            case actions.CloseListeners():
                self._listeners.stop()
            case actions.StartTrial():
                return [upgrade.start_trial(self._host)]
            case actions.KillTrial(pid):
                self._signal_group(pid, signal.SIGKILL)
            case actions.ExecUpgrade():
                self._exec_due = True
            case actions.Exit(code):
                self._exit_code = code
            case _:
                assert_never(action)
        return []

    def _signal(self, wid: int, number: int) -> None:
        pid = self._links[wid].pid
        if pid not in self._reaped:
            self._host.signal(pid, number)

    def _signal_group(self, pid: int, number: int) -> None:
        if pid not in self._reaped:
            self._host.signal_group(pid, number)

    def _reopen_in(self, wid: int) -> list[Event]:
        link = self._links[wid]
        # One that a mold is still to fork finds the wish in its channel.
        if ask(link.receiver, Wish.REOPEN):
            return []
        if link.pid:
            self._signal(wid, signal.SIGUSR1)
        return [events.Reopened(wid)]  # it has no way to tell

    def _inspect(self, wid: int) -> list[Event]:
        pid = self._links[wid].pid
        return [] if pid in self._reaped else [events.Inspected(wid, self._host.is_stopped(pid))]

    def _spawn(self, action: actions.Spawn) -> list[Event]:
        state = self._machine.state
        plan = self._plans[action.generation]
        size = max(plan.spec.size, state.wanted)
        happened = self._spawner.spawn(action, plan, self._listeners, size, not state.ever_ready)
        # The number may have been another one's.
        self._reaped -= {event.pid for event in happened if isinstance(event, events.Spawned)}
        return happened

    def _spawn_mold(self, action: actions.SpawnMold) -> Event:
        event = self._spawner.spawn_mold(action, self._plans[action.generation])
        if isinstance(event, events.MoldSpawned):
            self._reaped.discard(event.pid)
        return event

    def _let_go(self, sockets: Sequence[socket.socket] = ()) -> None:
        """In a new process: close what is the master's, above all its ends of all channels. Were one of them open
        in a sibling, the end of the master would not be the end of the channel."""
        for link in self._links.values():
            if link.receiver is not None:
                close_quietly(link.receiver.sock)
        self._signals.close()
        self._pid_file.close_in_child()
        self._listeners.close_in_child(sockets)
        self._spawner.close_in_child()

    def _let_go_of_all(self, sockets: Sequence[socket.socket]) -> None:
        """In a new worker or mold: the control process's belongings as well."""
        self._let_go(sockets)
        self._control.close_in_child()

    def _tell_to_drain(self, wid: int, final: bool) -> None:
        link = self._links[wid]
        mode = Drain.RECYCLE
        if final:
            mode = Drain.FINAL
        elif not self._has_siblings(wid, link):
            mode = Drain.MOVE
        link.row[Cell.DRAIN] = mode
        self._signal(wid, signal.SIGTERM)

    def _has_siblings(self, wid: int, link: Link) -> bool:
        """Whether others will go on accepting on every socket of this worker."""
        if self._machine.state.wanted == 0:
            return True  # paused: the queue waits for the workers to come back
        worker = self._machine.state.pool.workers.get(wid)
        held = [listener.sock for listener in self._listeners.held.values()]
        if worker is None or not all(sock in held for sock in link.sockets):
            return False
        return not self.plan.reuse_port or worker.slot <= self._machine.state.wanted

    def _forget(self, wid: int, pid: int | None) -> None:
        link = self._links.pop(wid)
        if link.receiver is not None:
            close_quietly(link.receiver.sock)
        self.scoreboard.release(link.row)
        if pid is not None:
            self._leftovers.look(pid)

    def _told_to_stop(self) -> bool:
        """Whether a signal has come that ends the wait for what workers have left behind."""
        signalled, _ = self._signals.read()
        return any(isinstance(event, events.StopRequested) for event in signalled)

    # --- settings ----------------------------------------------------------------------------

    def _load_settings(self, generation: int) -> Event:
        try:
            plan = self._reload()
            for text in self.plan.check_change(plan):
                logger.warning("%s", text)
            plan = replace(plan, control=self.plan.control, pid_file=self.plan.pid_file)
            self._listeners.open(plan, plan.announce)
        except (PlanRejected, BindError) as exc:
            self._put_back()
            return events.SettingsRejected(generation, str(exc))
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with new settings: what runs runs on
            self._put_back()
            return events.SettingsRejected(generation, failures.with_notes(exc))
        self._plans[generation] = plan
        return events.SettingsLoaded(generation, plan.spec)

    def _abandon(self, generation: int) -> None:
        self._plans.pop(generation, None)
        self._put_back()
        self._listeners.close_unused(self._plans.values())

    def _put_back(self) -> None:
        """Logging and environment as the plan in effect has them."""
        try:
            self.plan.apply()
        except Exception as exc:  # noqa: BLE001 - it reads files of its own, which may be what is broken
            logger.error("The logging configuration cannot be read again: %s", failures.with_notes(exc))

    # --- upgrade -----------------------------------------------------------------------------

    def _exec_upgrade(self) -> Event:
        try:
            return self._exec_next()
        except (OSError, MemoryError) as exc:
            return events.TrialFailed(f"the new program could not be started: {failures.reason_of(exc)}")

    def _exec_next(self) -> Event:
        state = self._machine.state
        workers = hand_links(state.pool, self._links)
        handover = upgrade.hand_over(
            state, self.scoreboard.fd, workers, self._listeners, self._control.hand(), self._pid_file
        )
        return self._become_next(handover)

    def _become_next(self, handover: upgrade.Handover) -> Event:
        fd = upgrade.write(handover)
        for_next = self._manager.for_next_program(handover.addresses())
        environ = {**os.environ, **for_next, upgrade.HANDOVER_FD: str(fd)}
        return upgrade.become_next(self._host, environ, [fd, *handover.descriptors()], self._signals.put_back)

    # --- what shows --------------------------------------------------------------------------

    def _steer(self) -> None:
        """With a socket for each slot: new connections only for slots with a ready worker."""
        state = self._machine.state
        if state.phase in (Phase.RUNNING, Phase.LINGERING) and self.plan.reuse_port:
            ready = {worker.slot for worker in state.pool if worker.stage is Stage.READY}
            self._steering.point_at(ready, self.plan.addresses, self._listeners)

    def _show_title(self) -> None:
        title = f"uvicorn: master {self.plan.title} {self._machine.state.in_brief()}"
        if title != self._title:
            self._title = title
            with contextlib.suppress(Exception):
                self._set_title(title)

"""One life of a service with one system call of its master that fails: what becomes of it.

The service has all that a master can have: a TCP and a UNIX socket, a control process, a pid file, a log file, a service
manager. It is brought to the phase in question, `strace` is attached to the master alone, the phase runs with the
injection, and `strace` lets go. Then the service must serve, reload and stop as if nothing had happened, or must have
refused to start in order; either way no process and no socket may be left.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness import PATIENCE, Service, read_response, wait_for
from tests.e2e.manager import Manager
from tests.inject.faults import ERRORS, can_fail, places
from tests.ports import free_port

PHASES = ("start", "reload", "death", "reopen", "scale", "upgrade", "takeover", "stop")
SETUPS = ("fork", "preload")

WORKERS = 2
# A phase whose outcome nobody tells, since the line itself was lost, is over after so many seconds.
SETTLE = 4.0

CONFIG = """
app: app:app
bind: ["127.0.0.1:{port}", "unix:http.sock"]
workers: 2
control_socket: ctl.sock
pid_file: uvicorn.pid
preload: {preload}
log_config:
  version: 1
  disable_existing_loggers: false
  handlers:
    console: {{class: logging.StreamHandler, stream: ext://sys.stderr}}
    file: {{class: logging.FileHandler, filename: uvicorn.log}}
  loggers:
    uvicorn: {{handlers: [console, file], level: INFO}}
"""

LEFT = ("http.sock", "ctl.sock", "uvicorn.pid")


@dataclass(frozen=True, slots=True)
class Injection:
    """The `nth` call of this name in the phase fails with the error."""

    setup: str
    phase: str
    call: str
    error: str
    nth: int

    def __str__(self) -> str:
        return f"{self.setup} {self.phase}: {self.call} #{self.nth} {self.error}"


@dataclass(slots=True)
class Result:
    """What has become of it.

    Attributes:
        outcome: "served on", "refused", "ended", "not reached", or "not possible" where what has failed is no call
            that can; "FAILED" where a promise is broken.
        text: What it has said, or what is wrong.
        trace: The call as `strace` has seen it.
        calls: Which calls of each name can fail, by their ordinals in the phase.
    """

    injection: Injection
    outcome: str = ""
    text: str = ""
    trace: str = ""
    log: str = ""
    calls: dict[str, list[int]] = field(default_factory=dict)


class Broken(AssertionError):
    """A promise is broken."""


def usable() -> str:
    """Why nothing can be injected here; "" where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed: nothing else lets single system calls fail"
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "strace may not trace here"


@contextlib.contextmanager
def traced(pid: int, trace: Path, injection: Injection) -> Iterator[None]:
    """Within it the call fails."""
    # What the next program of an upgrade does in its first moments is the interpreter's start: not looked at.
    command = ["strace", "-q", "-b", "execve", "-p", str(pid), "-o", str(trace)]
    if injection.call:
        call = injection.call
        command += [
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:error={injection.error}:when={injection.nth}",
        ]
    else:
        command += ["-e", f"trace={','.join(f'?{kind}' for kind in ERRORS)}"]
    strace = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        status = Path(f"/proc/{pid}/status")
        tracer = re.compile(rf"TracerPid:\s+{strace.pid}\b")
        wait_for(lambda: strace.poll() is not None or tracer.search(status.read_text()), "strace")
        assert strace.poll() is None, strace.communicate()[1].decode()
        yield
    finally:
        strace.terminate()
        strace.communicate()
        if not trace.exists():
            trace.touch()


class Life:
    """One service from its start to its end."""

    def __init__(self, directory: Path, injection: Injection) -> None:
        self.directory = directory
        self.injection = injection
        self.trace = directory / "trace"
        self.port = free_port()
        preload = "true" if injection.setup == "preload" else "false"
        (directory / "uvicorn.yaml").write_text(CONFIG.format(port=self.port, preload=preload))
        self.manager = Manager(directory / "notify.sock")
        environ = self.manager.environ(INJECT_PHASE=injection.phase)
        self.service = Service(
            directory, "--config", "uvicorn.yaml", app="", environ=environ, module="tests.inject.begin"
        )

    # --- looking -----------------------------------------------------------------------------

    @property
    def exited(self) -> bool:
        return self.service.process.poll() is not None

    def ready(self) -> dict[int, int]:
        """The pids of the ready workers and their generations."""
        return {pid: generation for pid, generation in self._ready()}

    def _ready(self) -> Iterator[tuple[int, int]]:
        with contextlib.suppress(Exception):
            for pid, title in self.service.workers().items():
                found = re.match(r"uvicorn: worker \d+ .*gen=(\d+) ready", title)
                if found:
                    yield pid, int(found[1])

    def is_rolled(self, past: int, count: int = WORKERS) -> bool:
        """Whether so many workers are ready, and all are of later generations than `past`."""
        self.manager.drain()
        ready = self.ready()
        return len(ready) == count and min(ready.values()) > past

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return read_response(client)[0] == 200
        except OSError:
            return False

    def is_stopped(self) -> bool:
        """Whether it waits for `strace`."""
        if self.exited:
            raise Broken(f"ended with {self.service.process.returncode} before anything had failed")
        stat = Path(f"/proc/{self.service.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for it, or for the end of the master."""
        try:
            wait_for(lambda: self.exited or condition(), what)
        except AssertionError as exc:
            raise Broken(str(exc)) from None

    def settle(self, condition: Callable[[], bool], failure: str = "") -> None:
        """Wait until the phase is over, one way or the other."""
        deadline = time.monotonic() + SETTLE

        def over() -> bool:
            told = bool(failure) and failure in self.service.log
            return condition() or told or time.monotonic() > deadline

        self.wait(over, "the end of the phase")

    # --- living ------------------------------------------------------------------------------

    def run(self) -> Result:
        phase = self.injection.phase
        if phase == "start":
            self.wait(self.is_stopped, "the start")
            with traced(self.service.pid, self.trace, self.injection):
                self.service.send_signal(signal.SIGCONT)
                # Not `settle`: that it does not start is no outcome that may take its time.
                self.wait(lambda: self.is_rolled(0), "a start, or its end")
        else:
            self.wait(lambda: self.is_rolled(0), "the start")
            assert not self.exited, self.service.log
            if phase == "takeover":
                self.service.send_signal(signal.SIGUSR2)
                self.wait(self.is_stopped, "the next program")
            with traced(self.service.pid, self.trace, self.injection):
                PHASE_RUNS[phase](self)
        return self.judge()

    def reload(self) -> None:
        self.service.send_signal(signal.SIGHUP)
        self.settle(lambda: self.is_rolled(1), "Reload failed")

    def death(self) -> None:
        victim = next(iter(self.ready()))
        os.kill(victim, signal.SIGKILL)
        self.settle(lambda: self.is_rolled(0) and victim not in self.ready())

    def reopen(self) -> None:
        self.service.send_signal(signal.SIGUSR1)
        self.settle(lambda: "have reopened" in self.service.log, "Not all log files")

    def scale(self) -> None:
        self.service.send_signal(signal.SIGTTIN)
        self.settle(lambda: self.is_rolled(0, WORKERS + 1))

    def upgrade(self) -> None:
        self.service.send_signal(signal.SIGUSR2)
        self.settle(lambda: self.is_rolled(1), "Upgrade failed")

    def takeover(self) -> None:
        self.service.send_signal(signal.SIGCONT)
        self.settle(lambda: self.is_rolled(1))

    def stop(self) -> None:
        self.service.send_signal(signal.SIGTERM)
        self.wait(lambda: False, "the end")

    # --- judging -----------------------------------------------------------------------------

    def judge(self) -> Result:
        result = Result(self.injection)
        lines = self.trace.read_text().splitlines()
        result.calls = places(lines)
        result.trace = self.injected()
        if not self.exited:
            self.go_on()
            result.outcome = "served on"
        elif self.injection.phase == "stop":
            self.expect_code(0)
            result.outcome = "ended"
        elif self.injection.phase == "start":
            self.expect_code(2, 3)
            if "Traceback" in self.service.log:
                raise Broken("refused to start with a traceback")
            result.outcome = "refused"
            lines = self.service.log.strip().splitlines()
            result.text = lines[-1] if lines else ""
            if not lines and self.injection.call != "write":
                raise Broken("refused to start without a word")
        else:
            raise Broken(f"the master has ended with {self.service.process.returncode}")
        self.expect_nothing_left()
        if not result.trace:
            result.outcome = "not reached"
        elif not can_fail(result.trace):
            # The calls of a phase are not the same every time: another one than planned stood in this place.
            result.outcome = "not possible"
        return result

    def injected(self) -> str:
        """The call that has failed, as `strace` has seen it; "" where none has."""
        trace = self.trace.read_text() if self.trace.exists() else ""
        return next((line for line in trace.splitlines() if "(INJECTED)" in line), "")

    def go_on(self) -> None:
        """Whether it serves, reloads and stops as ever."""
        self.wait(self.answers, "an answer")
        last = max(self.ready().values(), default=0)
        self.service.send_signal(signal.SIGHUP)
        self.wait(lambda: self.is_rolled(last), "a reload afterwards")
        self.wait(self.answers, "an answer of the new generation")
        if self.exited:
            raise Broken(f"the master has ended with {self.service.process.returncode} afterwards")
        self.service.send_signal(signal.SIGTERM)
        self.wait(lambda: False, "the end")
        self.expect_code(0)

    def expect_code(self, *wanted: int) -> None:
        code = self.service.process.wait()
        if code not in wanted:
            raise Broken(f"ended with {code} instead of {wanted[-1]}")

    def expect_nothing_left(self) -> None:
        try:
            wait_for(lambda: not self.service.session(), "the end of every process")
        except AssertionError as exc:
            raise Broken(str(exc)) from None
        # A file that the system does not let it look at, or remove, stays; the next start replaces it.
        excused = self.injection.call in ("unlink", "newfstatat")
        left = [path for name in LEFT if not excused and (path := self.directory / name).exists()]
        if left:
            raise Broken(f"left behind: {', '.join(path.name for path in left)}")
        try:
            socket.create_server(("127.0.0.1", self.port)).close()
        except OSError as exc:
            raise Broken(f"the port is still bound: {exc}") from None

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.service.pid, signal.SIGCONT)
        self.service.__exit__(None)
        self.manager.__exit__()


PHASE_RUNS: dict[str, Callable[[Life], None]] = {
    "reload": Life.reload,
    "death": Life.death,
    "reopen": Life.reopen,
    "scale": Life.scale,
    "upgrade": Life.upgrade,
    "takeover": Life.takeover,
    "stop": Life.stop,
}


def live(injection: Injection) -> Result:
    """Live through one phase with one failure; a broken promise is an outcome like any other."""
    with tempfile.TemporaryDirectory(prefix="inject-") as name:
        life = Life(Path(name), injection)
        try:
            return life.run()
        except AssertionError as exc:
            seen = life.injected()
            if seen and not can_fail(seen):
                return Result(injection, "not possible", "", seen)
            return Result(injection, "FAILED", str(exc), seen, life.service.log)
        finally:
            life.end()


def record(setup: str, phase: str) -> dict[str, list[int]]:
    """Which calls of each name can fail in the phase, by their ordinals."""
    result = live(Injection(setup, phase, "", "", 0))
    if result.outcome == "FAILED":
        raise AssertionError(f"{setup} {phase} without any failure: {result.text}\n{result.log}")
    return result.calls

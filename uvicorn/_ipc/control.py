"""Between the master and its control process: fixed commands one way, snapshots and answers the other way.

A command is sixteen bytes; the master parses nothing else of what comes from there, and takes anything malformed for the
end of the channel. What goes to the control process is a kind, a length and JSON. The master never blocks on it and never
waits for it: where the other side does not read, only the newest snapshot and the newest answers are kept.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from uvicorn._ipc.channel import receive_what_came, send_what_fits
from uvicorn._ipc.scoreboard import Scoreboard
from uvicorn._privileges import UNCHANGED, Identity
from uvicorn._values import value

_COMMAND = struct.Struct("!BxxxIq")
_HEADER = struct.Struct("!BxxxI")
# So many commands are read at a time.
_BURST = 64
# A snapshot of 512 workers has some 150 KB; more than this is no message.
MAX_FRAME = 4 * 2**20
# So many answers wait for a control process that does not read. More than it has connections: one outcome may be
# everybody's, and whose answer is dropped waits for ever.
MAX_ANSWERS = 1024


class Verb(enum.IntEnum):
    """What can be asked of the master."""

    RELOAD = 1
    SCALE = 2  # the argument: how many workers
    RESTART = 3  # the argument: which worker
    DUMP = 4  # the argument: which worker
    REOPEN_LOGS = 5
    UPGRADE = 6
    STOP = 7


@value
class Command:
    """One request.

    Attributes:
        number: Comes back with the answer; never 0, and not one that the process before has used.
    """

    verb: Verb
    number: int
    argument: int = 0


@value
class Answer:
    """How a request ended: the text says so for people, as the log does."""

    number: int
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What the master knows of one worker; times are monotonic seconds.

    Attributes:
        id: Its slot, which people know it by.
        wid: Its number, never used twice.
        row: Its row of the scoreboard, where the numbers are.
    """

    id: int
    wid: int
    pid: int
    generation: int
    stage: str
    since: float
    ready_at: float | None
    retiring: str
    row: int


@value
class MoldView:
    """What the master knows of the mold that workers are forked from, or are to be.

    Attributes:
        memory: Its resident memory in bytes when it had loaded the application; most of it is shared with the workers.
    """

    pid: int
    generation: int
    stage: str
    since: float
    memory: int


@dataclass(frozen=True, slots=True)
class Happening:
    """One of the last lines of the master's log."""

    number: int
    at: float
    level: int
    text: str


@value
class Queue:
    """The accept queue of one address.

    Attributes:
        waiting: How many connections wait to be accepted.
        limit: How many may; further ones are not let in.
    """

    name: str
    waiting: int
    limit: int


# Why workers are replaced, or given up: the names that restarts are counted under.
RESTART_REASONS = (
    "died",
    "out_of_memory",
    "start_failed",
    "start_timeout",
    "stalled",
    "unresponsive",
    "drain_timeout",
    "limit_max_requests",
    "limit_worker_lifetime",
    "limit_worker_memory",
    "reloaded",
    "requested",
)


@dataclass(slots=True)
class Outcome:
    """How reloads, or upgrades, have ended: how often, and the last one."""

    succeeded: int = 0
    failed: int = 0
    ok: bool | None = None
    text: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What only the master knows; everything else is in the scoreboard.

    Attributes:
        molds: Where workers are forked from one; two while a reload loads another.
        restarts: How often workers were replaced, by reason.
        outcomes: Of "reload" and "upgrade".
        events: The last lines of the log, the oldest first.
        queues: Of the addresses that are served.
    """

    pid: int
    title: str
    started_at: float
    phase: str
    generation: int
    wanted: int
    ever_ready: bool
    paused: bool
    reloading: bool
    workers: list[WorkerView] = field(default_factory=list)
    molds: list[MoldView] = field(default_factory=list)
    restarts: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    events: list[Happening] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)


class _Kind(enum.IntEnum):
    SNAPSHOT = 1
    ANSWER = 2


class MasterEnd:
    """The master's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = b""
        self._rest = b""
        self._snapshot: Snapshot | None = None
        self._answers: deque[Answer] = deque(maxlen=MAX_ANSWERS)

    def receive(self) -> tuple[list[Command], bool]:
        """The commands that have come, and whether the channel is still open."""
        data = receive_what_came(self.sock, _BURST * _COMMAND.size)
        if not data:
            return [], data is None
        data = self._received + data
        whole = len(data) - len(data) % _COMMAND.size
        self._received = data[whole:]
        commands = []
        for number, request, argument in _COMMAND.iter_unpack(data[:whole]):
            try:
                commands.append(Command(Verb(number), request, argument))
            except ValueError:
                return commands, False
        return commands, True

    def publish(self, snapshot: Snapshot) -> None:
        """Let the other side see this; one that waits to be sent is dropped for it."""
        self._snapshot = snapshot

    def answer(self, answer: Answer) -> None:
        self._answers.append(answer)

    def flush(self) -> None:
        """Send what goes without waiting. What a state was asked for is seen before its answer is."""
        while self._send_rest():
            if self._snapshot is not None:
                snapshot, self._snapshot = self._snapshot, None
                self._rest = _frame(_Kind.SNAPSHOT, snapshot)
            elif self._answers:
                self._rest = _frame(_Kind.ANSWER, self._answers.popleft())
            else:
                return

    def _send_rest(self) -> bool:
        """Whether nothing of the message before is left."""
        self._rest = send_what_fits(self.sock, self._rest)
        return not self._rest

    @property
    def is_torn(self) -> bool:
        """Whether a message has been sent in part: only who has the rest can go on."""
        return bool(self._rest)


def _frame(kind: _Kind, content: Snapshot | Answer) -> bytes:
    payload = json.dumps(content, separators=(",", ":"), default=_fields).encode("ascii")
    return _HEADER.pack(kind, len(payload)) + payload


def _fields(content: Any) -> dict[str, Any]:
    """For JSON, a dataclass. `asdict` copies everything deeply: five times as slow, in the master's loop."""
    return {name: getattr(content, name) for name in content.__slots__}


class ControlEnd:
    """The control process's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    def send(self, command: Command) -> bool:
        """Send a command; False where that does not go now."""
        try:
            # Sixteen bytes into an empty or full buffer: all or nothing.
            self.sock.send(_COMMAND.pack(command.verb, command.number, command.argument))
        except OSError:
            return False
        return True

    def receive(self) -> tuple[list[Snapshot | Answer], bool]:
        """What has come, and whether the channel is still open."""
        data = receive_what_came(self.sock, 2**18)
        if not data:
            return [], data is None
        self._buffer += data
        found: list[Snapshot | Answer] = []
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if length > MAX_FRAME:
                return found, False
            if len(self._buffer) < end:
                break
            try:
                content = json.loads(self._buffer[_HEADER.size : end])
            except ValueError:
                return found, False
            del self._buffer[:end]
            found.append(Answer(**content) if kind == _Kind.ANSWER else _snapshot(content))
        return found, True


def _snapshot(content: dict[str, Any]) -> Snapshot:
    return Snapshot(
        **{
            **content,
            "workers": [WorkerView(**each) for each in content["workers"]],
            "molds": [MoldView(**each) for each in content["molds"]],
            "outcomes": {name: Outcome(**each) for name, each in content["outcomes"].items()},
            "events": [Happening(**each) for each in content["events"]],
            "queues": [Queue(**each) for each in content["queues"]],
        }
    )


@dataclass(frozen=True, slots=True)
class ControlStart:
    """Handed to the control process's main function.

    Attributes:
        channel: Its end of the channel.
        scoreboard: All rows.
        control: The listening UNIX socket for commands, or None.
        admin: The listening sockets for those who only look.
        read_only: Whether commands are refused.
        owner: Whose commands are taken, besides root's.
        master_pid: The master.
        title: The application's name, for the process title.
        identity: Whom it runs as.
    """

    channel: socket.socket
    scoreboard: Scoreboard
    control: socket.socket | None
    admin: list[socket.socket]
    read_only: bool
    owner: int
    master_pid: int
    title: str
    identity: Identity = UNCHANGED


ControlMain = Callable[[ControlStart], int]

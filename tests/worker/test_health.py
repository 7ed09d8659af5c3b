"""The health thread: its ticks, the report of a stalled event loop, and the end of the master."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.worker.starts import Started
from uvicorn._ipc.channel import Kind, Message
from uvicorn._ipc.scoreboard import Cell, Drain, microseconds
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn.worker import health
from uvicorn.worker.health import MAX_REPORT, TASK_FRAMES, HealthThread, stall_report

LIMIT = 20  # seconds after which a test has hung


class Rig:
    """A health thread whose work is done by hand."""

    def __init__(self, healthcheck: float = 5, serves: bool = True) -> None:
        self.started = Started()
        self.row = self.started.row
        self.server = Server(Config("no:app", log_config=None)) if serves else None
        self.orphaned = 0
        self.thread = HealthThread(
            self.row, self.started.start.sender, healthcheck, self.on_orphaned, self.server
        )

    def on_orphaned(self) -> None:
        self.orphaned += 1

    def loop_ticked(self, seconds_ago: float) -> None:
        self.row[Cell.LOOP_TICK] = microseconds() - int(seconds_ago * 1_000_000)

    def ready(self) -> None:
        self.row.stamp(Cell.READY)

    def beat(self) -> list[Message]:
        """One beat; return what it has said."""
        self.thread.beat()
        return self.started.told()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.started.close()


# --- ticks -------------------------------------------------------------------------------------


def test_a_beat_stamps_the_thread_and_leaves_the_event_loop_to_itself(rig: Rig) -> None:
    before = microseconds()
    rig.beat()
    assert before <= rig.row[Cell.THREAD_TICK] <= microseconds()
    assert rig.row[Cell.LOOP_TICK] == 0


def test_where_no_server_of_ours_runs_the_beat_is_all_there_is() -> None:
    rig = Rig(serves=False)
    rig.ready()
    before = microseconds()
    assert rig.beat() == []
    assert before <= rig.row[Cell.LOOP_TICK] <= microseconds()
    rig.started.close()


def test_a_beat_goes_on_with_a_message_of_which_only_a_part_has_fitted(rig: Rig) -> None:
    sender = rig.started.start.sender
    sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    text = "longer than what fits " * 1000
    assert sender.send(Kind.REPORT, text)
    received = rig.started.told()
    assert received == []
    while not received:
        received = rig.beat()
    assert received == [Message(Kind.REPORT, text)]


# The only way to end the thread, which goes on even as an orphan.
@pytest.mark.filterwarnings("ignore:Exception in thread uvicorn-health")
def test_the_thread_beats_until_it_is_an_orphan() -> None:
    rig = Rig(healthcheck=0.004)
    ended = threading.Event()

    def end() -> None:
        ended.set()
        raise SystemExit  # ends the thread

    rig.thread._on_orphaned = end
    assert rig.thread.daemon  # it keeps no process from ending
    rig.thread.start()
    for _ in range(3):
        rig.row[Cell.THREAD_TICK] = 0
        while not rig.row[Cell.THREAD_TICK]:  # a hang is ended by the limit of the test
            pass
    rig.started.close_master_end()
    assert ended.wait(LIMIT)
    rig.thread.join(LIMIT)
    assert not rig.thread.is_alive()
    rig.started.close()


# --- when to report ----------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "reported"), [(0, False), (2, False), (5.1, True), (60, True)])
def test_an_event_loop_that_is_late_is_reported(rig: Rig, late: float, reported: bool) -> None:
    rig.ready()
    rig.loop_ticked(late)
    assert [message.kind for message in rig.beat()] == [Kind.REPORT] * reported


def test_a_worker_that_is_not_ready_yet_is_not_late(rig: Rig) -> None:
    assert rig.beat() == []


def test_a_stall_is_reported_once(rig: Rig) -> None:
    rig.ready()
    rig.loop_ticked(6)
    assert len(rig.beat()) == 1
    assert rig.beat() == []


def test_the_next_stall_is_reported_again(rig: Rig) -> None:
    rig.ready()
    for _ in range(2):
        rig.loop_ticked(6)
        assert len(rig.beat()) == 1
        rig.loop_ticked(0)
        assert rig.beat() == []


def test_the_access_lines_that_wait_are_written_when_the_event_loop_stands_still(
    rig: Rig, process_state: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from uvicorn.protocols._access import BatchedAccessLog

    assert rig.server is not None
    Config("no:app").configure_logging()
    access = BatchedAccessLog(logging.getLogger("uvicorn.access"), lambda delay, callback: None)
    rig.server.server_state.access = access
    scope = {
        "client": ("192.0.2.1", 5),
        "method": "GET",
        "path": "/lost",
        "query_string": b"",
        "http_version": "1.1",
    }
    access.log({**scope, "type": "http", "root_path": "", "raw_path": b"/lost"}, 200)
    rig.ready()
    rig.loop_ticked(0)
    rig.beat()
    assert "/lost" not in capsys.readouterr().out
    rig.loop_ticked(6)
    rig.beat()
    assert "/lost" in capsys.readouterr().out


# --- the end of the master ---------------------------------------------------------------------


def test_the_end_of_the_channel_is_the_end_of_the_master(rig: Rig) -> None:
    rig.thread.listen(0)
    assert rig.orphaned == 0
    rig.started.close_master_end()
    rig.thread.listen(LIMIT)
    assert rig.orphaned == 1


def test_an_orphan_is_told_once(rig: Rig) -> None:
    rig.started.close_master_end()
    for _ in range(3):
        rig.thread.listen(0)
    assert rig.orphaned == 1


def test_an_orphan_beats_on_at_its_pace(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    rig.started.close_master_end()
    rig.thread.listen(0)
    monkeypatch.setattr(health.time, "sleep", slept.append)
    rig.thread.listen(1.0)
    assert slept == [1.0]  # and it does not spin on the closed channel


# --- the report --------------------------------------------------------------------------------


class Reported:
    """An application that blocks its event loop until another thread has reported on it."""

    def __init__(self) -> None:
        self.text = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.this_is_where_it_blocks()
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

    def this_is_where_it_blocks(self) -> None:
        def report() -> None:
            self.text = stall_report(self.server, 6.25)

        thread = threading.Thread(target=report)
        thread.start()
        thread.join()


def report_on(request: bytes, settings: dict[str, Any] | None = None) -> tuple[str, int]:
    """The report while this request is handled, and the client's port."""
    app = Reported()
    app.server = Server(Config(app, port=0, log_config=None, **(settings or {})))

    async def main() -> int:
        async with asyncio.timeout(LIMIT):
            serving = asyncio.create_task(app.server.serve(), name="the server")
            while not app.server.started:
                await asyncio.sleep(0)
            port = app.server.servers[0].sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            own: int = writer.get_extra_info("sockname")[1]
            await reader.readuntil(b"\r\n")
            writer.close()
            app.server.force_exit = app.server.should_exit = True
            await serving
        return own

    port = asyncio.run(main())
    return app.text, port


def test_the_report_begins_with_who_is_late() -> None:
    text, _ = report_on(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert text.startswith(f"The event loop of process {os.getpid()} has not run for 6.2 s.\n")
    assert not text.endswith("\n")


def test_the_report_shows_where_threads_are_except_for_its_own() -> None:
    text, _ = report_on(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert "Thread MainThread:\n" in text
    assert re.search(r'test_health\.py", line \d+, in this_is_where_it_blocks\n', text)
    assert "in stall_report" not in text


def test_the_report_names_the_request_in_flight() -> None:
    text, port = report_on(b"GET /slow%20path?secret HTTP/1.1\r\nHost: a\r\n\r\n")
    lines = text.splitlines()
    place = lines.index("Requests in flight: 1")
    assert re.fullmatch(rf"  GET /slow%20path from 127\.0\.0\.1:{port}, for \d+\.\d s", lines[place + 1])


def test_the_report_names_a_websocket() -> None:
    key = base64.b64encode(bytes(16))
    text, port = report_on(
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    assert re.search(rf"\n  WebSocket /chat from 127\.0\.0\.1:{port}, for \d+\.\d s\n", text)


def test_the_report_lists_the_tasks_of_the_event_loop() -> None:
    text, _ = report_on(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    match = re.search(r"^Tasks: (\d+)$", text, re.MULTILINE)
    assert match is not None
    listed = text[match.end() :]
    assert "  the server\n" in listed
    # The server's own task, down to what it waits in.
    assert re.search(
        r'  the server\n(    File .*\n)*    File ".*server\.py", line \d+, in _pause$', listed, re.MULTILINE
    )
    assert len(re.findall(r"^  \S", listed, re.MULTILINE)) == int(match[1])


def test_of_a_task_the_innermost_frames_are_shown(rig: Rig) -> None:
    async def deep(levels: int) -> None:
        if levels:
            await deep(levels - 1)
        else:
            await asyncio.Event().wait()

    async def main() -> str:
        assert rig.server is not None
        rig.server._loop = asyncio.get_running_loop()
        task = asyncio.create_task(deep(20), name="the deep one")
        await asyncio.sleep(0)
        text = stall_report(rig.server, 6)
        task.cancel()
        return text

    text = asyncio.run(main())
    shown = text[text.index("the deep one") :].splitlines()[1 : 1 + TASK_FRAMES]
    assert [line.rpartition(" ")[2] for line in shown] == ["deep"] * (TASK_FRAMES - 1) + ["wait"]


class Connection:
    """A connection with a request of which only this is known."""

    def __init__(self, **scope: Any) -> None:
        self.current = self
        self.scope = scope
        self.started_at = 0.0


def test_a_request_that_waits_for_its_turn_has_not_begun(rig: Rig) -> None:
    assert rig.server is not None
    rig.server.server_state.connections = {Connection(method="GET", raw_path=b"/", client=None)}
    assert "Requests in flight: 1\n  GET /, not begun" in stall_report(rig.server, 6)


def test_a_path_that_is_no_text_is_shown_all_the_same(rig: Rig) -> None:
    assert rig.server is not None
    rig.server.server_state.connections = {Connection(method="GET", raw_path=b"/\xff", client=None)}
    assert "  GET /\\xff, not begun" in stall_report(rig.server, 6)


def test_a_client_that_a_header_names_writes_no_terminal_sequences(rig: Rig) -> None:
    """X-Forwarded-For may be anything; C1 control characters are no ASCII, so the parsers let them pass."""
    assert rig.server is not None
    client = ("\x9b31m\u2028", 0)
    rig.server.server_state.connections = {Connection(method="GET", raw_path=b"/", client=client)}
    assert "  GET / from \\x9b31m\\u2028:0, not begun" in stall_report(rig.server, 6)


def test_half_a_report_says_that_it_is_not_complete(rig: Rig) -> None:
    assert rig.server is not None
    rig.server.server_state.connections = {Connection(method="GET", raw_path=None)}
    text = stall_report(rig.server, 6)
    assert "Thread MainThread:\n" not in text  # the report's own thread
    assert text.splitlines()[-1].startswith("(The report is not complete: AttributeError: ")


def test_idle_connections_are_not_in_the_report(rig: Rig) -> None:
    assert rig.server is not None
    idle = Connection()
    idle.current = None  # type: ignore[assignment]
    rig.server.server_state.connections = {idle}
    assert stall_report(rig.server, 6).endswith("Requests in flight: 0")


def test_a_report_has_an_end(rig: Rig) -> None:
    assert rig.server is not None
    rig.server.server_state.connections = {
        Connection(method="GET", raw_path=b"/" + b"x" * 1000, client=None) for _ in range(100)
    }
    assert len(stall_report(rig.server, 6)) == MAX_REPORT


# --- what the master wants -----------------------------------------------------------------------


@pytest.mark.parametrize("drain", [Drain.RECYCLE, Drain.MOVE, Drain.FINAL])
def test_a_server_is_told_to_leave_also_where_the_signal_was_lost(rig: Rig, drain: Drain) -> None:
    assert rig.server is not None
    rig.beat()
    assert not rig.server.should_exit
    rig.row[Cell.DRAIN] = drain
    rig.beat()
    assert rig.server.should_exit

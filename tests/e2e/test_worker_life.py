"""A worker's life as the master sees it: the three clocks, health, replacement, recycling, the end of an orphan."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e.harness import APP, Service, read_response, wait_for
from tests.e2e.load import Load


def test_a_killed_worker_is_replaced_and_only_its_own_requests_fail(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        with service.connect() as client:
            client.sendall(b"GET /slow?30 HTTP/1.1\r\nHost: a\r\n\r\n")
            victim = wait_for(
                lambda: next((pid for pid in service.workers() if _has_connection(pid)), None),
                "the connection",
            )
            os.kill(victim, signal.SIGKILL)
            assert read_response(client)[0] == 0
        service.wait_log(
            rf"Child process \[{victim}\] died: killed by SIGKILL \(perhaps out of memory\) \(worker=\d"
        )
        service.wait_ready(3)
        assert victim not in service.workers()
        assert service.request("/").status == 200
        assert service.stop() == 0


def _has_connection(pid: int) -> bool:
    import psutil

    return any(c.status == psutil.CONN_ESTABLISHED for c in psutil.Process(pid).net_connections("tcp"))


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_a_worker_that_exits_while_it_serves_is_replaced_whatever_its_code(tmp_path: Path, code: int) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        assert service.request(f"/exit?{code}").status == 0
        service.wait_log(rf"died: exit code {code} \(worker=\d gen=1 age=[0-9.]+ s requests=\d+\)")
        service.wait_ready(3)
        assert service.stop() == 0


def test_a_blocked_event_loop_is_reported_with_its_stack_and_replaced(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--timeout-worker-healthcheck", "1", "--timeout-worker-stall", "3")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(2)
        with service.connect() as client:
            client.sendall(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            service.wait_log(r"worker=\d gen=1 pid=\d+ is stalled: its event loop has not run for")
            service.wait_log(r"Report of worker=")
            service.wait_log(r'app\.py", line \d+, in block')  # the culprit
            service.wait_log(r"GET /block from 127\.0\.0\.1:\d+, for [0-9.]+ s")  # its request
            assert service.request("/").status == 200  # the sibling serves
            service.wait_log(r"Aborting worker=\d gen=1 pid=\d+: event loop stalled for 3 s")
        service.wait_log("Fatal Python error: Aborted")  # every thread's stack, by the fault handler
        service.wait_log(r"ended: killed by SIGABRT by the master")
        service.wait_ready(3)
        assert service.stop() == 0


def test_an_event_loop_that_goes_on_in_time_is_left_alone(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--timeout-worker-healthcheck", "1")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(2)
        before = set(service.workers())
        assert service.request("/block?2.5").body == b"unblocked"
        service.wait_log("is stalled")
        service.wait_log(r"goes on after")
        assert set(service.workers()) == before


def test_a_held_gil_is_aborted_with_a_stack(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--timeout-worker-healthcheck", "1")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(2)
        with service.connect() as client:
            client.sendall(b"GET /gil HTTP/1.1\r\nHost: a\r\n\r\n")
            service.wait_log(r"Aborting worker=\d gen=1 pid=\d+: no sign of life for 1 s")
            service.wait_log(r'app\.py", line \d+ in hold_gil')
            service.wait_log("ended: killed by SIGABRT by the master")
        service.wait_ready(3)
        assert service.stop() == 0


def test_a_process_that_somebody_has_stopped_is_reported_and_left_alone(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--timeout-worker-healthcheck", "1")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(2)
        victim = min(service.workers())
        os.kill(victim, signal.SIGSTOP)
        service.wait_log(rf"pid={victim} is stopped by somebody \(SIGSTOP, a debugger\); left alone")
        assert service.request("/").status == 200
        os.kill(victim, signal.SIGCONT)
        seen = time.monotonic()
        # Two more health checks: it is ready again and nobody has touched it.
        wait_for(lambda: time.monotonic() - seen > 2, "two health checks")
        assert victim in service.workers()
        assert "Aborting" not in service.log
        assert service.stop() == 0


def test_a_start_that_takes_too_long_is_aborted_and_counts_as_failed(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--timeout-worker-startup", "1")
    with Service(tmp_path, "--port", "0", *arguments, environ={"STARTUP": "600"}) as service:
        assert service.wait_exit() == 3
        service.wait_log("start-up not complete after 1 s")
        assert service.session() == []


def test_a_slow_start_is_not_shot_by_the_health_check(tmp_path: Path) -> None:
    arguments = ("--workers", "1", "--timeout-worker-healthcheck", "0.5")
    with Service(tmp_path, "--port", "0", *arguments, environ={"STARTUP": "2.5"}) as service:
        service.wait_ready(1)
        assert "Aborting" not in service.log
        assert service.stop() == 0


def test_failing_starts_are_retried_with_backoff_while_the_others_serve(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    (tmp_path / "app.py").write_text(
        "import os\nif os.path.exists('broken'):\n    raise RuntimeError('no luck today')\n" + APP
    )
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        flag.touch()
        os.kill(min(service.workers()), signal.SIGKILL)
        first = float(service.wait_log(r"could not start; next try in ([0-9.]+) s")[1])
        second = float(service.wait_log(r"could not start; next try in ([0-9.]+) s", 2)[1])
        assert 0.3 <= first <= 0.7 < second <= 1.3
        assert service.request("/").status == 200
        flag.unlink()
        service.wait_ready(3)
        assert service.stop() == 0


def test_a_crash_loop_ends_the_master_with_70(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APP + "\nimport threading\nthreading.Timer(0.2, os._exit, [9]).start()\n"
    )
    with Service(tmp_path, "--port", "0", "--workers", "1", "--limit-restarts", "3") as service:
        assert service.wait_exit() == 70
        assert "No worker is ready, and 3 had to be replaced within a minute" in service.log
        assert service.log.count("died: exit code 9") == 3
        assert service.session() == []


# --- recycling ---------------------------------------------------------------------------------


def test_workers_that_somebody_tells_to_leave_are_replaced_at_once_and_no_crash_loop(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", "--limit-restarts", "2") as service:
        service.wait_ready(2)
        with service.connect() as client:
            service.hold(client)
            for count in (1, 2, 3):
                for pid in [pid for pid, title in service.workers().items() if "ready" in title]:
                    os.kill(pid, signal.SIGTERM)
                service.wait_log("leaves: it was told to, and not by the master", 2 * count)
                service.wait_ready(2 + 2 * count)
            service.release()
            status, _, body = read_response(client)
        assert (status, body) == (200, b"held answer")
        assert "died" not in service.log
        assert service.request("/").status == 200
        assert service.stop() == 0


def test_limit_max_requests_replaces_workers_and_loses_nothing(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--limit-max-requests", "100", "--limit-max-requests-jitter", "50")
    with Service(tmp_path, "--port", "0", *arguments, "--no-access-log") as service:
        service.wait_ready(2)
        with Load(service.port, clients=4) as kept, Load(service.port, clients=4, keep_alive=False) as fresh:
            service.wait_log("is to be replaced: limit_max_requests: 1[0-5][0-9] requests answered", 6)
        assert service.stop() == 0
        assert not kept.failures
        assert not fresh.failures
    assert kept.answers > 100
    assert "died" not in service.log


def test_the_successor_is_ready_before_the_old_one_drains(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "1", "--limit-max-requests", "1") as service:
        service.wait_ready(1)
        old = service.serving_pid()
        service.wait_log(rf"Child process \[{old}\] ended: exit code 0")
        log = service.log
        assert log.index("is to be replaced") < log.index("gen=1 pid=", log.index("is to be replaced") + 40)
        assert re.search(r"ready after.*\n(.*\n)*.*Shutting down", log[log.index("is to be replaced") :])
        assert service.stop() == 0


def test_limit_worker_lifetime_replaces_workers_one_at_a_time(tmp_path: Path) -> None:
    arguments = ("--workers", "2", "--limit-worker-lifetime", "1s")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(2)
        service.wait_log("is to be replaced: limit_worker_lifetime: older than 1 s", 2)
        service.wait_ready(4)
        assert service.request("/").status == 200
        assert service.stop() == 0


# --- draining ----------------------------------------------------------------------------------


def test_a_draining_worker_answers_what_has_come_and_says_close(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "1") as service:
        service.wait_ready(1)
        with service.connect() as busy, service.connect() as kept, service.connect() as silent:
            kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            status, headers, body = read_response(kept)
            old = body.split()[0]
            assert "connection" not in headers
            service.hold(busy)
            wait_for(lambda: _connections(int(old)) == 3, "three connections")
            service.send_signal(signal.SIGHUP)
            service.wait_log("Shutting down")
            # The next request of a kept-alive connection, and the first of a silent one, are answered by the old one.
            for client in (kept, silent):
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                status, headers, body = read_response(client)
                assert (status, headers["connection"], body.split()[0]) == (200, "close", old)
            service.release()
            status, headers, body = read_response(busy)
            assert (status, headers["connection"], body) == (200, "close", b"held answer")
        service.wait_log(rf"Child process \[{int(old)}\] ended: exit code 0")
        assert service.stop() == 0


def _connections(pid: int) -> int:
    import psutil

    found = psutil.Process(pid).net_connections("tcp")
    return sum(1 for each in found if each.status == psutil.CONN_ESTABLISHED)


def test_an_idle_connection_of_a_recycled_worker_lives_until_its_keep_alive_is_over(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "1", "--timeout-keep-alive", "2") as service:
        service.wait_ready(1)
        with service.connect() as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            old = int(read_response(idle)[2].split()[0])
            service.send_signal(signal.SIGHUP)
            service.wait_log("Reload complete")
            assert old in service.workers()
            assert idle.recv(1) == b""  # closed when its time is over, not before
            service.wait_log(rf"Child process \[{old}\] ended")
        assert service.stop() == 0


def test_websockets_get_1012_when_their_worker_leaves(tmp_path: Path) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        with connect(f"ws://127.0.0.1:{service.port}/") as client:
            client.send("hello")
            assert client.recv() == "hello"
            service.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        service.wait_log("websocket gone 1012")
        assert service.stop() == 0


def test_streams_see_disconnect_before_the_grace_period_ends(tmp_path: Path) -> None:
    arguments = ("--workers", "1", "--timeout-graceful-shutdown", "2")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(1)
        with service.connect() as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            received = b""
            while b"tick" not in received:
                received += client.recv(1000)
            service.send_signal(signal.SIGTERM)
            while data := client.recv(1000):
                received += data
            assert received.endswith(b"4\r\nbye\n\r\n0\r\n\r\n")  # whole, not cut
        assert service.wait_exit() == 0
        assert "stream saw disconnect" in service.log
        assert "Cancel" not in service.log


def test_a_request_that_outlives_the_grace_period_is_cancelled(tmp_path: Path) -> None:
    arguments = ("--workers", "1", "--timeout-graceful-shutdown", "1")
    with Service(tmp_path, "--port", "0", *arguments) as service:
        service.wait_ready(1)
        with service.connect() as client:
            client.sendall(b"GET /slow?600 HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: _connections(min(service.workers())) == 1, "the connection")
            assert service.stop() == 0
            assert read_response(client)[0] == 0
        assert "Cancel 1 running task(s), timeout graceful shutdown exceeded" in service.log
        assert "Application shutdown complete." in service.log


def test_a_lifespan_shutdown_has_a_deadline_of_its_own(tmp_path: Path) -> None:
    arguments = ("--workers", "1", "--timeout-lifespan-shutdown", "1")
    with Service(tmp_path, "--port", "0", *arguments, environ={"SHUTDOWN": "600"}) as service:
        service.wait_ready(1)
        assert service.stop() == 0
        assert "Application shutdown not complete after 1 seconds" in service.log


@pytest.mark.parametrize("started", [True, False])
def test_a_worker_that_the_signal_does_not_reach_leaves_in_order(tmp_path: Path, started: bool) -> None:
    (tmp_path / "app.py").write_text(
        APP
        + "\nimport signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        # The server's own handler stands when the lifespan begins.
        + "plain, app = app, None\n"
        + "async def app(scope, receive, send):\n"
        + "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        + "    print('deaf', flush=True)\n"
        + "    await plain(scope, receive, send)\n"
    )
    environ = {} if started else {"STARTUP": "1000"}
    with Service(tmp_path, "--port", "0", "--workers", "2", environ=environ) as service:
        if started:
            service.wait_ready(2)
        else:
            service.wait_log("deaf", 2)
        assert service.stop() == 0
        assert len(re.findall(r"Child process \[\d+\] ended: exit code 0", service.log)) == 2
        assert "Aborting" not in service.log
        assert service.log.count("lifespan shutdown") == (2 if started else 0)


def test_a_worker_that_does_not_leave_is_aborted_and_killed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APP
        # Ignored from the start: on a busy machine the abort may come before the exit handlers run.
        + "\nimport signal, atexit\nsignal.signal(signal.SIGABRT, signal.SIG_IGN)\n"
        + "atexit.register(lambda: time.sleep(600))\n"
    )
    arguments = ("--timeout-graceful-shutdown", "0", "--timeout-lifespan-shutdown", "0")
    with Service(tmp_path, "--port", "0", "--workers", "1", *arguments) as service:
        service.wait_ready(1)
        assert service.stop() == 0
        assert re.search(r"Aborting worker=1 .*: not finished \d+ s after it was told to stop", service.log)
        assert "killed by SIGKILL by the master" in service.log


# --- orphans, leftovers, signals to workers ----------------------------------------------------


@pytest.mark.parametrize("busy", [False, True])
def test_when_the_master_is_killed_nobody_is_left(tmp_path: Path, busy: bool) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        port = service.port
        with service.connect() as client:
            if busy:
                service.hold(client)
            os.kill(service.pid, signal.SIGKILL)
            if busy:
                service.release()
                assert read_response(client)[2] == b"held answer"  # drained, not cut
        wait_for(lambda: not service.session(), "the end of the workers")
        with socket.create_server(("127.0.0.1", port)):
            pass  # the port is free


def test_an_orphan_leaves_nobody_behind_who_holds_the_port(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APP + "\nif os.fork() == 0:\n    import signal\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    time.sleep(1000)\n    os._exit(0)\n"
    )
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        port = service.wait_ready(2).port
        os.kill(service.pid, signal.SIGKILL)
        service.process.wait()
        wait_for(lambda: not service.session(), "the end of every process of the session")
        socket.create_server(("127.0.0.1", port)).close()


def test_a_blocked_orphan_is_killed(tmp_path: Path) -> None:
    arguments = ("--timeout-graceful-shutdown", "1", "--timeout-lifespan-shutdown", "1")
    with Service(tmp_path, "--port", "0", "--workers", "1", *arguments) as service:
        service.wait_ready(1)
        with service.connect() as client:
            client.sendall(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: sum(map(_connections, service.workers())) == 1, "the connection")
            os.kill(service.pid, signal.SIGKILL)
            wait_for(lambda: not service.session(), "the end of the worker")


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH]
)
def test_signals_meant_for_the_master_do_not_end_a_worker(tmp_path: Path, number: signal.Signals) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "1") as service:
        service.wait_ready(1)
        (worker,) = service.workers()
        os.kill(worker, number)
        assert service.serving_pid() == worker
        assert service.stop() == 0


def test_what_a_worker_leaves_behind_is_ended(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APP
        + "\nimport subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    )
    with Service(tmp_path, "--port", "0", "--workers", "1") as service:
        service.wait_ready(1)
        wait_for(lambda: len(service.session()) == 3, "the child of the worker")
        os.kill(min(service.workers()), signal.SIGKILL)
        service.wait_log("has left processes behind: terminated")
        service.wait_ready(2)
        wait_for(lambda: len(service.session()) == 3, "the end of the first child")
        assert service.stop() == 0

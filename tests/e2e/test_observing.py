"""What is shown agrees with what clients have counted, to the last request, whatever happened meanwhile."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.e2e.harness import PATIENCE, read_response, wait_for
from tests.e2e.load import REQUEST, Load
from tests.e2e.test_control import Controlled
from uvicorn.control.app import BODY_LIMIT
from uvicorn.control.process import HEAD_LIMIT

parser = pytest.importorskip("prometheus_client.parser")

Samples = dict[tuple[str, str], float]


def samples(service: Controlled) -> Samples:
    code, text = service.admin("/metrics")
    assert code == 200
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def counters(found: Samples) -> Samples:
    """Those that must not run backwards."""
    return {
        key: value for key, value in found.items() if key[0].endswith(("_total", "_count", "_sum", "_bucket"))
    }


def test_counts_agree_with_the_clients_over_reload_recycling_scaling_and_upgrade(tmp_path: Path) -> None:
    with Controlled(
        tmp_path, "--workers", "2", "--limit-max-requests", "400", "--limit-max-requests-jitter", "200"
    ) as service:
        service.wait_ready(2)
        before: Samples = {}

        def look() -> Samples:
            nonlocal before
            found = samples(service)
            for key, value in counters(before).items():
                assert found.get(key, 0.0) >= value, key
            before = found
            return found

        with Load(service.port, clients=6) as load:
            wait_for(lambda: look()["uvicorn_worker_restarts_total", "limit_max_requests"] >= 2, "recycling")
            for verb in (("reload",), ("scale", "3"), ("upgrade",), ("restart", "1"), ("scale", "1")):
                code, text = service.ctl(*verb)
                assert code == 0, (verb, text)
                look()
        assert not load.failures
        asked = float(load.answers)
        wait_for(lambda: look()["uvicorn_requests_total", ""] >= asked, "the last request")
        found = look()
        name = "uvicorn_request_duration_seconds"
        assert (
            found["uvicorn_requests_total", ""],
            found["uvicorn_responses_total", "2xx"],
            found[f"{name}_count", ""],
            found[f"{name}_bucket", "+Inf"],
            found["uvicorn_received_bytes_total", ""],
        ) == (asked, asked, asked, asked, asked * len(REQUEST % (b"/", b"")))
        # The page and `uvicornctl` have the same.
        for status in (service.seen(), service.status()):
            assert status["requests"] == asked
            assert sum(status["durations"]["counts"]) == asked
        assert service.stop() == 0


def test_a_killed_worker_takes_only_its_last_moment_with_it(tmp_path: Path) -> None:
    with Controlled(tmp_path, "--workers", "1") as service:
        service.wait_ready(1)
        for _ in range(5):
            assert service.request("/").status == 200
        # Sooner than the tick of a second would carry them over.
        wait_for(lambda: service.seen()["requests"] == 5, "the requests", patience=10)
        os.kill(service.serving_pid(), signal.SIGKILL)
        service.wait_ready(2)
        wait_for(lambda: service.request("/").status == 200, "the successor")
        found = wait_for(lambda: (seen := service.seen())["requests"] >= 6 and seen, "its request")
        assert found["requests"] in (6, 7)  # the one that told us whom to kill may be lost


def test_bytes_and_durations_are_those_of_the_wire(tmp_path: Path) -> None:
    with Controlled(tmp_path, "--workers", "1") as service:
        service.wait_ready(1)
        body = b"x" * 100_000
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
        with service.connect() as client:
            client.sendall(head + body)
            assert read_response(client)[2] == body
            client.sendall(b"GET /slow?0.3 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert read_response(client)[0] == 200
        found = wait_for(
            lambda: (seen := samples(service))["uvicorn_requests_total", ""] == 2 and seen, "both"
        )
        received = len(head) + len(body) + len(b"GET /slow?0.3 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert found["uvicorn_received_bytes_total", ""] == received
        assert 100_000 < found["uvicorn_sent_bytes_total", ""] < 101_000
        name = "uvicorn_request_duration_seconds"
        assert found[f"{name}_bucket", "0.25"] <= 1
        assert found[f"{name}_bucket", "+Inf"] == 2
        assert found[f"{name}_sum", ""] >= 0.3
        assert service.stop() == 0


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="Linux alone tells")
def test_who_waits_to_be_accepted_is_seen(tmp_path: Path) -> None:
    """Every worker is blocked; nothing is accepted, and the control process says how many wait."""
    with Controlled(
        tmp_path, "--workers", "1", "--timeout-worker-healthcheck", "100", "--backlog", "50"
    ) as service:
        service.wait_ready(1)
        with service.connect() as blocked:
            blocked.sendall(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: re.search(r"block", service.ctl("dump", "1")[1]), "the blocked worker")
            clients = [service.connect() for _ in range(3)]
            listener = f"127.0.0.1:{service.port}"
            wait_for(lambda: samples(service).get(("uvicorn_accept_queue", listener)) == 3, "the queue")
            assert samples(service)["uvicorn_accept_queue_limit", listener] == 50
            for client in clients:
                client.close()


def test_proportional_memory_is_less_than_resident_memory(tmp_path: Path) -> None:
    with Controlled(tmp_path, "--workers", "2") as service:
        service.wait_ready(2)
        found = wait_for(
            lambda: (seen := service.seen()) and all(worker["pss"] for worker in seen["workers"]) and seen,
            "what the kernel tells",
        )
        assert 0 < found["pss"] < found["memory"]
        assert service.stop() == 0


def test_the_socket_stays_the_same_one_over_reload_and_upgrade(tmp_path: Path) -> None:
    with Controlled(tmp_path, "--workers", "1") as service:
        service.wait_ready(1)
        before = (tmp_path / "c.sock").stat()
        for verb in ("reload", "upgrade"):
            assert service.ctl(verb)[0] == 0
            assert service.ctl("health")[0] == 0
            now = (tmp_path / "c.sock").stat()
            assert (now.st_ino, now.st_dev, now.st_mode) == (before.st_ino, before.st_dev, before.st_mode)
        assert service.stop() == 0


def test_requests_on_the_socket_are_bounded_in_size_and_time(tmp_path: Path) -> None:
    def ask(data: bytes) -> int:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(tmp_path / "c.sock"))
            client.sendall(data)
            return read_response(client)[0]

    with Controlled(tmp_path, "--workers", "1") as service:
        service.wait_ready(1)
        reload = b"POST /v1/reload HTTP/1.1\r\nHost: a\r\n"
        assert ask(b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * HEAD_LIMIT) == 431
        body = b"x" * (BODY_LIMIT + 1)
        assert ask(reload + b"Content-Length: %d\r\n\r\n" % len(body) + body) == 413
        # Half a head, and half a body: the server gives up, not the client.
        assert ask(b"GET / HTTP/1.1\r\n") == 408
        assert ask(reload + b"Content-Length: 100\r\n\r\nhalf") in (0, 408)
        assert service.status()["generation"] == 1
        assert service.ctl("health")[0] == 0
        assert service.stop() == 0


def test_a_stopped_control_process_is_replaced(tmp_path: Path) -> None:
    with Controlled(tmp_path, "--workers", "1") as service:
        service.wait_ready(1)
        assert service.ctl("health")[0] == 0
        pid = service.control_pid()
        os.kill(pid, signal.SIGSTOP)
        service.wait_log(rf"Control process \[{pid}\] gives no sign of life .*somebody has stopped it")
        assert service.control_pid(other_than=pid) != pid
        wait_for(lambda: service.ctl("health")[0] == 0, "an answer")
        assert service.stop() == 0


def test_a_socket_file_that_was_removed_comes_back(tmp_path: Path) -> None:
    with Controlled(tmp_path, "--workers", "1") as service:
        service.wait_ready(1)
        assert service.ctl("health")[0] == 0
        (tmp_path / "c.sock").unlink()
        service.wait_log("The control socket's file was removed: .*c.sock is opened again")
        assert wait_for(lambda: service.ctl("health")[0] == 0, "an answer")
        assert service.stop() == 0
        assert not (tmp_path / "c.sock").exists()

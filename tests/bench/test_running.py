"""A contender runs, is measured, and leaves nothing behind."""

import socket
import time
from pathlib import Path

import psutil
import pytest

from bench.contenders import CONTENDERS, Contender, Launch
from bench.loading import own_load
from bench.measure import least_seconds, turns
from bench.running import CannotRun, Server, Usage, environ, ran
from bench.scenarios import SCENARIOS, Load


def test_usage_is_what_has_been_added() -> None:
    used = Usage(3.5, 1.5, 70) - Usage(3.0, 1.0, 30)
    assert (used.user, used.system, used.wakeups, used.cpu) == (0.5, 0.5, 40, 1.0)


def test_a_contender_sees_nothing_of_the_callers_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UVICORN_PORT", "GRANIAN_WORKERS", "WEB_CONCURRENCY", "PYTHONASYNCIODEBUG"):
        monkeypatch.setenv(name, "1")
    made = environ()
    assert {"UVICORN_PORT", "GRANIAN_WORKERS", "WEB_CONCURRENCY", "PYTHONASYNCIODEBUG"}.isdisjoint(made)
    assert Path(made["PYTHONPATH"], "plain.py").exists()


def test_each_round_begins_with_another_one() -> None:
    servers: list[Server] = [object() for _ in range(3)]  # type: ignore[misc]
    orders = [turns(servers, number) for number in range(3)]
    assert all(set(order) == set(servers) for order in orders)
    assert {order[0] for order in orders} == set(servers)
    assert turns([], 2) == []


def test_many_connections_get_the_time_to_be_made() -> None:
    assert [least_seconds(SCENARIOS[f"connections-{count}"]) for count in (10, 1000, 5000)] == [1, 2, 6]
    assert least_seconds(SCENARIOS["fastapi-256"]) == 4


@pytest.mark.e2e
@pytest.mark.parametrize("load", [Load(), Load(close=True), Load(path="/ws", kind="websocket", body=1024)])
def test_what_a_load_has_cost_is_seen(load: Load) -> None:
    with Server(CONTENDERS["ours"], "plain:app") as server:
        before = server.usage()
        found = own_load(load, server.port, 1)
        used = server.usage() - before
    assert found["requests"] > 0
    assert found["failures"] == {}
    assert 0 < used.cpu / found["requests"] < 0.01


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["floor", "floor-parse"])
@pytest.mark.parametrize("body", [16, 1024, 100_000])
def test_the_floor_answers_messages(name: str, body: int) -> None:
    with Server(CONTENDERS[name], "plain:app", workers=2) as server:
        server.wait_workers(2)
        before = [ran(process.pid) for process in server.tree()]
        found = own_load(Load(path="/ws", kind="websocket", body=body), server.port, 1)
        after = [ran(process.pid) for process in server.tree()]
    assert found["failures"] == {}
    assert found["bytes"] > found["requests"] * body > 0
    assert all(0 <= late - early < 10 for early, late in zip(before, after, strict=True))
    assert sum(after) > sum(before)


@pytest.mark.e2e
def test_a_server_of_two_workers_leaves_nobody_behind() -> None:
    with Server(CONTENDERS["ours"], "plain:app", workers=2) as server:
        server.wait_workers(2)
        tree = server.tree()
        assert {*server.workers()} < {each.pid for each in tree}
        assert server.pss() > 10e6
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in tree)


@pytest.mark.e2e
def test_who_does_not_come_up_says_why() -> None:
    def command(launch: Launch) -> list[str]:
        return [str(launch.python), "-c", "raise SystemExit('no such thing')"]

    began = time.monotonic()
    with (
        pytest.raises(CannotRun, match="no such thing"),
        Server(Contender("broken", "broken", (), command), "plain:app"),
    ):
        pass
    assert time.monotonic() - began < 30


@pytest.mark.e2e
def test_a_load_on_nobody_counts_refusals_and_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    found = own_load(Load(connections=2), port, 1)
    assert found["requests"] == 0
    assert found["failures"]["refused"] > 0

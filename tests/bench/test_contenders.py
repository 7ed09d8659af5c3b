"""The tables of contenders, scenarios and probes fit together."""

from pathlib import Path

import pytest

from bench.contenders import CONTENDERS, Contender, Launch
from bench.loading import own, wrk
from bench.probes import PROBES
from bench.scenarios import GROWTH, SCENARIOS

EVERYTHING = Launch(
    python=Path("/venv/bin/python"),
    app="plain:app",
    port=8123,
    workers=3,
    access_log=Path("/logs/access.log"),
    tls=(Path("/tls/cert.pem"), Path("/tls/key.pem")),
    limit_max_requests=1000,
    keep_alive=77,
)
PLAIN = Launch(python=Path("/venv/bin/python"), app="plain:app", port=8123)


def test_no_name_is_used_twice() -> None:
    names = [*CONTENDERS, *SCENARIOS, *PROBES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("contender", CONTENDERS.values(), ids=lambda each: each.name)
def test_a_command_says_where_to_listen(contender: Contender) -> None:
    command = contender.command(PLAIN)
    assert command[0] == "/venv/bin/python"
    assert any("8123" in part for part in command)


@pytest.mark.parametrize(
    "contender", [each for each in CONTENDERS.values() if each.tells_start_up], ids=lambda each: each.name
)
def test_a_command_has_all_that_a_launch_asks_for(contender: Contender) -> None:
    command = contender.command(EVERYTHING)
    assert command[command.index("--workers") + 1] == "3"
    assert "/tls/cert.pem" in command
    assert "/tls/key.pem" in command
    assert "plain:app" in command
    if contender.name != "granian":  # it counts no requests, and keeps connections for ever
        assert "1000" in command
        assert "77" in command


@pytest.mark.parametrize("name", ["uvicorn", "ours"])
def test_access_lines_are_off_unless_a_scenario_is_about_them(name: str) -> None:
    assert "--no-access-log" in CONTENDERS[name].command(PLAIN)
    assert "--no-access-log" not in CONTENDERS[name].command(EVERYTHING)


def test_what_a_contender_cannot_do_is_something_that_scenarios_need() -> None:
    needed = {name for each in (*SCENARIOS.values(), *PROBES.values()) for name in (each.name, *each.needs)}
    for contender in CONTENDERS.values():
        assert contender.cannot <= needed


def test_the_floor_stands_only_beside_what_it_does() -> None:
    floor = CONTENDERS["floor-parse"].cannot
    assert SCENARIOS["hello"].possible(floor)
    assert not SCENARIOS["fastapi"].possible(floor)
    assert SCENARIOS["ws-64k"].possible(floor)
    assert not SCENARIOS["ws-deflate-1k"].possible(floor)
    assert SCENARIOS["workers-8"].possible(floor)
    assert not PROBES["reload"].possible(floor)


def test_everything_of_the_targets_has_a_scenario() -> None:
    numbers = {each.title.split()[0] for each in (*SCENARIOS.values(), *PROBES.values())}
    # 17, a worker that hangs, takes minutes: `bench.continuity` has it.
    assert {str(number) for number in range(1, 19)} - numbers == {"17"}


def test_growth_covers_orders_of_magnitude() -> None:
    assert [each.load.connections for each in GROWTH[:5]] == [1, 10, 100, 1000, 5000]
    assert [each.server["workers"] for each in GROWTH[5:]] == [1, 2, 4, 8, 16]


def test_wrk_gets_the_arguments_of_its_script_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.loading.WRK", "/usr/bin/wrk")
    command = wrk(SCENARIOS["other-heads"].load, 8123, 2, tls=False)
    assert command[: command.index("--")][-1] == "http://127.0.0.1:8123/"
    assert command[command.index("--") + 1 :][:4] == ["GET", "0", "1", "head"]
    assert command[-1].startswith("Sec-Fetch-Site: ")
    assert "https://127.0.0.1:8123/" in wrk(SCENARIOS["tls"].load, 8123, 2, tls=True)
    assert wrk(SCENARIOS["close"].load, 8123, 2, tls=False)[-1] == "Connection: close"


def test_our_client_runs_in_a_process_of_its_own() -> None:
    command = own(SCENARIOS["ws-1k"].load, 8123, 2, tls=False)
    assert command[1:3] == ["-m", "bench.client"]
    assert '"kind": "websocket"' in command[3]

import json
from pathlib import Path
from typing import Any

import pytest

from bench.record import BEGIN, END, beside, compact, merged, replaced, save

MACHINE = {"cores": 2, "cpu": "a", "system": "Linux", "python": "3.11", "load": [1.23456789, 2]}


def run(**fields: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "machine": MACHINE,
        "contenders": ["ours"],
        "versions": {"ours": {}},
        "failures": {},
        "rounds": 3,
    }
    return {**usual, "scenarios": [], "probes": [], "samples": [], "probed": [], **fields}


def sample(scenario: str, cpu: float) -> dict[str, Any]:
    return {"scenario": scenario, "cpu": cpu}


def test_only_what_is_between_the_marks_is_written_again() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = replaced(page, "new\n")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert replaced(once, "new\n") == once


@pytest.mark.parametrize("page", ["", BEGIN, END])
def test_a_page_without_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        replaced(page, "new")


def test_digits_without_meaning_are_dropped() -> None:
    assert compact(run(samples=[sample("hello", 12.3456789)]))["samples"][0]["cpu"] == 12.346


def test_a_merge_replaces_what_was_measured_again() -> None:
    older = run(
        scenarios=["hello", "tls"],
        probes=["stop"],
        samples=[sample("hello", 1), sample("tls", 2)],
        probed=[sample("stop", 3)],
        failures={"hello": {"granian": "why"}, "tls": {"granian": "why"}},
    )
    newer = run(scenarios=["hello"], samples=[sample("hello", 9)], contenders=["ours", "uvicorn"])
    found = merged(older, newer)
    assert found["samples"] == [sample("tls", 2), sample("hello", 9)]
    assert (found["scenarios"], found["probes"]) == (["tls", "hello"], ["stop"])
    assert found["probed"] == [sample("stop", 3)]
    assert found["failures"] == {"tls": {"granian": "why"}}
    assert found["contenders"] == ["ours", "uvicorn"]


def test_what_is_said_of_the_rounds_holds_for_all_that_was_measured() -> None:
    few, many = run(rounds=2, samples=[sample("tls", 1)]), run(rounds=7, samples=[sample("hello", 1)])
    probed = run(rounds=1, probed=[sample("stop", 1)], probes=["stop"])
    assert merged(few, many)["rounds"] == merged(many, few)["rounds"] == 2
    assert merged(many, probed)["rounds"] == 7


def test_runs_of_two_machines_are_not_merged() -> None:
    with pytest.raises(ValueError, match="different machines"):
        merged(run(), run(machine={**MACHINE, "cores": 64}))


def test_samples_are_saved_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    save(run(samples=[sample("hello", 1.5), sample("tls", 2.5)]), path)
    assert json.loads(path.read_text())["samples"] == [sample("hello", 1.5), sample("tls", 2.5)]
    assert '  {"scenario": "tls", "cpu": 2.5}' in path.read_text().splitlines()


def test_runs_on_other_versions_are_found_in_their_order(tmp_path: Path) -> None:
    for version in ("3.13.0", "3.9.1", "3.12.1"):
        short = version.rpartition(".")[0]
        save(run(machine={**MACHINE, "python": version}), tmp_path / f"samples-{short}.json")
    save(run(), tmp_path / "samples.json")
    assert [each["machine"]["python"] for each in beside(tmp_path)] == ["3.9.1", "3.12.1", "3.13.0"]

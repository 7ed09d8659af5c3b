from typing import Any

import pytest

from bench.report import Page, failures, growing, growth_points, number, table, versus

PAGE = Page(
    titles={"hello": "1 hello", "ours": "this server", "start-8": "13 start", "workers-2": "two"},
    targets={"hello": 0.45},
    p99={"hello": None, "fastapi": 0.3},
    probe_targets={"start-8": {"s": "0.25"}},
)


def sample(scenario: str, contender: str, turn: int, cpu: float, **more: Any) -> dict[str, Any]:
    usual = {"rate": 1e6 / cpu, "p50": 0.5, "p99": 5.0, "p999": 8.0, "failures": {}, "pss": 30e6}
    return {"scenario": scenario, "contender": contender, "round": turn, "cpu": cpu, **usual, **more}


def run(samples: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    names = list(dict.fromkeys(each["scenario"] for each in samples))
    machine = {"cores": 2, "cpu": "a cpu", "system": "Linux 6", "python": "3.11.7", "load": [0.1, 0.2]}
    usual: dict[str, Any] = {
        "date": "2026-11-25",
        "machine": machine,
        "tool": "wrk",
        "rounds": 3,
        "seconds": 1,
        "contenders": ["ours", "uvicorn", "granian"],
        "versions": {"uvicorn": {"uvicorn": "0.54.0"}},
        "scenarios": names,
        "probes": [],
        "failures": {},
        "samples": samples,
        "probed": [],
    }
    return {**usual, **more}


HELLO = [
    *(sample("hello", "ours", turn, cpu) for turn, cpu in enumerate([10.0, 11.0, 30.0])),
    *(sample("hello", "uvicorn", turn, cpu) for turn, cpu in enumerate([20.0, 22.0, 60.0])),
]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.123, "0.12"), (9.876, "9.88"), (12.34, "12.3"), (4427.4, "4,427")]
)
def test_a_number_has_no_more_digits_than_mean_anything(value: float, text: str) -> None:
    assert number(value) == text


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"


def test_contenders_are_compared_in_the_rounds_that_both_have() -> None:
    found = versus(HELLO[1:], "hello", "ours", "uvicorn")
    assert found is not None
    assert (found.median, found.count) == (0.5, 2)
    assert versus(HELLO, "hello", "ours", "granian") is None


def test_the_summary_has_the_ratio_beside_the_target() -> None:
    text = PAGE.overview(run(HELLO))
    assert "| 1 hello | 11.0 (10.0) | 22.0 (20.0) | 0.50 ±0.00 | 0.45 |  |" in text
    assert "granian" not in text.partition("| scenario")[2].partition("of uvicorn")[0]
    assert "2 cores (a cpu)" in text
    assert "uvicorn 0.54.0" in text


def test_latencies_stand_where_there_is_a_target_for_them() -> None:
    waiting = [
        sample("fastapi", name, turn, 80.0, p50=2.0, p99=p99, p999=150.0)
        for name, p99 in (("ours", 5.0), ("uvicorn", 50.0))
        for turn in range(3)
    ]
    text = PAGE.overview(run([*HELLO, *waiting])).partition("### Latencies")[2]
    assert "| fastapi | 2.00 / 5.00 / 150 | 2.00 / 50.0 / 150 | 0.10 | 0.30 |" in text
    assert "1 hello" not in text
    assert "### Latencies" not in PAGE.overview(run(HELLO))


def test_details_have_throughput_latency_failures_and_memory() -> None:
    cut = sample("hello", "uvicorn", 3, 22.0, failures={"cut": 2, "timeout": 1})
    text = PAGE.details(run([*HELLO, cut]))
    assert "| this server | **11.0** (10.0) | 9% | 0.50 | 90,909 | 0.50 | 5.00 | 8.00 | 0 | 30 |" in text
    assert "| 2 cut, 1 timeout | 30 |" in text


def test_failures_are_summed_by_kind() -> None:
    assert failures([{"failures": {"cut": 1}}, {"failures": {"cut": 2, "refused": 1}}]) == "3 cut, 1 refused"
    assert failures([{"failures": {}}]) == "0"


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("workers-8", "workers", 8), ("connections-5000", "connections", 5000), ("workers-8", "connections", None),
     ("ws-16", "workers", None), ("workers-x", "workers", None)],
)  # fmt: skip
def test_growth_is_told_by_the_name(name: str, kind: str, count: int | None) -> None:
    assert growing(name, kind) == count


def test_growth_is_a_table_of_its_own() -> None:
    grown = run([*HELLO, sample("workers-2", "ours", 0, 15.0), sample("workers-8", "ours", 0, 18.0)])
    assert growth_points(grown, "workers") == {"ours": {2: 15.0, 8: 18.0}}
    text = PAGE.overview(grown)
    assert "| workers | 2 | 8 |\n|---|---|---|\n| this server | 15.0 | 18.0 |" in text
    assert "| two |" not in text


def test_what_is_no_load_shows_its_extremes_and_targets() -> None:
    probed = [
        {"scenario": "start-8", "contender": "ours", "round": turn, "figures": {"s": seconds}}
        for turn, seconds in enumerate([0.25, 0.5, 0.3])
    ]
    text = PAGE.overview(run([], probes=["start-8"], probed=probed))
    assert "| this server | 0.30 (0.25 to 0.50) |\n| target | 0.25 |" in text


def test_counts_have_no_fractions() -> None:
    probed = [
        {"scenario": "start-8", "contender": "ours", "round": turn, "figures": {"failed": count, "none": 0.0}}
        for turn, count in enumerate([0.0, 7.0, 2.0])
    ]
    assert "| this server | 2 (0 to 7) | 0 |" in PAGE.overview(run([], probes=["start-8"], probed=probed))


def test_who_is_missing_is_said_in_one_line() -> None:
    text = PAGE.overview(run(HELLO, failures={"hello": {"granian": "does not start. Its log:\nmuch"}}))
    assert "* 1 hello: granian: does not start. Its log:\n" in text
    assert "much" not in text


def test_versions_of_python_stand_beside_one_another() -> None:
    newer = run([sample("hello", "ours", 0, 5.0), sample("hello", "granian", 0, 20.0)])
    newer["machine"] = {**newer["machine"], "python": "3.13.0"}
    lines = PAGE.overview(run([*HELLO, sample("start-8", "ours", 0, 1.0)]), [newer]).splitlines()
    place = lines.index("### On other versions of Python")
    assert (
        "| scenario | 3.11: µs | of uvicorn | of granian | 3.13: µs | of uvicorn | of granian | target |"
        in lines
    )
    assert "| 1 hello | 11.0 | 0.50 |  | 5.00 |  | 0.25 | 0.45 |" in lines[place:]
    assert not any("start" in line for line in lines[place:])

"""Dashboard and alerts: every expression parses, and speaks of metrics, labels and values that a service really answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.control.test_view import rows, status
from tests.e2e.harness import ROOT
from tests.ipc.test_control import SNAPSHOT
from uvicorn._ipc.control import MoldView
from uvicorn.control import metrics

parser = pytest.importorskip("prometheus_client.parser")
promql = pytest.importorskip(
    "promql_parser", reason="needs promql-parser, which is not built for this system"
)

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "uvicorn.json").read_text())
RULES = [
    rule for group in yaml.safe_load((GRAFANA / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
# What Prometheus itself adds to each target.
FROM_PROMETHEUS = {"up": {"job": {"uvicorn"}, "instance": set()}}
TARGET_LABELS = ("job", "instance")
# What Grafana puts in.
VARIABLES = {"$job": ".*", "$instance": ".*", "$__rate_interval": "1m"}

Known = dict[str, dict[str, set[str]]]


def known() -> Known:
    """All metrics, with their labels and the values of these."""
    full = status(
        rows(DURATIONS=1),
        pss={41: 1000, 42: 1000},
        molds=[MoldView(7, 1, "ready", 0.0, 1000)],
        workers=[SNAPSHOT.workers[0]],
    )
    content, _ = metrics.exposition(full)
    found: Known = {name: dict(labels) for name, labels in FROM_PROMETHEUS.items()}
    for family in parser.text_string_to_metric_families(content.decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {label: set() for label in TARGET_LABELS})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


KNOWN = known()


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield from (panel, *panel.get("panels", ()))


def expressions() -> Iterator[tuple[str, str]]:
    """Where each expression stands, and what it is with the variables filled in."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    shown = [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", ())]
    marks = [(each["name"], each["expr"]) for each in DASHBOARD["annotations"]["list"]]
    for place, text in (*shown, *marks):
        yield place, filled(text)


def filled(text: str) -> str:
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    assert "$" not in text, text
    return text


class Selectors:
    """The selectors of an expression."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.by: set[str] = set()

    def visit(self, node: Any) -> bool:
        match node:
            case promql.VectorSelector():
                self.found.append(node)
            case promql.MatrixSelector():
                self.found.append(node.vector_selector)
            case promql.AggregateExpr() if node.modifier is not None:
                self.by |= set(node.modifier.labels)
        return True


def selectors(text: str) -> Selectors:
    seen = Selectors()
    promql.walk(promql.parse(text), seen.visit)
    assert seen.found, text
    return seen


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("place", "text"), EXPRESSIONS, ids=[place for place, _ in EXPRESSIONS])
def test_every_expression_speaks_of_what_there_is(place: str, text: str) -> None:
    seen = selectors(text)
    labels: set[str] = set()
    for selector in seen.found:
        assert selector.name in KNOWN, f"{place}: there is no metric {selector.name}"
        labels |= set(KNOWN[selector.name])
        for matcher in selector.matchers.matchers:
            values = KNOWN[selector.name].get(matcher.name)
            assert values is not None, f"{place}: {selector.name} has no label {matcher.name}"
            if matcher.name in TARGET_LABELS:
                continue
            for word in matcher.value.split("|"):
                assert word in values, f"{place}: {matcher.name} of {selector.name} is never {word!r}"
    assert seen.by <= labels, f"{place}: no label {seen.by - labels}"


def test_everything_that_is_told_is_shown() -> None:
    shown = {
        selector.name
        for place, text in EXPRESSIONS
        if place not in {rule["alert"] for rule in RULES}
        for selector in selectors(text).found
    }
    # A histogram's `_created` and the like are not there: what is left out is left out by name.
    assert set(KNOWN) - shown - set(FROM_PROMETHEUS) == set()


def test_rates_are_of_counters_and_gauges_are_not_summed_over_time() -> None:
    """`rate` of a gauge, and a counter as it is, are numbers without a meaning."""
    counted = ("_total", "_bucket", "_sum", "_count")
    for place, text in EXPRESSIONS:
        for name in re.findall(r"\b(uvicorn_\w+)", text):
            is_rate = re.search(rf"\b(rate|increase)\({name}\b", text) is not None
            assert is_rate == name.endswith(counted), (place, name)


def test_legends_name_labels_that_are_left() -> None:
    for panel in panels():
        for target in panel.get("targets", ()):
            seen = selectors(filled(target["expr"]))
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            left = seen.by or set().union(*(KNOWN[selector.name] for selector in seen.found))
            assert named <= left, panel["title"]


def test_panels_do_not_cover_one_another() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels()}) == len(list(panels()))


def test_every_alert_says_what_and_where_and_how_bad() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "warn"), rule
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"], rule
        if "for" in rule:
            promql.parse_duration(rule["for"])


def test_the_files_fit_together() -> None:
    prometheus = yaml.safe_load((GRAFANA / "prometheus.yml").read_text())
    assert all((GRAFANA / name).is_file() for name in prometheus["rule_files"])
    assert prometheus["scrape_configs"][0]["job_name"] in FROM_PROMETHEUS["up"]["job"]
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    assert source["datasources"][0]["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    provider = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "uvicorn.yml").read_text())
    readme = (GRAFANA / "README.md").read_text()
    assert provider["providers"][0]["options"]["path"] in readme
    for path in GRAFANA.rglob("*.*"):
        assert path.name == "README.md" or str(path.relative_to(GRAFANA)) in readme, path

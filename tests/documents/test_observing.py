"""docs/observing.md names every metric, with its type and its labels, and every alert; and nothing else."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.control.test_view import rows, status
from tests.e2e.harness import ROOT
from tests.ipc.test_control import SNAPSHOT
from uvicorn._ipc.control import RESTART_REASONS, MoldView
from uvicorn.control import metrics

parser = pytest.importorskip("prometheus_client.parser")

PAGE = (ROOT / "docs" / "observing.md").read_text()
# A row of the table of metrics: names, each perhaps with a label; the type.
ROW = re.compile(r"^\| (`uvicorn_[^|]*) \| (\w+) \| (.*) \|$", re.MULTILINE)
NAME = re.compile(r"`(uvicorn_\w+)(?:\{([\w,]+)\})?`")


def test_the_table_has_every_metric_with_its_type_and_labels() -> None:
    written = {
        name: (kind, set(labels.split(",")) if labels else set())
        for names, kind, _ in ROW.findall(PAGE)
        for name, labels in NAME.findall(names)
    }
    full = status(
        rows(), pss={41: 1}, workers=SNAPSHOT.workers[:1], molds=[MoldView(7, 1, "ready", 0.0, 1000)]
    )
    content, _ = metrics.exposition(full)
    told = {}
    for family in parser.text_string_to_metric_families(content.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        told[name] = (family.type, {label for each in family.samples for label in each.labels} - {"le"})
    assert written == told


def test_every_reason_for_a_restart_is_named() -> None:
    (meaning,) = (text for names, _, text in ROW.findall(PAGE) if "worker_restarts" in names)
    assert set(re.findall(r"`(\w+)`", meaning)) == set(RESTART_REASONS)


def test_every_alert_is_explained() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "grafana" / "rules.yml").read_text())
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert re.findall(r"^\| `(Uvicorn\w+)` \|", PAGE, re.MULTILINE) == alerts

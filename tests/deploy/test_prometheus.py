"""deploy/grafana in a real Prometheus: what the dashboard asks is answered, and the alerts fire when they have to."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client
import yaml

from tests.deploy.test_proxies import admin_port, replaced
from tests.e2e.harness import APP, PATIENCE, ROOT, Service, wait_for
from tests.e2e.load import Load
from tests.ports import free_port

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "uvicorn.json").read_text())
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((GRAFANA / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
}
# What Grafana would put in, but for the interval: so long that nothing of the test has left it before it is asked for.
VARIABLES = {"$job": ".*", "$instance": ".*", "$__rate_interval": "5m"}

BROKEN = """
async def broken(scope, receive, send):
    await answer(send, b"broken", 500)

ROUTES["/broken"] = broken
"""

needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield from (panel, *panel.get("panels", ()))


def shown() -> list[tuple[str, str]]:
    """Where each expression of the dashboard stands, and what Grafana asks for it."""
    found = [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", ())]
    found += [(mark["name"], mark["expr"]) for mark in DASHBOARD["annotations"]["list"]]
    filled = []
    for place, text in found:
        for name, value in VARIABLES.items():
            text = text.replace(name, value)
        filled.append((place, text))
    return filled


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- a service that everything has happened to ------------------------------------------------------


class Asked:
    """The HTTP interface of a Prometheus.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            address = f"http://127.0.0.1:{self._port}/-/ready"
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                return bool(answer.status == 200)
        return False

    def get(self, path: str, **arguments: str) -> Any:
        """Its data; an expression that it cannot evaluate is a failure with its own words."""
        address = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{arguments}: {exc.read().decode()}") from exc

    def values(self, text: str) -> list[float]:
        """The values of the series that the expression has now, as far as they are numbers."""
        values = [float(series["value"][1]) for series in self.get("query", query=text)["result"]]
        return [value for value in values if math.isfinite(value)]


@contextlib.contextmanager
def prometheus(directory: Path, admin: int) -> Iterator[Asked]:
    """A Prometheus with our configuration, but for the address and for being quicker."""
    assert PROMETHEUS is not None
    text = replaced(
        (GRAFANA / "prometheus.yml").read_text(),
        ("127.0.0.1:9000", f"127.0.0.1:{admin}"),
        ("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s"),
    )
    (directory / "prometheus.yml").write_text(text)
    shutil.copy(GRAFANA / "rules.yml", directory)
    port = free_port()
    command = [
        PROMETHEUS,
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
    ]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        asked = Asked(port)
        try:
            wait_for(lambda: asked.ready() or process.poll() is not None, "Prometheus")
            assert process.poll() is None, (directory / "prometheus.log").read_text()
            yield asked
        finally:
            process.kill()
            process.wait()


def ask(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        connection.getresponse().read()


@pytest.mark.e2e
@needs_prometheus
def test_every_panel_and_every_alert_is_answered(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP + BROKEN)
    options = ("--workers", "2", "--port", "0", "--admin", "127.0.0.1:0", "--preload", "--no-access-log")
    with Service(tmp_path, *options) as service:
        service.wait_ready(2)
        with prometheus(tmp_path, admin_port(service)) as asked:
            wait_for(lambda: asked.values('up{job="uvicorn"} == 1'), "a scrape")
            wait_for(lambda: asked.values("uvicorn_generation == 1"), "what was before")
            ask(service.port, "/exit")
            service.wait_ready(3)
            service.send_signal(signal.SIGHUP)
            service.wait_log("Reload complete")
            slow = threading.Thread(target=ask, args=(service.port, "/slow?1"))
            slow.start()
            open_one = websockets.sync.client.connect(f"ws://127.0.0.1:{service.port}/")
            with (
                open_one,
                Load(service.port, clients=1),
                Load(service.port, clients=1, path="/broken"),
            ):
                for place, text in shown():
                    wait_for(lambda text=text: asked.values(text), f"a value for {place}: {text}")
                wait_for(lambda: asked.values("uvicorn_websockets") == [1], "the WebSocket")
            slow.join()
            evaluated(asked)
        assert service.stop() == 0


def evaluated(asked: Asked) -> None:
    """Every rule has been evaluated without an error, and what has just happened has raised what it must."""

    def rules() -> list[dict[str, Any]]:
        (group,) = asked.get("rules")["groups"]
        found: list[dict[str, Any]] = group["rules"]
        return found

    wait_for(lambda: all(rule["health"] != "unknown" for rule in rules()), "every rule's evaluation")
    assert {rule["name"]: (rule["health"], rule.get("lastError")) for rule in rules()} == dict.fromkeys(
        RULES, ("ok", None)
    )
    wait_for(
        lambda: any(rule["name"] == "UvicornErrors" and rule["state"] == "pending" for rule in rules()),
        "the alert about errors",
    )
    quiet = {"UvicornDown", "UvicornNotReady", "UvicornMasterStuck", "UvicornReloadFailed", "UvicornMoldGone"}
    wait_for(
        lambda: quiet <= {rule["name"] for rule in rules() if rule["state"] == "inactive"},
        "the other alerts' silence",
    )


# --- the alerts, over invented series ---------------------------------------------------------------

INSTANCE = 'job="uvicorn", instance="web1:9000"'
# A service that is as it should be, for half an hour: one value each minute.
HEALTHY = {
    f"up{{{INSTANCE}}}": "1x30",
    f"uvicorn_ready{{{INSTANCE}}}": "1x30",
    f"uvicorn_master_loop_age_seconds{{{INSTANCE}}}": "0.5x30",
    f'uvicorn_responses_total{{{INSTANCE}, status="2xx"}}': "0+6000x30",
    f'uvicorn_responses_total{{{INSTANCE}, status="5xx"}}': "0+60x30",
    f'uvicorn_accept_queue{{{INSTANCE}, listener="127.0.0.1:8000"}}': "100x30",
    f'uvicorn_accept_queue_limit{{{INSTANCE}, listener="127.0.0.1:8000"}}': "2048x30",
    f"uvicorn_workers_wanted{{{INSTANCE}}}": "4x30",
    f'uvicorn_workers{{{INSTANCE}, state="ready"}}': "4x30",
    f'uvicorn_workers{{{INSTANCE}, state="starting"}}': "0x30",
    f'uvicorn_worker_restarts_total{{{INSTANCE}, reason="out_of_memory"}}': "0x30",
    f'uvicorn_worker_restarts_total{{{INSTANCE}, reason="died"}}': "0x30",
    # On purpose: as many as there like to be.
    f'uvicorn_worker_restarts_total{{{INSTANCE}, reason="limit_max_requests"}}': "0+5x30",
    f"uvicorn_last_reload_succeeded{{{INSTANCE}}}": "1x30",
    f'uvicorn_worker_loop_lag_seconds{{{INSTANCE}, worker="1"}}': "0.01x30",
    f'uvicorn_worker_loop_lag_seconds{{{INSTANCE}, worker="2"}}': "0.02x30",
    f'uvicorn_request_duration_seconds_bucket{{{INSTANCE}, le="0.5"}}': "0+5990x30",
    f'uvicorn_request_duration_seconds_bucket{{{INSTANCE}, le="1.0"}}': "0+6000x30",
    f'uvicorn_request_duration_seconds_bucket{{{INSTANCE}, le="2.5"}}': "0+6000x30",
    f'uvicorn_request_duration_seconds_bucket{{{INSTANCE}, le="+Inf"}}': "0+6000x30",
    f"uvicorn_mold_ready{{{INSTANCE}}}": "1x30",
}
# What is otherwise where one thing is wrong from the tenth minute on; the alert's further labels; what it says after the
# instance's name.
TROUBLE: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "UvicornDown": ({"up{": "1x9 0x20"}, {}, "the admin address does not answer"),
    "UvicornNotReady": ({"uvicorn_ready{": "1x9 0x20"}, {}, "no worker is ready"),
    "UvicornMasterStuck": ({"loop_age": "0.5x9 20+60x20"}, {}, "the master's loop does not run"),
    "UvicornErrors": (
        {'status="5xx"': "0+60x9 600+6000x20"},
        {},
        "50% of the responses are 5xx",
    ),
    "UvicornAcceptQueue": (
        {"uvicorn_accept_queue{": "100x9 2000x20"},
        {"listener": "127.0.0.1:8000"},
        "the accept queue of 127.0.0.1:8000 fills",
    ),
    "UvicornWorkersMissing": ({'state="ready"': "4x9 2x20"}, {}, "2 worker(s) fewer than wanted"),
    "UvicornOutOfMemory": (
        {'reason="out_of_memory"': "0x9 1+1x20"},
        {"reason": "out_of_memory"},
        "the kernel has killed a worker for its memory",
    ),
    "UvicornWorkersLost": ({'reason="died"': "0x9 1+1x20"}, {}, "15 workers were lost in 15 minutes"),
    "UvicornReloadFailed": (
        {"last_reload": "1x9 0x20"},
        {},
        "the last reload has failed; the generation before serves on",
    ),
    "UvicornLoopLag": (
        {'lag_seconds{job="uvicorn", instance="web1:9000", worker="2"': "0.02x9 3x20"},
        {"worker": "2"},
        "the event loop of worker 2 is 3s late",
    ),
    "UvicornSlow": (
        {'le="0.5"': "0+5990x9 53910+0x20", 'le="1.0"': "0+6000x9 54000+0x20"},
        {},
        "one request in twenty takes longer than 2.425s",
    ),
    "UvicornMoldGone": ({"uvicorn_mold_ready{": "1x9 0x20"}, {}, "no mold to fork workers from"),
}


def series(changed: dict[str, str]) -> list[dict[str, str]]:
    found = dict(HEALTHY)
    for part, values in changed.items():
        (name,) = (name for name in HEALTHY if part in name)
        found[name] = values
    return [{"series": name, "values": values} for name, values in found.items()]


def case(changed: dict[str, str], minute: int, alert: str, expected: list[Any]) -> dict[str, Any]:
    moment = {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected}
    return {"interval": "1m", "input_series": series(changed), "alert_rule_test": [moment]}


def tried(directory: Path, cases: list[dict[str, Any]]) -> None:
    wanted = {"rule_files": [str(GRAFANA / "rules.yml")], "evaluation_interval": "1m", "tests": cases}
    (directory / "tests.json").write_text(json.dumps(wanted))
    promtool("test", "rules", str(directory / "tests.json"))


@needs_promtool
def test_the_files_are_valid() -> None:
    promtool("check", "config", str(GRAFANA / "prometheus.yml"))
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(GRAFANA / "rules.yml"))


@needs_promtool
def test_nothing_is_said_of_a_service_that_is_well(tmp_path: Path) -> None:
    tried(tmp_path, [case({}, minute, alert, []) for alert in RULES for minute in (1, 9, 25)])


@needs_promtool
@pytest.mark.parametrize("alert", RULES)
def test_an_alert_fires_for_what_it_is_about_and_not_before(alert: str, tmp_path: Path) -> None:
    changed, labels, summary = TROUBLE[alert]
    rule = RULES[alert]
    fired = {
        "exp_labels": {**rule["labels"], "job": "uvicorn", "instance": "web1:9000", **labels},
        "exp_annotations": {**rule["annotations"], "summary": f"web1:9000: {summary}"},
    }
    if "description" in rule["annotations"]:
        described = rule["annotations"]["description"]
        for name, value in labels.items():
            described = described.replace(f"{{{{ $labels.{name} }}}}", value)
        fired["exp_annotations"]["description"] = described
    # A minute before it begins there is nothing; 18 minutes later the longest range and the longest
    # "for" are over.
    tried(tmp_path, [case(changed, 9, alert, []), case(changed, 27, alert, [fired])])

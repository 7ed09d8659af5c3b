"""The example's page in a real browser: JSON, server-sent events, a WebSocket, an upload; and over a reload."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import Browser, Page, needs_browser
from tests.e2e.harness import ROOT, Service, wait_for

pytestmark = needs_browser

# What the page has shown in an element, one after the other.
WATCH = """
window.shown = {};
for (const name of ["clock", "echo"]) {
  shown[name] = [];
  new MutationObserver(() => shown[name].push(document.getElementById(name).textContent))
    .observe(document.getElementById(name), { childList: true });
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture(params=["httptools websockets", "h11 wsproto"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    http, ws = request.param.split()
    arguments = [
        "--app-dir",
        str(ROOT / "examples"),
        "--port",
        "0",
        "--workers",
        "2",
        "--http",
        http,
        "--ws",
        ws,
    ]
    with Service(tmp_path, *arguments, "--timeout-graceful-shutdown", "2") as running:
        yield running.wait_ready(2)
        assert "Traceback" not in running.log


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    with browser.open(f"http://127.0.0.1:{service.port}/", width=800, height=600) as opened:
        opened.evaluate(WATCH)
        yield opened


def workers(service: Service) -> set[str]:
    return {str(pid) for pid in service.workers()}


def say(page: Page, text: str) -> str:
    """Send a text as a person does; the worker that echoes it."""
    page.evaluate(f"$('text').value = {json.dumps(text)}, $('say').querySelector('button').click()")
    shown = page.wait_for(
        f"shown.echo.find(text => text.endsWith({json.dumps('says: ' + text)}))", f"echo of {text}"
    )
    match = re.fullmatch(r"worker (\d+) says: " + re.escape(text), shown)
    assert match, shown
    return match[1]


def test_everything_on_the_page_works(service: Service, page: Page, tmp_path: Path) -> None:
    info = json.loads(page.wait_for("$('info').textContent", "the answer of /info"))
    assert str(info["worker"]) in workers(service)

    page.wait_for("socket.readyState == WebSocket.OPEN")
    assert {say(page, text) for text in ("hello", "é 漢字 🦄", "x" * 100_000)} <= workers(service)

    events = page.wait_for("shown.clock.length >= 3 && shown.clock", "three events")
    numbers = [int(event.partition(":")[0]) for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), events
    assert {event.rpartition(" ")[2] for event in events} <= workers(service)

    content = bytes(range(256)) * 8192
    (tmp_path / "upload").write_bytes(content)
    node = page.command("Runtime.evaluate", expression="$('file')")["result"]["objectId"]
    page.command("DOM.setFileInputFiles", files=[str(tmp_path / "upload")], objectId=node)
    answer = json.loads(page.wait_for("$('upload').textContent", "the answer of /upload"))
    assert answer == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    assert page.complaints == []


def test_a_page_that_is_open_lives_on_over_a_reload(service: Service, page: Page) -> None:
    page.wait_for("socket.readyState == WebSocket.OPEN && shown.clock.length")
    before = workers(service)
    service.send_signal(signal.SIGHUP)
    wait_for(lambda: len(workers(service)) == 2 and not workers(service) & before, "new workers only")
    page.wait_for("shown.echo.some(text => text.startsWith('closed (1012)'))", "the close code of a restart")
    page.wait_for("socket.readyState == WebSocket.OPEN", "a new connection")
    assert say(page, "still here") in workers(service)
    new = (f"shown.clock.at(-1).endsWith(' {pid}')" for pid in workers(service))
    page.wait_for(" || ".join(new), "an event of a new worker")
    numbers = [int(event.partition(":")[0]) for event in page.evaluate("shown.clock")]
    assert all(later == earlier + 1 for earlier, later in itertools.pairwise(numbers)), numbers

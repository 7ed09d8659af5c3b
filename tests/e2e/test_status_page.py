"""The status page in a real browser: what it says, that it lives, and that it can be read, on a phone and in the dark."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import Browser, Page, needs_browser
from tests.e2e.harness import APP
from tests.e2e.load import Load
from tests.e2e.test_control import Controlled

pytestmark = needs_browser

TROUBLE = "<img src=x onerror=\"document.title='taken over'\">"

# Elements whose text is wider than they are, or that stand beyond the page's edge.
SPILLED = """
[...document.querySelectorAll('main *')].filter(element => {
  const box = element.getBoundingClientRect();
  const clips = element.classList.contains('bar');
  return box.width && !clips && !element.closest('svg') && element.checkVisibility()
    && (box.right > document.documentElement.clientWidth + 0.5 || element.scrollWidth > element.clientWidth + 1
        && getComputedStyle(element).display !== 'inline');
}).map(element => element.tagName + '#' + element.id + '.' + element.className + ': ' + element.textContent.slice(0, 60))
"""

# Pairs of texts that cover one another.
OVERLAPS = """
(() => {
  const walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  const boxes = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, range = document.createRange();
    if (!node.data.trim() || !node.parentElement.checkVisibility()) continue;
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) boxes.push([node.data.trim().slice(0, 40), box]);
  }
  const found = [];
  boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 3) found.push(one + ' / ' + other);
  }));
  return found;
})()
"""

# The contrast of every text with what is behind it, where it is below what WCAG 2.1 asks for (1.4.3: 4.5 to 1).
PALE = """
(() => {
  const parts = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = parts(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('main *')].filter(element => element.checkVisibility()
      && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())).filter(element => {
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
  }).map(element => element.id + ' ' + element.className + ': ' + element.textContent.slice(0, 40));
})()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Controlled]:
    with Controlled(tmp_path, "--workers", "3") as running:
        yield running.wait_ready(3)


@pytest.fixture
def page(browser: Browser, service: Controlled) -> Iterator[Page]:
    with browser.open(f"http://127.0.0.1:{service.admin_port}/") as opened:
        opened.wait_for("document.getElementById('state').textContent == 'running'", "the first look")
        yield opened


def prefer(page: Page, scheme: str) -> None:
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def is_legible(page: Page) -> None:
    """At the size of a desktop and of a phone, light and dark."""
    for width, height in ((1280, 800), (390, 844)):
        page.resize(width, height, mobile=width < 500)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
        for scheme in ("light", "dark"):
            prefer(page, scheme)
            assert page.evaluate(SPILLED) == [], (width, scheme)
            assert page.evaluate(OVERLAPS) == [], (width, scheme)
            assert page.evaluate(PALE) == [], (width, scheme)
    page.resize(1280, 800)


def tile(page: Page, name: str) -> str:
    """The number of the tile with this name."""
    return str(
        page.evaluate(
            "[...document.querySelectorAll('.tile')].find("
            f"tile => tile.querySelector('dt').textContent == '{name}').querySelector('b').textContent"
        )
    )


def shows(page: Page, element: str, text: str) -> None:
    page.wait_for(
        f"document.getElementById('{element}').innerText.includes({text!r})", f"{text!r} in {element}"
    )


def test_it_says_how_the_service_is_and_lives(service: Controlled, page: Page) -> None:
    assert page.text("h1") == "app:app"
    assert page.text("#serving") == "3 of 3 ready"
    assert page.text("#restarts") == "No worker was replaced yet."
    assert page.text("#outcomes") == "Neither was asked for yet."
    assert page.evaluate("[...document.querySelectorAll('tbody b')].map(name => name.textContent)") == [
        "worker 1",
        "worker 2",
        "worker 3",
    ]
    is_legible(page)
    with Load(service.port, clients=4):
        page.wait_for("parseFloat(tiles.requests.value.textContent.replace(',', '')) > 1", "the load")
        page.wait_for("tiles.requests.graph.values.length > 3", "a graph")
        assert tile(page, "p95 latency") != "–"
        assert tile(page, "sent per second") != "–"
        is_legible(page)
    page.wait_for("tiles.requests.value.textContent == '0'", "the end of the load")
    assert page.complaints == []
    assert service.stop() == 0


def test_a_death_and_its_reason_are_seen(service: Controlled, page: Page) -> None:
    victim = service.serving_pid()
    os.kill(victim, signal.SIGKILL)
    shows(page, "events", f"Child process [{victim}] died: killed by SIGKILL")
    shows(page, "restarts", "died")
    shows(page, "serving", "3 of 3 ready")
    is_legible(page)
    assert not page.evaluate(f"document.getElementById('workers').innerText.includes('pid {victim}')")
    assert page.complaints == []
    assert service.stop() == 0


def test_a_reload_is_followed_and_its_failure_told_as_text(service: Controlled, page: Page) -> None:
    app = service.directory / "app.py"
    startup = 'await asyncio.sleep(float(os.environ.get("STARTUP", "0")))'
    assert startup in APP
    app.write_text(APP.replace(startup, 'await asyncio.sleep(3 if not os.path.exists("go") else 0)'))
    with service.start_ctl("reload") as reload:
        shows(page, "rollout", "Reloading")
        shows(page, "state", "reloading")
        is_legible(page)
        (service.directory / "go").touch()
        assert reload.wait() == 0
    shows(page, "about", "generation 2")
    page.wait_for("document.getElementById('rollout').hidden", "the end of the reload")
    app.write_text(f"raise RuntimeError({TROUBLE!r})\n")
    assert service.ctl("reload")[0] == 1
    shows(page, "outcomes", "1 succeeded, 1 failed")
    shows(page, "outcomes", TROUBLE)
    is_legible(page)
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("document.title").startswith("3/3 running")
    assert page.complaints == []
    assert service.stop() == 0


def test_when_nobody_answers_it_says_so_and_goes_on_later(service: Controlled, page: Page) -> None:
    control = service.control_pid()
    os.kill(control, signal.SIGSTOP)
    shows(page, "lost", "No answer")
    assert page.text("#state") == "no answer"
    os.kill(control, signal.SIGCONT)
    page.wait_for("document.getElementById('lost').hidden", "an answer")
    assert page.text("#state") == "running"
    assert service.stop() == 0


def test_it_takes_nothing_from_elsewhere(service: Controlled, page: Page) -> None:
    found = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert {name.removeprefix(f"http://127.0.0.1:{service.admin_port}") for name in found} == {"/status.json"}
    prefer(page, "light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    prefer(page, "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    # Digits of one width, so that numbers do not jump.
    assert (
        page.evaluate("getComputedStyle(document.querySelector('td')).fontVariantNumeric") == "tabular-nums"
    )
    assert service.stop() == 0

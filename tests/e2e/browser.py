"""A real browser, headless, driven by its DevTools protocol: open a page, evaluate JavaScript, wait, take a picture.

    with Browser() as browser, browser.open(url, width=1280, height=800) as page:
        page.wait_for("document.title == 'uvicorn'")
        page.evaluate("document.querySelector('button').click()")
        page.screenshot(tmp_path / "page.png")
        assert page.complaints == []

Where none is found, tests marked with `needs_browser` are skipped.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.e2e.harness import PATIENCE, POLL, wait_for

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser: none of {', '.join(_NAMES)} is on the PATH"
)

_OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    # Its sandbox does not start as root, nor in most containers, whose /dev/shm is small, too.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    # It talks to the server under test, and to nobody else.
    "--no-proxy-server",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--lang=en",
)


class Browser:
    """A browser with a profile of its own, which is gone afterwards."""

    def __enter__(self) -> Self:
        assert CHROMIUM is not None, "mark the test with needs_browser"
        self._numbers = itertools.count(1)
        self._pages: dict[str, Page] = {}
        self._profile = Path(tempfile.mkdtemp(prefix="browser-"))
        self._log_path = self._profile / "log"
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [CHROMIUM, *_OPTIONS, f"--user-data-dir={self._profile}", "about:blank"],
                env={**os.environ, "HOME": str(self._profile)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            self._connection = stack.enter_context(self._connect())
            self._stack = stack.pop_all()
        return self

    def _connect(self) -> ClientConnection:
        """It writes where it listens into a file: the port, and the path of the whole browser's session."""
        file = self._profile / "DevToolsActivePort"

        def address() -> list[str]:
            assert self._process.poll() is None, "the browser ended"
            return file.read_text().split() if file.exists() else []

        try:
            port, path = wait_for(lambda: len(address()) == 2 and address(), "the browser's DevTools port")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log_path.read_text(errors='replace')}") from None
        # A picture is one message.
        return connect(f"ws://127.0.0.1:{port}{path}", max_size=2**26, ping_interval=None, proxy=None)

    def open(self, url: str, *, width: int = 1280, height: int = 800, mobile: bool = False) -> Page:
        """A new tab with this page, loaded; the size is the page's own in CSS pixels."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        page.resize(width, height, mobile=mobile)
        page.goto(url)
        return page

    def command(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of one DevTools command; events that come before it are handed to their pages."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._connection.send(json.dumps(message))
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = json.loads(self._connection.recv(timeout=max(0.0, deadline - time.monotonic())))
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None and "method" in answer:
                page.on_event(answer["method"], answer["params"])

    def __exit__(self, *failure: object) -> None:
        with self._stack, contextlib.suppress(Exception):
            self.command("Browser.close")

    def _end(self) -> None:
        """Whatever is left of it, whichever session its processes have put themselves in."""
        ours = [self._process.pid]
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                same = os.getsid(process.pid) == self._process.pid
                if same or any(str(self._profile) in word for word in process.cmdline()):
                    ours.append(process.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)


class Page:
    """One tab.

    Attributes:
        complaints: What went to the console as an error, exceptions that nobody caught, and what could not be loaded.
    """

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.complaints: list[str] = []
        self._browser = browser
        self._target = target
        self._session = session
        self._documents: set[str] = set()
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A DevTools command for this tab, for what has no method here."""
        return self._browser.command(method, self._session, **parameters)

    def on_event(self, method: str, event: dict[str, Any]) -> None:
        if method == "Page.frameNavigated":
            self._documents.add(event["frame"]["loaderId"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(_exception(event["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert"):
            words = (str(word.get("value", word.get("description"))) for word in event["args"])
            self.complaints.append(" ".join(words))
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.complaints.append(f"{event['entry']['text']} {event['entry'].get('url', '')}".strip())

    def goto(self, url: str) -> None:
        """Load this page in place of the present one."""
        answer = self.command("Page.navigate", url=url)
        assert not answer.get("errorText"), f"{url}: {answer['errorText']}"
        if "loaderId" in answer:  # else only the fragment is another one

            def loaded() -> bool:
                # Until the new document takes the old one's place, the old one answers, or none.
                with contextlib.suppress(AssertionError):
                    state = self.evaluate("document.readyState")
                    return state == "complete" and answer["loaderId"] in self._documents
                return False

            wait_for(loaded, f"{url}, loaded")

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, a promise's when it is fulfilled."""
        answer = self.command(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, f"{expression}: {_exception(answer['exceptionDetails'])}"
        return answer["result"].get("value")

    def wait_for(self, expression: str, what: str = "", patience: float = PATIENCE) -> Any:
        """The expression's value, once it is true."""
        deadline = time.monotonic() + patience
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                raise AssertionError(
                    f"not seen in {patience:g} s: {what or expression}\ncomplaints: {self.complaints}\n{text}"
                )
            time.sleep(POLL)
        return value

    def text(self, selector: str) -> str:
        """What is to be read in the first element that the selector finds."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """A PNG of what is in the window, or of the whole page."""
        picture = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))
        return path

    def close(self) -> None:
        self._browser.command("Target.closeTarget", targetId=self._target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _exception(details: dict[str, Any]) -> str:
    exception = details.get("exception", {})
    return str(exception.get("description", exception.get("value", details["text"])))

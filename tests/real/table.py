"""What was tried and how it ended: a table on standard output, and the exit code.

Standard library alone: it is also used inside of containers.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any


class Missing(Exception):
    """Something that this needs is not on this machine."""


class Failed(Exception):
    """What was expected is not so."""


class Table:
    """Rows of `name | how it ended | time | details`, printed as they come.

    Args:
        heading: What all rows are about.
    """

    def __init__(self, heading: str) -> None:
        self.failures = 0
        self.rows = 0
        print(f"\n| {heading} | | s | |\n|---|---|---|---|", flush=True)

    @contextlib.contextmanager
    def row(self, name: str) -> Iterator[list[str]]:
        """One thing that is tried; what is appended is shown as details."""
        details: list[str] = []
        started = time.monotonic()
        self.rows += 1
        try:
            yield details
        except Exception as exc:  # noqa: BLE001 - the next rows are tried all the same
            self.failures += 1
            self._show(name, "FAIL", time.monotonic() - started, [*details, f"{type(exc).__name__}: {exc}"])
            if not isinstance(exc, Failed):
                traceback.print_exc()
        else:
            self._show(name, "pass", time.monotonic() - started, details)

    def _show(self, name: str, outcome: str, took: float, details: list[str]) -> None:
        text = "; ".join(details).replace("\n", " ⏎ ")
        print(f"| {name} | {outcome} | {took:.1f} | {text} |", flush=True)

    def conclude(self) -> int:
        """The last line, and the exit code."""
        passed = self.rows - self.failures
        print(f"\n{passed} passed, {self.failures} failed", flush=True)
        return 1 if self.failures or not self.rows else 0


def expect(condition: Any, what: str) -> None:
    if not condition:
        raise Failed(what)


def wait_for(condition: Callable[[], Any], what: str, patience: float = 60.0) -> Any:
    """The condition's value, once it is true."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not seen in {patience:g} s: {what}")
        time.sleep(0.05)


def run_or_say_why_not(main: Callable[[], int]) -> None:
    """Leave with the code of `main`, or with 0 where something is missing, and say what."""
    try:
        sys.exit(main())
    except Missing as exc:
        print(f"SKIPPED: {exc}", flush=True)
        sys.exit(0)

"""The unit that is tried, inside of the container: what an operator does to it, and what can be seen of it.

Standard library alone.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.markdown import Block, blocks, commands
from tests.real.table import Failed, expect, wait_for

TREE = Path("/mnt/tree")
UNITS = TREE / "deploy" / "systemd"
README = "deploy/systemd/README.md"
DEPLOYING = "docs/deploying.md"
# Which headings of which pages are run here, by their beginnings: all blocks below them, or the last row says which not.
PAGES = {README: "", DEPLOYING: "systemd"}
APP = Path("/srv/uvicorn/app.py")
CONFIG = Path("/etc/uvicorn/uvicorn.yaml")
SOCKET = "/run/uvicorn/uvicorn.sock"
SERVICE = "uvicorn.service"


def run(command: str, ok: bool = True) -> str:
    """Its output, both streams; its code is 0, or is not."""
    environ = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/mnt/wheels", "SYSTEMD_PAGER": ""}
    done = subprocess.run(
        ["bash", "-c", command], cwd=UNITS, env=environ, check=False, capture_output=True, text=True
    )
    said = (done.stdout + done.stderr).strip()
    expect((done.returncode == 0) == ok, f"`{command}` ended with {done.returncode}: {said}")
    return said


def promised(page: str) -> list[Block]:
    """The blocks of commands that are to be run here."""
    found = blocks((TREE / page).read_text())
    return [each for each in found if each.language == "sh" and each.heading.startswith(PAGES[page])]


EXECUTED: set[tuple[str, int]] = set()


def documented(having: str, page: str = README) -> None:
    """Run the commands of the page's one block in which this pattern is found."""
    found = [block for block in promised(page) if re.search(having, block.text, re.MULTILINE)]
    expect(len(found) == 1, f"{page} has {len(found)} blocks with {having!r}")
    for command in commands(found[0]):
        run(command.text)
    EXECUTED.add((page, found[0].line))


def files(heading: str) -> Iterator[tuple[str, str]]:
    """The files whose content docs/deploying.md has under a heading: the first line says where, or which language."""
    for block in blocks((TREE / DEPLOYING).read_text()):
        if block.heading == heading and block.language != "sh":
            first = block.text.splitlines()[0]
            yield first.removeprefix("# ") if first.startswith("# /") else block.language, block.text + "\n"


def shown(name: str, unit: str = SERVICE) -> str:
    return run(f"systemctl show --value -p {name} {unit}")


def main_pid() -> int:
    pid = int(shown("MainPID"))
    expect(pid > 1, f"no main process: {shown('ActiveState')}, {shown('Result')}")
    return pid


def restart() -> None:
    """Without counting towards StartLimitBurst."""
    run(f"systemctl reset-failed {SERVICE}; systemctl restart {SERVICE}")


def version() -> int:
    return int(run("systemctl --version").split()[1])


def get(address: str | int = SOCKET, path: str = "/", patience: float = 30.0) -> bytes:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(patience)
        sock.connect(address if isinstance(address, str) else ("127.0.0.1", address))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        response = http.client.HTTPResponse(sock)
        response.begin()
        body = response.read()
        expect(response.status == 200, f"{path}: status {response.status}")
        return body


def code(address: str | int = SOCKET) -> str:
    """Which version of the application answers."""
    return get(address).split()[1].decode()


# A connection that has been accepted, and ends without an answer.
CUT = ("ConnectionResetError", "RemoteDisconnected")


class Load:
    """One client that asks one request after the other and counts."""

    def __init__(self, address: str | int = SOCKET) -> None:
        self.counts: Counter[str] = Counter()
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                get(self._address)
                self.counts["ok"] += 1
            except (OSError, http.client.HTTPException, Failed) as exc:
                self.counts[f"{type(exc).__name__}: {exc}"] += 1

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: self.counts, "the first request")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def check(self, details: list[str], cut: int = 0) -> None:
        """No request has failed but those that may have been cut: so many that were in flight."""
        failed = {name: count for name, count in self.counts.items() if name != "ok"}
        details.append(f"{self.counts['ok']} answered, {sum(failed.values())} failed")
        in_flight = [count for name, count in failed.items() if name.startswith(CUT)]
        expect(sum(failed.values()) == sum(in_flight) <= cut, f"failed requests: {failed}")


@contextlib.contextmanager
def dropin(unit: str, *lines: str) -> Iterator[None]:
    directory = Path(f"/etc/systemd/system/{unit}.d")
    directory.mkdir(exist_ok=True)
    (directory / "test.conf").write_text("[Service]\n" + "\n".join(lines) + "\n")
    run("systemctl daemon-reload")
    try:
        yield
    finally:
        (directory / "test.conf").unlink()
        run("systemctl daemon-reload")


@contextlib.contextmanager
def written(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    before = path.read_text()
    path.write_text(change(before))
    try:
        yield
    finally:
        path.write_text(before)


def generation() -> int:
    found = re.search(r"[Gg]eneration (\d+)", shown("StatusText"))
    if not found:
        raise Failed(f"no generation in the status line {shown('StatusText')!r}")
    return int(found[1])


def reload() -> None:
    """By systemctl; systemd before 253 does not wait for the end."""
    documented("^systemctl reload uvicorn$")
    if version() < 253:
        wait_for(lambda: "eload" not in shown("StatusText").split("(")[0], "the end of the reload")

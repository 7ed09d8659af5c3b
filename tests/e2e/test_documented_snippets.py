"""The programs of the documented API, run as they stand there."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import PATIENCE, ROOT, wait_for
from tests.ports import free_port

IMPORTS = """
import uvicorn
from uvicorn import main, run, Config, Server
from uvicorn._types import (
    ASGIApplication,
    ASGI3Application,
    Scope,
    HTTPScope,
    WebSocketScope,
    ASGIReceiveCallable,
    ASGISendCallable,
)
"""

SIMPLE = """
import uvicorn

# Simple ASGI application
async def app(scope, receive, send):
    assert scope['type'] == 'http'

    await send({
        'type': 'http.response.start',
        'status': 200,
        'headers': [
            [b'content-type', b'text/plain'],
        ],
    })
    await send({
        'type': 'http.response.body',
        'body': b'Hello, World!',
    })

# Run the server programmatically
if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000)
"""

IMPORT_STRING = """
import uvicorn

# Run an application defined in another module
if __name__ == "__main__":
    uvicorn.run("myapp:app", host="0.0.0.0", port=8000, reload=True)
"""

# The snippets say port 8000, which may not be free; all else is as written.
ON_ANOTHER_PORT = """
import runpy, sys
import uvicorn

run = uvicorn.run

def on_another_port(*args, **kwargs):
    assert kwargs.pop("port") == 8000
    run(*args, port=int(sys.argv[2]), **kwargs)

if __name__ == "__main__":
    uvicorn.run = on_another_port
    runpy.run_path(sys.argv[1], run_name="__main__")
"""


@contextmanager
def running(directory: Path, snippet: str) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """The snippet's process, where it answers, and its log."""
    (directory / "snippet.py").write_text(snippet)
    (directory / "elsewhere.py").write_text(ON_ANOTHER_PORT)
    port = free_port()
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "elsewhere.py", "snippet.py", str(port)],
            cwd=directory,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, f"http://127.0.0.1:{port}/", log
    finally:
        process.terminate()
        process.wait(PATIENCE)


def answer(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return response.status, response.headers["content-type"], response.read()
    except OSError:
        return 0, "", b""


def test_imports(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTS],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0


def test_an_application_object(tmp_path: Path) -> None:
    with running(tmp_path, SIMPLE) as (process, url, log):
        wait_for(lambda: answer(url)[0] == 200, "an answer")
        assert answer(url) == (200, "text/plain", b"Hello, World!")
        process.send_signal(2)
        assert process.wait(PATIENCE) == 0
        text = log.read_text()
        assert "ASGI 'lifespan' protocol appears unsupported." in text
        assert "Traceback" not in text


def test_an_import_string_with_reload(tmp_path: Path) -> None:
    (tmp_path / "myapp.py").write_text(SIMPLE)
    with running(tmp_path, IMPORT_STRING) as (process, url, log):
        wait_for(lambda: answer(url)[0] == 200, "an answer")
        assert "Started reloader process" in log.read_text()
        (tmp_path / "myapp.py").write_text(SIMPLE.replace("Hello", "Goodbye"))
        wait_for(lambda: answer(url)[2] == b"Goodbye, World!", "the changed application")
        process.send_signal(2)
        assert process.wait(PATIENCE) == 0
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    "arguments", [["uvicorn", "myapp:app"], [sys.executable, "-m", "uvicorn", "myapp:app"]]
)
def test_the_command(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "myapp.py").write_text(SIMPLE)
    if arguments[0] == "uvicorn":
        command = Path(sys.executable).parent / "uvicorn"
        if not command.exists():
            pytest.skip("the command is not installed")
        arguments = [str(command), *arguments[1:]]
    port = free_port()
    process = subprocess.Popen(
        [*arguments, "--port", str(port)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answer(f"http://127.0.0.1:{port}/")[2] == b"Hello, World!", "an answer")
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == -15

"""--reload: a change is served soon, nothing is left behind, and broken code waits for the next change."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import APP, Service, wait_for


def without_watchfiles(directory: Path) -> dict[str, str]:
    """An environment in which watchfiles cannot be imported."""
    blocked = directory / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    root = Path(__file__).parents[2]
    return {"PYTHONPATH": f"{blocked}{os.pathsep}{root}"}


@pytest.fixture(params=["watchfiles", "polling"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    return without_watchfiles(tmp_path) if request.param == "polling" else {}


def serves(service: Service, version: str) -> None:
    wait_for(lambda: service.request("/").body.endswith(version.encode()), f"an answer of {version}")


def test_a_change_is_served_and_named(tmp_path: Path, environ: dict[str, str]) -> None:
    source = tmp_path / "src"
    source.mkdir()
    with Service(source, "--port", "0", "--reload", environ=environ) as service:
        serves(service, "v1")
        (source / "app.py").write_text(APP.replace('"v1"', '"v2"'))
        serves(service, "v2")
        assert "detected changes in 'app.py'. Reloading..." in service.log
        assert service.stop() == 0
        assert f"Stopping reloader process [{service.pid}]" in service.log


def test_broken_code_waits_for_the_next_change(tmp_path: Path, environ: dict[str, str]) -> None:
    source = tmp_path / "src"
    source.mkdir()
    with Service(source, "--port", "0", "--reload", environ=environ) as service:
        serves(service, "v1")
        (source / "app.py").write_text("def broken(:\n")
        service.wait_log("SyntaxError")
        assert service.process.poll() is None
        (source / "app.py").write_text(APP.replace('"v1"', '"mended"'))
        serves(service, "mended")
        assert service.stop() == 0


def test_includes_and_excludes(tmp_path: Path) -> None:
    (tmp_path / "generated").mkdir()
    arguments = ("--reload-include", "*.css", "--reload-exclude", "generated")
    with Service(tmp_path, "--port", "0", "--reload", *arguments) as service:
        serves(service, "v1")
        (tmp_path / "generated" / "x.py").write_text("")
        (tmp_path / "notes.txt").write_text("")
        (tmp_path / "style.css").write_text("")
        service.wait_log("detected changes in 'style.css'. Reloading")
        assert "x.py" not in service.log
        assert "notes.txt" not in service.log
        assert service.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_reloader_ends_with_0_and_leaves_nobody(tmp_path: Path, number: signal.Signals) -> None:
    with Service(tmp_path, "--port", "0", "--reload") as service:
        serves(service, "v1")
        assert service.stop(number) == 0


def test_nobody_is_left_when_the_reloader_is_killed(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--reload") as service:
        serves(service, "v1")
        os.kill(service.pid, signal.SIGKILL)
        wait_for(lambda: not service.session(), "the end of the server")


def test_an_open_stream_does_not_keep_the_reload_waiting(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--reload", "--timeout-graceful-shutdown", "1") as service:
        serves(service, "v1")
        with service.connect() as client:
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(1000)
            (tmp_path / "app.py").write_text(APP.replace('"v1"', '"v2"'))
            serves(service, "v2")
        assert service.stop() == 0


def test_run_with_reload_from_a_script(tmp_path: Path) -> None:
    """The script itself and what it has imported are seen anew."""
    import subprocess

    from tests.e2e.harness import ROOT

    (tmp_path / "part.py").write_text("NAME = 'part one'\n")
    (tmp_path / "app.py").write_text(
        "import part\n"
        + APP.replace('"v1"', "part.NAME")
        + "\nif __name__ == '__main__':\n    import uvicorn\n"
        "    uvicorn.run('app:app', port=0, reload=True)\n"
    )
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        import re
        import urllib.request

        def text() -> str:
            return (tmp_path / "log").read_text()

        port = wait_for(lambda: re.search(r"running on http://127\.0\.0\.1:(\d+)", text()), "the port")[1]

        def answer() -> str:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
                    return str(response.read().decode())
            except OSError:
                return ""

        wait_for(lambda: answer().endswith("part one"), "the first answer")
        (tmp_path / "part.py").write_text("NAME = 'part two'\n")
        wait_for(lambda: answer().endswith("part two"), "the changed answer")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()

"""Starting: what is said, what is refused, and with which exit code."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.harness import APP, PATIENCE, ROOT, Service, wait_for


def run(
    directory: Path, *arguments: str, prefix: Sequence[str] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "uvicorn", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_process_without_workers(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0") as service:
        service.wait_serving()
        assert service.serving_pid() == service.pid
        assert service.workers() == {}
        assert service.stop() == -signal.SIGTERM  # as 0.37.0: the signal is raised again
    lines = [line.split(maxsplit=1)[1] for line in service.log.splitlines() if line.startswith("INFO")]
    started = [line for line in lines if "GET" not in line]
    assert re.match(r"Started server process \[\d+\]", started[0])
    assert started[1:3] == ["Waiting for application startup.", "Application startup complete."]
    assert started[-1].startswith("Finished server process")


def test_sigint_ends_one_process_with_0(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0") as service:
        service.wait_serving()
        assert service.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_master_whenever_workers_are_given(tmp_path: Path, workers: str) -> None:
    with Service(tmp_path, "--port", "0", "--workers", workers) as service:
        service.wait_ready(int(workers))
        assert len(service.workers()) == int(workers)
        assert service.serving_pid() in service.workers()
        assert service.stop() == 0
    log = service.log
    assert log.index("Uvicorn running on") < log.index("Started parent process") < log.index("Started server")
    assert log.rstrip().endswith(f"Stopping parent process [{service.pid}]")


def test_web_concurrency_starts_a_master(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", environ={"WEB_CONCURRENCY": "2"}) as service:
        service.wait_ready(2)
        assert len(service.workers()) == 2


def test_titles_tell_role_worker_generation_and_state(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        titles = wait_for(
            lambda: (
                all(title.endswith("ready") for title in service.workers().values()) and service.workers()
            ),
            "titles of ready workers",
        )
        assert sorted(titles.values()) == [
            "uvicorn: worker 1 app:app gen=1 ready",
            "uvicorn: worker 2 app:app gen=1 ready",
        ]
        master = Path(f"/proc/{service.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        assert master == "uvicorn: master app:app gen=1 ready=2/2"


def test_a_yaml_file_starts_the_service(tmp_path: Path) -> None:
    (tmp_path / "prod.yaml").write_text(
        "app: app:app\nbind: ['127.0.0.1:0', 'unix:${HERE}/s.sock']\nworkers: 2\nlog_level: info\n"
    )
    with Service(tmp_path, "--config", "prod.yaml", app="", environ={"HERE": str(tmp_path)}) as service:
        service.wait_ready(2)
        assert service.request("/").status == 200
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s.sock"))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert service.stop() == 0
    assert not (tmp_path / "s.sock").exists()


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "c.yaml").write_text("app: app:app\nport: 1\nworkers: 3\n")
    done = run(tmp_path, "--check-config", UVICORN_CONFIG="c.yaml", UVICORN_PORT="0", WEB_CONCURRENCY="2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^port +\S+ 0 +# \$UVICORN_PORT$", done.stdout, re.MULTILINE)
    assert re.search(r"^workers +\S+ 2 +# \$WEB_CONCURRENCY$", done.stdout, re.MULTILINE)
    assert re.search(r"^app +\S+ 'app:app' +# c.yaml:1$", done.stdout, re.MULTILINE)


# --- what cannot start: one clear line, the documented code, no traceback ----------------------


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    assert done.returncode == code, done.stderr
    for text in texts:
        assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_an_app_string_that_names_nothing_is_code_3(tmp_path: Path, workers: tuple[str, ...]) -> None:
    done = run(tmp_path, "nothing:app", "--port", "0", *workers)
    assert_refused(done, 3, 'Error loading ASGI app. Could not import module "nothing".')
    assert done.stderr.count("Error loading ASGI app") == 1  # said once, not by every worker


def test_a_wrong_option_is_code_2(tmp_path: Path) -> None:
    assert_refused(run(tmp_path, "app:app", "--prot", "1"), 2, "No such option")
    assert_refused(run(tmp_path, "app:app", "--port", "x"), 2, "'x' is not a valid integer")
    assert_refused(run(tmp_path), 2, "Missing argument 'APP'")


def test_all_mistakes_of_a_file_at_once_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "app: app:app\nprot: 1\nworkers: none\ntimeout_keep_alive: soon\nport: 1\nport: 2\n"
    )
    done = run(tmp_path, "--config", "c.yaml")
    assert_refused(
        done,
        2,
        "c.yaml:2: prot: no such setting; did you mean 'port'?",
        "c.yaml:3: workers:",
        "c.yaml:4: timeout_keep_alive:",
        "c.yaml:6: port: is given twice",
    )


def test_a_missing_file_is_code_2(tmp_path: Path) -> None:
    assert_refused(run(tmp_path, "--config", "no.yaml"), 2, "no.yaml", "cannot be read")
    assert_refused(run(tmp_path, "app:app", "--env-file", "no.env"), 2, "Path 'no.env' does not exist.")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_port_in_use_is_code_3(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = run(tmp_path, "app:app", "--port", str(other.getsockname()[1]), *workers)
    assert_refused(done, 3, "address already in use")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a capability to lose")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, of util-linux")
def test_a_privileged_port_is_explained(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    if Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() == "0":
        pytest.skip("this machine has no privileged ports")
    without = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]
    done = run(tmp_path, "app:app", "--port", "81", prefix=without)
    assert_refused(done, 3, "permission denied", "CAP_NET_BIND_SERVICE")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_stale_unix_socket_is_replaced_and_a_live_one_refused(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with Service(tmp_path, "--uds", str(path), *workers) as service:
        service.wait_log("Application startup complete")
        service.wait_log("Uvicorn running on unix socket")
        second = run(tmp_path, "app:app", "--uds", str(path), *workers)
        assert_refused(second, 3, "in use by a running server")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))  # the second one has not taken the file away
        service.stop()
    assert not path.exists()


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_the_apps_own_import_error_keeps_its_traceback_without_ours(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    (tmp_path / "app.py").write_text("def load():\n    raise ValueError('broken by design')\n\nload()\n")
    done = run(tmp_path, "app:app", "--port", "0", *workers)
    assert done.returncode == 3
    assert done.stderr.count("ValueError: broken by design") == 1
    frames = re.findall(r'File "([^"]+)"', done.stderr)
    assert frames == [str(tmp_path / "app.py")] * 2


def test_lifespan_failure_is_code_3_with_workers_and_without(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    for workers in ((), ("--workers", "2")):
        done = run(tmp_path, "app:app", "--port", "0", *workers)
        assert_refused(done, 3, "no database", "Application startup failed. Exiting.")
        assert done.stderr.count("no database") == 1


def test_the_first_request_after_ready_is_answered(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", environ={"STARTUP": "0.5"}) as service:
        port = service.port
        service.wait_log("Started parent process")  # bound, and listening, before any worker is ready
        with socket.create_connection(("127.0.0.1", port)) as early:
            early.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert early.recv(100).startswith(b"HTTP/1.1 200")
        service.wait_log("ready after")


def test_term_during_start_up_is_an_orderly_end(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", environ={"STARTUP": "600"}) as service:
        service.wait_log("Waiting for application startup", 2)
        assert service.stop() == 0
    assert "lifespan shutdown" not in service.log  # only where startup was complete


def test_term_during_an_import_that_hangs_is_an_orderly_end(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        service.wait_log("importing", 2)
        assert service.stop() == 0


def test_run_from_a_script_with_workers(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        APP + "\nif __name__ == '__main__':\n    import uvicorn\n"
        "    uvicorn.run('app:app', port=0, workers=2)\n    print('after run', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    ready = 0
    lines = []
    while ready < 2:
        lines.append(process.stdout.readline())
        assert lines[-1], lines
        ready += " ready after " in lines[-1]
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "after run" in rest  # run() returns


def test_a_start_that_fails_beside_a_thread_that_goes_on_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nraise OSError('no')\n"
    )
    with Service(tmp_path, "--port", "0", "--workers", "2") as service:
        assert service.wait_exit() == 3
        assert not service.session()


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_no_socket_takes_the_place_of_a_standard_stream(tmp_path: Path, closed: str) -> None:
    path = tmp_path / "app.py"
    path.write_text(
        "import os, pathlib\n"
        "links = [os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)]\n"
        "pathlib.Path('links.new').write_text('\\n'.join(links))\n"
        "os.rename('links.new', 'links')\n"
    )
    command = f'exec "$0" -m uvicorn --workers 1 --port 0 app:app {closed}'
    subprocess.run(
        ["sh", "-c", command, sys.executable],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=PATIENCE,
    )
    links = (tmp_path / "links").read_text().splitlines()
    assert links[2] == os.devnull
    if "<" in closed:
        assert links == [os.devnull] * 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
def test_sockets_of_their_own_share_the_port_that_was_found(tmp_path: Path) -> None:
    with Service(tmp_path, "--port", "0", "--workers", "2", "--reuse-port") as service:
        service.wait_ready(2)
        assert service.request("/").status == 200
        assert service.stop() == 0

"""A worker that has no memory any more, by the kernel's own hand where a cgroup can be had, and as the kernel does it elsewhere."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import APP, Service, wait_for
from tests.e2e.load import Load

MOUNTED = Path("/sys/fs/cgroup")
LIMIT = 400 * 2**20

EAT = """
import resource

async def eat(scope, receive, send):
    # Whom the kernel takes is no matter of chance then: not the master, which is small, nor a sibling.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    kept = []
    while True:
        kept.append(b"x" * 2**20)

async def ask_for_too_much(scope, receive, send):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, before[1]))
    try:
        bytearray(2**28)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

async def die(scope, receive, send):
    os.kill(os.getpid(), 9)

ROUTES.update({"/eat": eat, "/too-much": ask_for_too_much, "/die": die})
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP + EAT)
    return tmp_path


def made_group() -> Path:
    """A cgroup with a limit of memory.

    Raises:
        OSError: It cannot be had, by whatever of it.
    """
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        own.update(dict.fromkeys(names.split(","), path.lstrip("/")))
    is_old = "memory" in own
    parent = MOUNTED / "memory" / own["memory"] if is_old else MOUNTED / own[""]
    group = parent / f"uvicorn-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if is_old else "memory.max")).write_text(str(LIMIT))
        swap = group / ("memory.memsw.limit_in_bytes" if is_old else "memory.swap.max")
        if swap.exists():
            swap.write_text(str(LIMIT if is_old else 0))
    except OSError:
        group.rmdir()
        raise
    return group


@pytest.fixture
def group() -> Iterator[Path]:
    try:
        made = made_group()
    except (OSError, KeyError) as exc:
        pytest.skip(f"a cgroup with a limit of memory cannot be had here: {exc!r}")
    yield made
    wait_for(lambda: not (made / "cgroup.procs").read_text(), "an empty cgroup")
    made.rmdir()


def test_a_worker_that_the_kernel_kills_for_memory_is_told_so_and_replaced(
    directory: Path, group: Path
) -> None:
    through = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    with Service(directory, "--port", "0", "--workers", "2", through=through) as service:
        service.wait_ready(2)
        with Load(service.port, clients=2, keep_alive=False) as load:
            assert service.request("/eat").status == 0
            service.wait_log(r"died: killed by the kernel: out of memory \(worker=\d+ gen=1 ")
            service.wait_ready(3)
            answers = load.answers
            wait_for(lambda: load.answers > answers + 20, "requests served afterwards")
        assert not load.failures.keys() - {"fresh", "cut"}, load.failures
        # Somebody who kills a worker is not taken for the kernel, whatever there was before.
        os.kill(service.serving_pid(), signal.SIGKILL)
        service.wait_log(r"died: killed by SIGKILL \(perhaps out of memory\)")
        service.wait_ready(4)
        assert service.stop() == 0


def test_a_worker_that_is_killed_as_the_kernel_does_it_is_perhaps_out_of_memory(directory: Path) -> None:
    with Service(directory, "--port", "0", "--workers", "2") as service:
        service.wait_ready(2)
        before = set(service.workers())
        assert service.request("/die").status == 0
        service.wait_log(r"died: killed by SIGKILL \(perhaps out of memory\) \(worker=\d+ gen=1 ")
        service.wait_ready(3)
        assert service.request("/").status == 200
        assert len(before & set(service.workers())) == 1
        assert service.stop() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is set by what /proc says")
def test_a_request_for_which_there_is_no_memory_is_a_500_and_nothing_else(directory: Path) -> None:
    with Service(directory, "--port", "0", "--workers", "1") as service:
        service.wait_ready(1)
        worker = service.serving_pid()
        assert service.request("/too-much").status == 500
        service.wait_log(r"(?m)^MemoryError")
        assert service.serving_pid() == worker
        assert "died" not in service.log
        assert service.stop() == 0

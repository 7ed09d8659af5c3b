"""`docker` for the commands of the pages: by buildah, podman and podman-compose, with a store that is thrown away again.

It is a script that calls the three. Base images are Debians by debootstrap, and what an image installs comes from wheels that
pip has made before: nothing is fetched, and all of it runs in a network namespace of its own, where every port is free.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real import debian
from tests.real.table import expect

SUITE = "bookworm"

DOCKER = """\
#!/bin/sh
set -e
verb=$1; shift
wheels="--volume $WORK/wheels:/wheels:ro --volume $WORK/pip.conf:/etc/pip.conf:ro"
case $verb in
build) exec buildah $STORE bud --isolation chroot --format docker --build-arg BASE=localhost/base $wheels "$@" ;;
run) exec podman run --network host --pull never --no-healthcheck "$@" ;;
compose) exec "$PYTHON" -m podman_compose --podman-build-args="$wheels" "$@" ;;
*) exec podman "$verb" "$@" ;;
esac
"""
# Without systemd nobody calls a health check by the clock. A limit of our own for one resource would otherwise be podman's
# own for the others, which are higher than a container's are allowed to be.
PODMAN = """\
#!/bin/sh
set -e
verb=$1; shift
case $verb in
run | create) set -- "$verb" --ulimit nofile=20000:20000 --ulimit nproc=8192:8192 "$@" ;;
*) set -- "$verb" "$@" ;;
esac
exec REAL $STORE --tmpdir "$WORK/tmp" --network-config-dir "$WORK/networks" --cgroup-manager cgroupfs --runtime runc \\
    --events-backend file "$@"
"""
PIP = "[global]\nno-index = true\nfind-links = /wheels\n"


class Engine:
    """`docker` for the commands of the pages.

    Args:
        work: Where the store, the scripts and what is mounted are.
        wheels: What pip finds in there.

    Attributes:
        done: Which blocks of which pages have been run.
    """

    def __init__(self, work: Path, wheels: Path) -> None:
        (work / "bin").mkdir()
        self._script(work / "bin" / "docker", DOCKER)
        self._script(work / "bin" / "podman", PODMAN.replace("REAL", str(shutil.which("podman"))))
        (work / "pip.conf").write_text(PIP)
        shutil.copytree(wheels, work / "wheels")
        self._environ = {
            **os.environ,
            "PATH": f"{work}/bin:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "WORK": str(work),
            "STORE": f"--storage-driver {driver(work)} --root {work}/store --runroot {work}/run",
            "BUILDAH_ISOLATION": "chroot",
            "BUILDAH_FORMAT": "docker",
            "DISABLE_HC_SYSTEMD": "true",
        }
        self.done: set[tuple[str, int]] = set()

    @staticmethod
    def _script(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def run(self, *command: str, code: int = 0, directory: Path = debian.ROOT, **environ: str) -> str:
        """Its output, both streams; it ends with this code."""
        done = subprocess.run(
            command,
            cwd=directory,
            env={**self._environ, **environ},
            check=False,
            capture_output=True,
            text=True,
        )
        said = (done.stdout + done.stderr).strip()
        expect(done.returncode == code, f"`{' '.join(command)}` ended with {done.returncode}: {said[-600:]}")
        return said

    def docker(self, *arguments: str, code: int = 0, **environ: str) -> str:
        return self.run("docker", *arguments, code=code, **environ)

    def inspect(self, what: str) -> Any:
        return json.loads(self.docker("inspect", what))[0]

    def image(self, name: str, tree: Path, *lines: str) -> None:
        """Make an image of a directory tree and further lines of a Dockerfile."""
        with tempfile.TemporaryDirectory() as directory:
            self.run("tar", "-C", str(tree), "--exclude=./dev/*", "-cf", f"{directory}/tree.tar", ".")
            text = "\n".join(("FROM scratch", "ADD tree.tar /", *lines, ""))
            Path(directory, "Dockerfile").write_text(text)
            self.docker("build", "-t", name, directory)

    def base(self) -> None:
        """The image that takes the place of python:slim."""
        self.image("localhost/base", debian.tree(SUITE))


def driver(work: Path) -> str:
    """The quicker one of podman's storage drivers, where the file system has what it needs."""
    probe = work / "probe"
    command = [
        "podman",
        "--storage-driver",
        "overlay",
        "--root",
        f"{probe}/store",
        "--runroot",
        f"{probe}/run",
        "info",
    ]
    works = subprocess.run(command, check=False, capture_output=True).returncode == 0
    return "overlay" if works else "vfs"


def tried_apart(module: str, tried: Callable[[Path, Path], int]) -> int:
    """Make here, where there is a network, what is needed; then run the module again where there is none.

    Args:
        module: Its name.
        tried: What it then does, with a directory of its own and that of the wheels; it returns the exit code.
    """
    debian.need("buildah", "podman", "runc", "unshare", "ip", "tar", "chroot")
    if "--inside" not in sys.argv:
        wheels = debian.wheels(debian.python_of(debian.tree(SUITE)))
        inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        return subprocess.call([*inside, sys.executable, "-m", module, "--inside", str(wheels)])
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        work.chmod(0o755)
        return tried(work, Path(sys.argv[-1]))

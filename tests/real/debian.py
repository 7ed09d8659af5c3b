"""Debian in a directory, and wheels for the Python in it. Both are kept for the next time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.real.table import Missing

ROOT = Path(__file__).parents[2]
# $UVICORN_REAL_CACHE, or where such things belong.
CACHE = Path(
    os.environ.get("UVICORN_REAL_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uvicorn-real"
)
PACKAGES = "python3,python3-venv,systemd,systemd-sysv,dbus,procps"


def need(*commands: str) -> None:
    """Raises Missing unless all are here, and we are root."""
    lacking = [command for command in commands if shutil.which(command) is None]
    if lacking:
        raise Missing(f"not installed here: {', '.join(lacking)}")
    if os.geteuid() != 0:
        raise Missing("this needs root")


def tree(suite: str, packages: str = PACKAGES, name: str = "") -> Path:
    """A minimal Debian; never written to after it was made.

    Args:
        suite: Which one.
        packages: What else is in it, with commas between; by default Python and systemd.
        name: What it is kept as, where it has other packages.
    """
    made = CACHE / (name or suite)
    if not made.exists():
        need("debootstrap")
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = made.with_name(f"{made.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        print(f"Making a Debian {suite} in {made}; this takes a minute or two ...", flush=True)
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(partial)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise Missing(f"debootstrap cannot make a Debian {suite} here: {' '.join(last)}")
        partial.rename(made)
    return made


def python_of(tree: Path) -> str:
    """The version of the Python in it, as 3.11."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run(
        ["chroot", str(tree), "python3", "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def wheels(python: str) -> Path:
    """Our wheel as the tree has it now, with its extras' and what building it needs, for that Python.

    By the pip of this machine, which knows where to get them: what is installed from them asks nobody.
    """
    found = CACHE / f"wheels-{python}"
    found.mkdir(parents=True, exist_ok=True)
    for old in found.glob("uvicorn-*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(found), str(ROOT)], check=True)
    (ours,) = found.glob("uvicorn-*.whl")
    download = [*pip, "download", "--dest", str(found), "--find-links", str(found)]
    download += ["--only-binary", ":all:", "--python-version", python]
    # pip, setuptools and wheel come with `python3 -m venv`; hatchling builds the wheel in the image.
    subprocess.run([*download, f"{ours}[standard,metrics]", "hatchling", "editables"], check=True)
    return found

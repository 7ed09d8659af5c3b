"""Virtual environments of the peers, one each, made at the first use from the package index."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENVS = ROOT / ".venv-bench"


def environment(name: str, packages: Sequence[str], directory: Path = VENVS) -> Path:
    """The interpreter of the virtual environment of that name, with these packages."""
    place = directory / name
    python = place / "bin" / "python"
    done = place / ".done"
    wanted = "\n".join(packages)
    if not done.exists() or done.read_text().strip() != wanted:
        print(f"Setting up {place} ...", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, *packages], check=True)
        done.write_text(wanted)
    return python


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """The installed versions of those of the packages that are there."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass\n"
    )
    found = subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True).stdout
    return dict(line.split() for line in found.splitlines())

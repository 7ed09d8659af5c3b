"""The public API is typed: a program that uses all of it passes the type checkers at their strictest."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).parent / "typed" / "program.py"


@pytest.mark.timeout(400)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy, of the group check")
def test_mypy_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, str(PROGRAM)], cwd=ROOT, capture_output=True, text=True, check=False)
    # Libraries without types of their own are not what is asked about.
    found = [line for line in done.stdout.splitlines() if "tests/typed/" in line]
    assert found == []
    assert done.returncode in (0, 1), done.stderr


@pytest.mark.timeout(400)
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy, of the group check")
def test_mypy_would_find_something(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import uvicorn\nuvicorn.run('a:b', port='80')\nuvicorn.Config('a:b', lifespan='of')\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, str(wrong)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 'Argument "port" to "run" has incompatible type "str"' in done.stdout
    assert 'Argument "lifespan" to "Config" has incompatible type' in done.stdout


@pytest.mark.timeout(400)
@pytest.mark.skipif(
    shutil.which("pyright", path=str(Path(sys.executable).parent)) is None, reason="needs pyright"
)
def test_pyright_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.read_text())
    config = {"typeCheckingMode": "strict", "include": ["program.py"], "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    pyright = str(Path(sys.executable).parent / "pyright")
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, "--project", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    # Importing uvicorn._types is documented.
    assert [each["message"] for each in found if each.get("rule") != "reportPrivateUsage"] == []

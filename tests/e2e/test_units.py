"""The units in deploy/systemd: whether systemd understands them, how much they expose, and whether they agree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import APP, ROOT, Service, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd is elsewhere")

ANALYZE = shutil.which("systemd-analyze")


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, as they would be installed, with a program that is there."""
    found = tmp_path_factory.mktemp("units")
    for file in (ROOT / "deploy" / "systemd").glob("uvicorn*"):
        text = file.read_text().replace("/opt/uvicorn/bin/uvicorn", sys.executable)
        name = file.name.replace("@.", "@web.")
        (found / name).write_text(text)
    if ANALYZE is not None and _version() < 253:
        for name in ("uvicorn.service", "uvicorn@web.service"):
            (found / f"{name}.d").mkdir()
            shutil.copy(ROOT / "deploy" / "systemd" / "before-253.conf", found / f"{name}.d")
    return found


def _version() -> int:
    assert ANALYZE is not None
    output = subprocess.run([ANALYZE, "--version"], capture_output=True, text=True, check=True).stdout
    return int(output.split()[1])


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed (package systemd)")
@pytest.mark.parametrize("unit", ["uvicorn.service", "uvicorn@web.service", "uvicorn.socket"])
def test_systemd_finds_nothing_wrong_with_the_units(units: Path, unit: str) -> None:
    assert ANALYZE is not None
    command = [ANALYZE, "verify", f"./{unit}"]
    result = subprocess.run(command, cwd=units, capture_output=True, text=True, check=False)
    said = result.stderr.splitlines()
    if _version() < 253:
        # The one thing that such a systemd says, and that the drop-in is for.
        said = [
            line
            for line in said
            if not line.endswith("Failed to parse service type, ignoring: notify-reload")
        ]
    assert said == []
    assert result.returncode == 0


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed (package systemd)")
@pytest.mark.parametrize("unit", ["uvicorn.service", "uvicorn@web.service"])
def test_the_units_expose_little(units: Path, unit: str) -> None:
    assert ANALYZE is not None
    command = [ANALYZE, "security", "--offline=true", "--threshold=15", f"./{unit}"]
    result = subprocess.run(command, cwd=units, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_template_is_the_service_for_each_name() -> None:
    directory = ROOT / "deploy" / "systemd"
    service = (directory / "uvicorn.service").read_text().partition("\n[Unit]")[2]
    template = (directory / "uvicorn@.service").read_text().partition("\n[Unit]")[2]
    assert service == template.replace(" (%i)", "").replace("uvicorn-%i", "uvicorn").replace("%i", "uvicorn")


def test_the_example_configuration_is_one(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "systemd" / "uvicorn.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text.replace("/srv/uvicorn", str(tmp_path)))
    (tmp_path / "app.py").write_text(APP)
    with Service(tmp_path, "--config", "c.yaml", "--check-config", app="") as service:
        assert service.wait_exit() == 0
        wait_for(lambda: "The configuration is good" in service.log, "the verdict")

"""The units of deploy/systemd under a real systemd: `python -m tests.real.systemd [SUITE...]`, as `make systemd-test`.

Debian is made by debootstrap, booted by systemd-nspawn (systemd is process 1 of the container, no network but the
loopback), and thrown away again. Inside, `inside.py` installs our wheel and the units by the commands of the pages, and
runs the life cycles. Without arguments: Debian 12, whose systemd 252 needs the drop-in, and Debian 13 with 257.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import trustme

from tests.e2e.harness import APP
from tests.real import debian
from tests.real.table import Missing, run_or_say_why_not

SUITES = ("bookworm", "trixie")
LIMIT = 420.0

UNIT = """\
[Unit]
After=multi-user.target
[Service]
Type=exec
WorkingDirectory=/mnt/tree
ExecStart=/usr/bin/python3 -m tests.real.inside
Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
StandardOutput=append:/mnt/output
StandardError=inherit
ExecStopPost=/bin/systemctl poweroff --force --force
"""


def share(directory: Path, suite: str) -> Path:
    """What the container sees at /mnt."""
    tree = directory / "tree"
    shutil.copytree(debian.ROOT / "deploy" / "systemd", tree / "deploy" / "systemd")
    shared = (
        "__init__.py",
        "markdown.py",
        "real/__init__.py",
        "real/inside.py",
        "real/table.py",
        "real/unit.py",
    )
    for name in ("docs/deploying.md", *(f"tests/{name}" for name in shared)):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(debian.ROOT / name, tree / name)
    shutil.copytree(debian.wheels(debian.python_of(debian.tree(suite))), directory / "wheels")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "authority.pem")
    for name in ("first", "second"):
        (directory / name).mkdir()
        certificate = authority.issue_cert("shop.example", organization_name=name)
        certificate.private_key_pem.write_to_path(directory / name / "privkey.pem")
        for each in certificate.cert_chain_pems:
            each.write_to_path(directory / name / "fullchain.pem", append=True)
    (directory / "app.py").write_text(APP)
    (directory / "life-cycles.service").write_text(UNIT)
    (directory / "output").touch()
    directory.chmod(0o755)
    return directory


def boot(suite: str, shared: Path) -> int:
    """Boot it, show what comes out, and return the code of what ran inside."""
    command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"]
    command += [f"--directory={debian.tree(suite)}", "--volatile=overlay", f"--bind={shared}:/mnt"]
    command += [f"--bind-ro={shared}/life-cycles.service:/etc/systemd/system/life-cycles.service"]
    # What follows is for systemd, as a kernel's command line would be.
    command += ["--boot", "systemd.wants=life-cycles.service"]
    # A machine with the old cgroup hierarchy: systemd 256 and later boot on the new one only.
    environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    with (shared / "console").open("wb") as console, (shared / "output").open() as output:
        machine = subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
        )
        try:
            follow(machine, output)
        finally:
            machine.terminate()
            machine.wait()
    if (shared / "exit-code").exists():
        return int((shared / "exit-code").read_text())
    print("\n".join((shared / "console").read_text(errors="replace").splitlines()[-20:]))
    if not (shared / "output").stat().st_size:
        raise Missing(f"systemd-nspawn cannot boot a Debian {suite} here; the last lines are above")
    print(f"Debian {suite}: not over after {LIMIT:g} s, or what ran inside has crashed")
    return 1


def follow(machine: subprocess.Popen[bytes], output: TextIO) -> None:
    """Show what is written there until the machine is off, or its time is up."""
    deadline = time.monotonic() + LIMIT
    while machine.poll() is None and time.monotonic() < deadline:
        sys.stdout.write(output.read())
        sys.stdout.flush()
        time.sleep(0.2)
    sys.stdout.write(output.read())


def main() -> int:
    debian.need("systemd-nspawn", "chroot")
    failed = 0
    for suite in sys.argv[1:] or SUITES:
        with tempfile.TemporaryDirectory() as directory:
            failed |= boot(suite, share(Path(directory), suite))
    return failed


if __name__ == "__main__":
    run_or_say_why_not(main)

"""Every command of the documents: run as it stands, or held to what would run it. One that nobody checks fails.

Blocks of commands are fenced `sh`; within sentences and tables it is each code span that begins with one of the programs
below. What needs a service manager, a container engine or a proxy is run by a test of its own, and here it is checked that
it is among what that one runs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from tests.e2e.harness import APP, AS_ROOT, ROOT, Service
from tests.markdown import Block, Command, blocks, commands, indented, spans
from tests.real import image, unit
from uvicorn.control import cli
from uvicorn.supervisor import signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the documents are for POSIX shells")

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "deploy/*/README.md")
    for path in ROOT.glob(pattern)
)
# What stands in a command for something that only the reader knows.
PLACEHOLDERS = {"PATH": "{socket}", "ID": "1", "N": "2", "SECONDS": "5", "VERB": "status", "NAME": "shop"}


@dataclass(frozen=True)
class Place:
    """A command on a page.

    Attributes:
        heading: Above its block; "" for one within a sentence.
    """

    page: str
    heading: str
    command: Command

    @property
    def text(self) -> str:
        return self.command.text

    def __str__(self) -> str:
        return f"{self.page}:{self.command.line} {' '.join(self.text.split())[:60]}"


@dataclass(frozen=True)
class Bench:
    """What commands are run in and on.

    Attributes:
        directory: With the applications and files that the documents name.
        service: A service with a master; its control socket is `c` in its directory.
    """

    directory: Path
    service: Service

    @property
    def socket(self) -> str:
        return str(self.service.directory / "c")

    def run(self, command: str) -> str:
        """Through a shell; it has to end with 0."""
        environ = {**os.environ, **AS_ROOT, "UVICORN_CONTROL_SOCKET": self.socket, "PYTHONPATH": str(ROOT)}
        environ["PATH"] = f"{self.directory}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.directory,
            env=environ,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def places() -> Iterator[Place]:
    for page in PAGES:
        text = (ROOT / page).read_text()
        for block in blocks(text):
            if block.language == "sh":
                yield from (Place(page, block.heading, command) for command in commands(block))
        for span in spans(text):
            if " " in span.text and program(span.text) in CHECKS:
                yield Place(page, "", span)


def words(text: str) -> list[str]:
    return shlex.split(text, comments=True)


def program(text: str) -> str:
    try:
        return Path(words(text)[0]).name
    except (ValueError, IndexError):
        return ""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory = tmp_path_factory.mktemp("bench")
    (directory / "app.py").write_text(APP)
    (directory / "shop").mkdir()
    (directory / "shop" / "main.py").write_text(APP)
    (example,) = (b for b in blocks((ROOT / "README.md").read_text()) if b.language == "yaml")
    (directory / "prod.yaml").write_text(example.text)
    service = tmp_path_factory.mktemp("service")
    with Service(service, "--port", "0", "--workers", "2", "--control-socket", "c") as running:
        running.wait_ready(2)
        running.wait_log("answers on unix socket")
        yield Bench(directory, running)


# --- run as they stand -----------------------------------------------------------------------------


def uvicorn(bench: Bench, place: Place) -> None:
    """By the real command, which looks at everything that it would serve with and serves nothing."""
    # The file of the systemd page, with its application where there is one.
    installed = (ROOT / "deploy" / "systemd" / "uvicorn.yaml").read_text()
    (bench.directory / "uvicorn.yaml").write_text(installed.replace("/srv/uvicorn", str(bench.directory)))
    text = place.text.partition("#")[0].replace("/opt/uvicorn/bin/", "").replace("/etc/uvicorn/", "")
    if "--config-schema" in text:
        assert bench.run(text).startswith("{")
        return
    if words(text) == ["uvicorn", "--check-config"]:
        text += " app:app"
    assert "The configuration is good" in bench.run(f"{text} --check-config".replace("\n", " "))


def uvicornctl(bench: Bench, place: Place) -> None:
    """On a running service. `stop` has one of its own."""
    text = re.sub(r"[\[\]]", "", place.text.replace("/opt/uvicorn/bin/", ""))
    text = re.sub(r"--socket \S+", f"--socket {bench.socket}", text)
    for name, value in PLACEHOLDERS.items():
        text = re.sub(rf"\b{name}\b", value.format(socket=bench.socket), text)
    assert not re.search(r"\b[A-Z]+\b", text), f"what stands for what in {text!r}?"
    if "stop" in words(text):
        pytest.fail("`uvicornctl stop` in a block ends the service of the other commands: give it one here")
    bench.run(text)


def curl(bench: Bench, place: Place) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    text = re.sub(
        r"https?://(?:shop\.example|127\.0\.0\.1:\d+)", f"http://127.0.0.1:{bench.service.port}", place.text
    )
    text = text.replace("curl ", "curl --fail ", 1)
    bench.run(re.sub(r"\bPATH\b|/run/uvicorn/uvicorn\.ctl", bench.socket, text))


def ps(bench: Bench, place: Place) -> None:
    assert str(bench.service.pid) in bench.run(place.text)


def make(bench: Bench, place: Place) -> None:
    """The target exists, and what make would do for it can be told."""
    bench.run(f"make --dry-run --always-make --directory {ROOT} {place.text.removeprefix('make')}")


def python(bench: Bench, place: Place) -> None:
    if place.heading == "Install":
        by_systemd(bench, place)
        return
    _, option, module, *_ = words(place.text)
    assert option == "-m"
    assert importlib.util.find_spec(module) is not None, f"there is no module {module}"


def pip(bench: Bench, place: Place) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    _, verb, requirement = words(place.text)
    name, extras = re.fullmatch(r"(\w+)\[([\w,]+)\]", requirement).groups()  # type: ignore[union-attr]
    assert (verb, name) == ("install", project["name"])
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def kill(bench: Bench, place: Place) -> None:
    """The master has an answer to the signal."""
    signal = re.match(r"kill -(?:s )?(?:SIG)?([A-Z0-9]+)", place.text)
    assert signal is not None
    assert f"SIG{signal[1]}" in {number.name for number in signals.EVENTS}


# --- run by tests of their own ---------------------------------------------------------------------


def _among(place: Place, pages: dict[str, str], by: str) -> None:
    if place.page not in pages or not place.heading.startswith(pages[place.page]):
        pytest.fail(f"not among what {by} runs: {place}")


def by_systemd(bench: Bench, place: Place) -> None:
    if place.heading.startswith("Behind"):
        proxies(bench, place)
    elif place.heading:
        _among(place, unit.PAGES, "tests/real/inside.py")
    else:
        known(place, "systemctl")


def docker(bench: Bench, place: Place) -> None:
    if place.heading:
        _among(place, image.PAGES, "tests/real/image.py")
    elif "compose" in words(place.text):
        (file,) = re.findall(r"\S+\.yaml", place.text)
        assert (ROOT / file).exists()
    else:
        known(place, "podman")


def known(place: Place, tool: str) -> None:
    """A verb, and options, that the program itself tells of."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    verb, *rest = words(place.text)[1:]
    command = [tool, "--help"] if tool == "systemctl" else [tool, verb, "--help"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for word in [
        verb,
        *(each for each in rest[: rest.index("--") if "--" in rest else None] if each[0] == "-"),
    ]:
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", told), f"{tool} has no {word}"


def kubectl(bench: Bench, place: Place) -> None:
    known(place, "kubectl")
    if "kustomize" in words(place.text) or "apply" in words(place.text):
        directories = [word for word in words(place.text) if "/" in word]
        for directory in directories:
            bench.run(f"kubectl kustomize {ROOT}/{directory}")
    for name in re.findall(r"deployment/(\S+)", place.text):
        deployment = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "deployment.yaml").read_text())
        assert deployment["metadata"]["name"] == name
    if " -- " in place.text:
        rest = Command(place.command.line, place.text.partition(" -- ")[2])
        check(bench, Place(place.page, place.heading, rest))


# What tests/deploy/test_proxies.py does with the real programs, by what the reader does with them.
PROXIES = {
    "nginx -t": "nginx",
    "nginx -s reload": "nginx",
    "haproxy -c -f /etc/haproxy/haproxy.cfg": "haproxy",
    "systemctl reload haproxy": "haproxy",
    "install -Dm644 deploy/nginx/uvicorn.conf /etc/nginx/conf.d/uvicorn.conf": "nginx",
    "install -Dm644 deploy/haproxy/haproxy.cfg /etc/haproxy/haproxy.cfg": "haproxy",
}


def proxies(bench: Bench, place: Place) -> None:
    assert PROXIES[place.text] in place.heading


def usermod(bench: Bench, place: Place) -> None:
    """The group is the one that the unit has."""
    unit = (ROOT / "deploy" / "systemd" / "uvicorn.service").read_text()
    _, option, group, _ = words(place.text)
    assert option == "-aG"
    assert f"\nGroup={group}\n" in unit


CHECKS: dict[str, Callable[[Bench, Place], None]] = {
    "chgrp": by_systemd,
    "chmod": by_systemd,
    "curl": curl,
    "docker": docker,
    "groupadd": by_systemd,
    "haproxy": proxies,
    "install": by_systemd,
    "journalctl": by_systemd,
    "kill": kill,
    "kubectl": kubectl,
    "make": make,
    "nginx": proxies,
    "pip": pip,
    "ps": ps,
    "python": python,
    "python3": python,
    "sed": by_systemd,
    "systemctl": by_systemd,
    "useradd": by_systemd,
    "usermod": usermod,
    "uvicorn": uvicorn,
    "uvicornctl": uvicornctl,
}


def check(bench: Bench, place: Place) -> None:
    name = program(place.text)
    if place.page in unit.PAGES and place.heading and place.heading.startswith(unit.PAGES[place.page]):
        if name in ("uvicorn", "uvicornctl"):
            CHECKS[name](bench, place)
        return
    assert name in CHECKS, f"nobody checks {place}: say how, in CHECKS"
    CHECKS[name](bench, place)


@pytest.mark.e2e
@pytest.mark.parametrize("place", list(places()), ids=str)
def test_the_command_is_one(bench: Bench, place: Place) -> None:
    check(bench, place)


# --- the pages themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    text = (ROOT / page).read_text()
    assert not indented(text), "indented by four: fence it, so that its language is known"
    known_ones = {"sh", "yaml", "ini", "python", "dockerfile"}
    drawings = {"docs/design.md"}
    for block in blocks(text):
        assert block.language in known_ones or page in drawings, f"line {block.line}: {block.language!r}"


def test_a_command_that_nobody_checks_is_found(bench: Bench) -> None:
    block = Block("sh", 1, "Any", "frobnicate --all")
    (command,) = commands(block)
    with pytest.raises(AssertionError, match="nobody checks page:1 frobnicate"):
        check(bench, Place("page", "Any", command))


def test_the_table_of_uvicornctl_has_every_verb() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    table = page.partition("| verb | what it does | HTTP |")[2].partition("\n\n")[0]
    assert isinstance(cli.main, click.Group)
    assert set(re.findall(r"^\| `([a-z-]+)", table, re.MULTILINE)) == set(cli.main.commands)

"""The image of deploy/docker, built and run: `python -m tests.real.image`, as `make image-test`.

By buildah and podman, with a store of their own that is thrown away again, in a network namespace of their own: port 8000 is
free there, and nothing is fetched. The commands are those of the pages.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from pathlib import Path

from tests.e2e.harness import APP
from tests.markdown import Block, blocks, commands
from tests.real import debian
from tests.real.engine import Engine, tried_apart
from tests.real.table import Failed, Table, expect, run_or_say_why_not, wait_for

README = "deploy/docker/README.md"
DEPLOYING = "docs/deploying.md"
# Which headings of which pages are run here, by their beginnings: all blocks below them, or the last row says which not.
PAGES = {README: "", DEPLOYING: "Containers"}

RIGHTS = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")


def promised(page: str) -> list[Block]:
    """The blocks of commands that are to be run here."""
    found = blocks((debian.ROOT / page).read_text())
    return [each for each in found if each.language == "sh" and each.heading.startswith(PAGES[page])]


def documented(engine: Engine, having: str) -> str:
    """Run the commands of the page's one block in which this pattern is found; what the last has said."""
    found = [block for block in promised(DEPLOYING) if re.search(having, block.text, re.MULTILINE)]
    expect(len(found) == 1, f"{DEPLOYING} has {len(found)} blocks with {having!r}")
    engine.done.add((DEPLOYING, found[0].line))
    return [engine.run("bash", "-c", command.text) for command in commands(found[0])][-1]


def get(path: str = "/", patience: float = 30.0) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=patience)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except OSError as exc:
        raise Failed(f"no answer: {exc}") from exc
    finally:
        connection.close()


def answers() -> bool:
    try:
        return bool(get())
    except Failed:
        return False


# --- what is tried -------------------------------------------------------------------------------


def built(engine: Engine, details: list[str]) -> None:
    documented(engine, "docker build")
    for block in promised(README):
        # It takes a minute: the other page's is the same, and is not run twice.
        expect(block.text in [each.text for each in promised(DEPLOYING)], f"README.md has {block.text!r}")
        engine.done.add((README, block.line))
    image = engine.inspect("localhost/uvicorn")
    config = image["Config"]
    details.append(
        f"{image['Size'] >> 20} MiB with a base of {engine.inspect('localhost/base')['Size'] >> 20}"
    )
    expect(config["User"] == "10001:10001", f"user {config['User']}")
    expect(config["StopSignal"] in ("SIGTERM", "15"), f"signal {config['StopSignal']}")
    expect(config["Entrypoint"] == ["uvicorn"], f"entry point {config['Entrypoint']}")
    expect(health_check(engine) == ["uvicornctl", "health"], f"health check {health_check(engine)}")


def health_check(engine: Engine) -> list[str]:
    """Its command and arguments, in the exec form."""
    form, *command = engine.inspect("localhost/uvicorn")["Healthcheck"]["Test"]
    expect(form == "CMD", f"health check by {form}")
    return list(command)


def runs(engine: Engine, details: list[str]) -> None:
    documented(engine, "docker run")
    wait_for(answers, "an answer on port 8000")
    expect(json.loads(get("/a"))["path"] == "/a", "the application's answer")
    status = engine.docker("exec", "shop", "cat", "/proc/1/status")
    expect(re.search(r"^Uid:\s+10001\b", status, re.MULTILINE), "process 1 runs as somebody else")
    expect(re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), "process 1 has capabilities")
    title = engine.docker("exec", "shop", "cat", "/proc/1/cmdline")
    expect("uvicorn: master" in title, f"process 1 is {title}")
    engine.docker("exec", "shop", "touch", "/app/x", code=1)
    details.append(title.strip("\0"))


def health(engine: Engine, details: list[str]) -> None:
    check = health_check(engine)
    details.append(engine.docker("exec", "shop", *check))
    # Nobody is meant to serve while the workers are away: not healthy.
    engine.docker("kill", "-s", "WINCH", "shop")
    wait_for(lambda: "0 ready" in status_of(engine), "the end of the workers")
    details.append(engine.docker("exec", "shop", *check, code=1))
    engine.docker("kill", "-s", "HUP", "shop")
    wait_for(answers, "the workers' return")
    engine.docker("exec", "shop", *check)


def status_of(engine: Engine) -> str:
    status = json.loads(engine.docker("exec", "shop", "uvicornctl", "status", "--json"))
    return f"{sum(worker['stage'] == 'ready' for worker in status['workers'])} ready"


def told(engine: Engine, details: list[str]) -> None:
    before = engine.docker("logs", "shop").count("Reload complete")
    documented(engine, "kill -s HUP")
    wait_for(lambda: engine.docker("logs", "shop").count("Reload complete") > before, "the reload")
    details.append(engine.docker("exec", "shop", "uvicornctl", "reload"))


def reaps(engine: Engine, details: list[str]) -> None:
    for _ in range(5):
        engine.docker("exec", "shop", "sh", "-c", "(sleep 0.1 &)")
    wait_for(lambda: "sleep" not in engine.docker("exec", "shop", "ps", "-e"), "the end of the orphans")
    expect("defunct" not in engine.docker("exec", "shop", "ps", "-ef"), "zombies are left")
    expect("died" not in engine.docker("logs", "shop"), "an orphan was taken for a worker")


def stopped(engine: Engine, details: list[str]) -> None:
    # `docker rm` is the last command of the block, so the code is asked for before.
    (stop, remove) = commands(next(block for block in promised(DEPLOYING) if "docker stop" in block.text))
    started = time.monotonic()
    engine.run("bash", "-c", stop.text)
    details.append(f"{time.monotonic() - started:.1f} s")
    code = engine.inspect("shop")["State"]["ExitCode"]
    expect(code == 0, f"exit code {code}")
    engine.run("bash", "-c", remove.text)
    engine.done.add((DEPLOYING, next(b.line for b in promised(DEPLOYING) if "docker stop" in b.text)))


def drains(engine: Engine, details: list[str], application: Path) -> None:
    mount = ("-v", f"{application}:/app:ro", "-e", "WORKERS=2")
    engine.docker("run", "-d", "--name", "drain", *RIGHTS, *mount, "localhost/uvicorn")
    wait_for(answers, "an answer")
    answered: list[bytes] = []
    client = threading.Thread(target=lambda: answered.append(get("/slow?3")))
    client.start()
    in_flight = ("exec", "drain", "uvicornctl", "status", "--json")
    wait_for(lambda: json.loads(engine.docker(*in_flight))["in_flight"] == 1, "the request")
    engine.docker("stop", "-t", "15", "drain")
    client.join()
    expect(answered == [b"slow answer"], f"what was in flight got {answered}")
    code = engine.inspect("drain")["State"]["ExitCode"]
    expect(code == 0, f"exit code {code}")
    log = engine.docker("logs", "drain")
    expect(log.count("lifespan shutdown") == 2, "not every lifespan shutdown has run")
    details.append(log.splitlines()[-1])
    engine.docker("rm", "drain")


def exit_codes(engine: Engine, details: list[str]) -> None:
    said = engine.docker("run", "--rm", *RIGHTS, "-e", "APP=nowhere:app", "localhost/uvicorn", code=3)
    expect("nowhere" in said, f"the log does not say why: {said[-200:]}")
    said = engine.docker("run", "--rm", *RIGHTS, "-e", "WORKERS=many", "localhost/uvicorn", code=2)
    expect("workers" in said, f"the log does not say why: {said[-200:]}")
    details.append(said.splitlines()[-1])


def own_image(engine: Engine, details: list[str], work: Path) -> None:
    """The image that README.md builds on ours."""
    (block,) = (each for each in blocks((debian.ROOT / README).read_text()) if each.language == "dockerfile")
    context = work / "own"
    (context / "shop").mkdir(parents=True)
    (context / "Dockerfile").write_text(block.text)
    (context / "requirements.txt").write_text("anyio\n")
    (context / "shop" / "main.py").write_text(APP)
    engine.docker("build", "-t", "localhost/own", str(context))
    engine.docker("run", "-d", "--name", "own", *RIGHTS, "localhost/own")
    wait_for(answers, "an answer")
    details.append(get().decode())
    engine.docker("stop", "own")
    engine.docker("rm", "own")


def every_block(engine: Engine, details: list[str]) -> None:
    wanted = {(page, block.line) for page in PAGES for block in promised(page)}
    details.append(f"{len(engine.done)} blocks")
    expect(engine.done == wanted, f"never run: {sorted(wanted - engine.done)}")


def tried(work: Path, wheels: Path) -> int:
    application = work / "application"
    application.mkdir()
    (application / "app.py").write_text(APP)
    engine = Engine(work, wheels)
    engine.base()
    table = Table(engine.run("podman", "--version"))
    for name, attempt in (
        ("built by the page's command; user, signal, entry point, health check", built),
        ("runs by the page's command: read-only, no capability, process 1 is the master", runs),
        ("the image's health check: 0, 1 while nobody serves", health),
        ("HUP, and uvicornctl reload", told),
        ("process 1 reaps what it inherits", reaps),
        ("docker stop ends it with 0", stopped),
        ("docker stop answers what is in flight", lambda e, d: drains(e, d, application)),
        ("exit codes 3 and 2, with the reason", exit_codes),
        ("an image of one's own, by the page's Dockerfile", lambda e, d: own_image(e, d, work)),
        ("every command of the pages has been run", every_block),
    ):
        with table.row(name) as details:
            attempt(engine, details)
    engine.docker("rm", "--all", "--force")
    return table.conclude()


if __name__ == "__main__":
    run_or_say_why_not(lambda: tried_apart("tests.real.image", tried))

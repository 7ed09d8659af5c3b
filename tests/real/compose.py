"""deploy/docker/compose.yaml, run: `python -m tests.real.compose`, as part of `make image-test`.

By podman-compose, over real bridges, with real names and a real nginx. podman calls health checks by systemd's timers: here,
where there may be none, they are called by hand.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import websockets.sync.client

from tests.e2e.harness import APP
from tests.e2e.load import Load
from tests.real import debian
from tests.real.engine import SUITE, Engine, tried_apart
from tests.real.table import Failed, Missing, Table, expect, run_or_say_why_not, wait_for

FILE = "deploy/docker/compose.yaml"
PORT = 8080

SEEN = """
import json

async def seen(scope, receive, send):
    await answer(send, json.dumps({"client": scope["client"][0], "scheme": scope["scheme"]}).encode())

ROUTES["/seen"] = seen
"""
# Debian's nginx as the official image has it: its log to the engine, the files of conf.d alone, and a signal that drains.
NGINX = (
    "RUN rm -f /etc/nginx/sites-enabled/default",
    "RUN ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log",
    "STOPSIGNAL SIGQUIT",
    'CMD ["nginx", "-g", "daemon off;"]',
)


class Project:
    """The services of the file.

    Args:
        engine: Who runs them.
        environ: What the file takes from the environment.
    """

    def __init__(self, engine: Engine, **environ: str) -> None:
        self.engine = engine
        self._environ = environ

    def compose(self, *arguments: str) -> str:
        return self.engine.docker("compose", "-f", FILE, *arguments, **self._environ)

    def container(self, service: str) -> str:
        return f"docker_{service}_1"

    def state(self, service: str) -> Any:
        return self.engine.inspect(self.container(service))["State"]

    def log(self, service: str) -> str:
        return self.engine.docker("logs", self.container(service))

    def status(self) -> Any:
        said = self.engine.docker("exec", self.container("app"), "uvicornctl", "status", "--json")
        return json.loads(said)


def ask(path: str, patience: float = 30.0, **headers: str) -> tuple[int, bytes]:
    """The status and the body that nginx answers with."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=patience)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise Failed(f"no answer: {exc}") from exc
    finally:
        connection.close()


def answers() -> bool:
    try:
        return ask("/")[0] == 200
    except Failed:
        return False


# --- what is tried -------------------------------------------------------------------------------


def up(project: Project, details: list[str]) -> None:
    first = (debian.ROOT / FILE).read_text().splitlines()[0]
    expect(first.endswith(f": docker compose -f {FILE} up --build"), f"the first line is {first!r}")
    project.compose("up", "--build", "--detach")
    wait_for(answers, "an answer through nginx")
    app = project.engine.inspect(project.container("app"))
    (inside,) = app["NetworkSettings"]["Networks"].values()
    details.append(f"{inside['IPAddress']}, {app['HostConfig']['RestartPolicy']['Name']}")
    expect(app["HostConfig"]["ReadonlyRootfs"], "the root can be written to")
    expect(not app["NetworkSettings"]["Ports"].get("8000/tcp"), "the application's port is published")


def headers(project: Project, details: list[str]) -> None:
    code, body = ask("/seen", X_Forwarded_For="6.6.6.6", X_Forwarded_Proto="https")
    seen = json.loads(body)
    details.append(body.decode())
    expect(code == 200, f"status {code}")
    expect(seen["client"].startswith("10."), "the client is not the one that nginx has seen")
    expect(seen["scheme"] == "http", "a client's own X-Forwarded-Proto is believed")


def health(project: Project, details: list[str]) -> None:
    app = project.container("app")
    project.engine.docker("healthcheck", "run", app)
    last = project.state("app")["Health"]
    expect(last["Status"] == "healthy", f"the status is {last['Status']}")
    details.append(last["Log"][-1]["Output"])
    project.compose("kill", "-s", "WINCH", "app")
    wait_for(lambda: not project.status()["workers"], "the end of the workers")
    project.engine.docker("healthcheck", "run", app, code=1)
    details.append(project.state("app")["Health"]["Log"][-1]["Output"])
    project.compose("kill", "-s", "HUP", "app")
    wait_for(lambda: "Reload complete" in project.log("app"), "the workers' return")
    project.engine.docker("healthcheck", "run", app)
    expect(project.state("app")["Health"]["Status"] == "healthy", "it is not healthy again")


def websocket(project: Project, details: list[str]) -> None:
    with websockets.sync.client.connect(f"ws://127.0.0.1:{PORT}/") as connection:
        for message in ("hello", "x" * 100_000):
            connection.send(message)
            expect(connection.recv(30) == message, "another message came back")


def stream(project: Project, details: list[str]) -> None:
    """The application goes on until the client leaves: what nginx kept back would never come."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    expect([answer.readline() for _ in range(3)] == [b"tick\n"] * 3, "no ticks")
    answer.close()
    connection.close()
    wait_for(lambda: "stream saw disconnect" in project.log("app"), "the application's notice of the end")


def reload(project: Project, details: list[str]) -> None:
    before = project.log("app").count("Reload complete")
    with Load(PORT, clients=4) as load:
        for number in (1, 2):
            project.compose("kill", "-s", "HUP", "app")
            wait_for(lambda n=number: project.log("app").count("Reload complete") >= before + n, "the reload")
    details.append(f"{load.answers} answers, {sum(load.failures.values())} failed")
    expect(load.answers, "no answers")
    expect(not load.failures, f"failed: {dict(load.failures)}")


def restart(project: Project, details: list[str]) -> None:
    """nginx is not touched, and has asked for the address long ago."""
    pid, nginx = (project.state(service)["Pid"] for service in ("app", "nginx"))
    project.compose("restart", "app")
    expect(project.state("app")["Pid"] != pid, "it is the same process")
    expect(project.state("nginx")["Pid"] == nginx, "nginx was restarted, too")
    wait_for(answers, "an answer after the restart")


def replaced(project: Project, details: list[str]) -> None:
    """A new version of the application: another container."""
    identity = project.engine.inspect(project.container("app"))["Id"]
    project.compose("up", "--detach", "--force-recreate", "app")
    expect(project.engine.inspect(project.container("app"))["Id"] != identity, "it is the same container")
    wait_for(answers, "an answer of the new one")


def stop(project: Project, details: list[str]) -> None:
    answered: list[tuple[int, bytes]] = []
    client = threading.Thread(target=lambda: answered.append(ask("/slow?3")))
    client.start()
    wait_for(lambda: project.status()["in_flight"] == 1, "the request")
    project.compose("stop")
    client.join()
    expect(answered == [(200, b"slow answer")], f"what was in flight got {answered}")
    codes = {service: project.state(service)["ExitCode"] for service in ("app", "nginx")}
    details.append(project.log("app").splitlines()[-1])
    expect(codes == {"app": 0, "nginx": 0}, f"exit codes {codes}")


def down(project: Project, details: list[str]) -> None:
    project.compose("down")
    left = project.engine.docker("ps", "--all", "--quiet")
    expect(not left, f"left over: {left}")


def tried(work: Path, wheels: Path) -> int:
    application = work / "application"
    application.mkdir()
    (application / "app.py").write_text(APP + SEEN)
    engine = Engine(work, wheels)
    engine.base()
    engine.image("localhost/nginx", nginx_tree(), *NGINX)
    project = Project(
        engine,
        APP="app:app",
        APP_DIRECTORY=str(application),
        BASE_IMAGE="localhost/base",
        NGINX_IMAGE="localhost/nginx",
    )
    version = engine.docker("compose", "version").splitlines()[0]
    table = Table(f"{version}, {engine.run('podman', '--version')}")
    for name, attempt in (
        ("docker compose up --build, with images of one's own", up),
        ("nginx says who asks, whatever a client says of itself", headers),
        ("healthy, unhealthy while nobody serves, healthy again", health),
        ("a WebSocket through nginx", websocket),
        ("a stream through nginx, and its end", stream),
        ("docker compose kill -s HUP under load", reload),
        ("docker compose restart app: nginx finds it again", restart),
        ("docker compose up --force-recreate app", replaced),
        ("docker compose stop answers what is in flight, and ends with 0", stop),
        ("docker compose down", down),
    ):
        with table.row(name) as details:
            attempt(project, details)
        if attempt is up and table.failures:
            print(engine.docker("ps", "--all"))
            break
    engine.docker("rm", "--all", "--force", "--time", "0")
    return table.conclude()


def nginx_tree() -> Path:
    return debian.tree(SUITE, "nginx-light", f"{SUITE}-nginx")


def main() -> int:
    if importlib.util.find_spec("podman_compose") is None:
        raise Missing("not installed here: podman-compose")
    nginx_tree()
    return tried_apart("tests.real.compose", tried)


if __name__ == "__main__":
    run_or_say_why_not(main)

"""The configurations of nginx and haproxy, in front of the server as docs/deploying.md sets it up for them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets.sync.client
import yaml

from tests.e2e.harness import APP, AS_ROOT, PATIENCE, ROOT, Service, wait_for
from tests.e2e.load import Load
from tests.markdown import blocks
from tests.ports import free_port

pytestmark = pytest.mark.e2e

NGINX = shutil.which("nginx")
HAPROXY = shutil.which("haproxy")

SEEN = """
import json

async def seen(scope, receive, send):
    await answer(send, json.dumps({"client": scope["client"][0], "scheme": scope["scheme"]}).encode())

ROUTES["/seen"] = seen
"""

# What belongs around a file of conf.d, all of it in one directory.
MAIN = """\
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/site.conf;
}}
"""


def settings(heading: str) -> dict[str, Any]:
    """What docs/deploying.md has under this heading for the configuration of uvicorn."""
    page = (ROOT / "docs" / "deploying.md").read_text()
    (found,) = (each for each in blocks(page) if (each.heading, each.language) == (heading, "yaml"))
    loaded: dict[str, Any] = yaml.safe_load(found.text)
    return loaded


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, f"the configuration has no {old!r}"
        text = text.replace(old, new)
    return text


@dataclass
class Site:
    """What clients talk to: a port, and TLS where it has some."""

    port: int
    tls: ssl.SSLContext | None

    def seen(self, **headers: str) -> Any:
        scheme = "https" if self.tls else "http"
        request = urllib.request.Request(f"{scheme}://localhost:{self.port}/seen", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE, context=self.tls) as answer:
            return json.loads(answer.read())

    def websocket(self) -> websockets.sync.client.ClientConnection:
        scheme = "wss" if self.tls else "ws"
        return websockets.sync.client.connect(f"{scheme}://localhost:{self.port}/", ssl=self.tls)

    def load(self) -> Load:
        return Load(self.port, clients=4, tls=self.tls)

    def accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False


@contextlib.contextmanager
def serving(directory: Path, configuration: dict[str, Any]) -> Iterator[Service]:
    directory.mkdir(exist_ok=True)
    (directory / "app.py").write_text(APP + SEEN)
    (directory / "c.yaml").write_text(json.dumps({"app": "app:app", "workers": 2, **configuration}))
    with Service(directory, "--config", "c.yaml", app="") as service:
        yield service.wait_ready(2)


@contextlib.contextmanager
def proxy(directory: Path, command: list[str], site: Site) -> Iterator[Site]:
    with (directory / "proxy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait_for(lambda: site.accepts() or process.poll() is not None, "the proxy")
            assert process.poll() is None, (directory / "proxy.log").read_text()
            yield site
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """Writes fullchain.pem, privkey.pem and both.pem; what a client believes."""
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(tmp_path / "privkey.pem")
    made.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    for each in made.cert_chain_pems:
        each.write_to_path(tmp_path / "fullchain.pem", append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def nginx(directory: Path, text: str, site: Site) -> contextlib.AbstractContextManager[Site]:
    assert NGINX is not None
    (directory / "site.conf").write_text(text)
    # The socket is for the group alone, as the page has it.
    user = "user root;" if AS_ROOT else ""
    (directory / "nginx.conf").write_text(MAIN.format(directory=directory, user=user))
    return proxy(directory, [NGINX, "-p", str(directory), "-c", str(directory / "nginx.conf")], site)


needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


@needs_nginx
def test_behind_nginx_with_tls(tmp_path: Path, certificate: ssl.SSLContext) -> None:
    told = settings("Behind nginx")
    port = free_port()
    text = replaced(
        (ROOT / "deploy" / "nginx" / "uvicorn.conf").read_text(),
        (told["bind"], f"unix:{tmp_path}/s"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/shop", str(tmp_path)),
    )
    with (
        serving(tmp_path, {**told, "bind": f"unix:{tmp_path}/s"}) as service,
        nginx(tmp_path, text, Site(port, certificate)) as site,
    ):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o660
        # What a client says of itself is overwritten.
        seen = site.seen(**{"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http"})
        assert seen == {"client": "127.0.0.1", "scheme": "https"}
        with site.websocket() as socket:
            socket.send("hello")
            assert socket.recv(PATIENCE) == "hello"
        with site.load() as load:
            service.send_signal(signal.SIGHUP)
            service.wait_log("Reload complete")
            wait_for(lambda: load.answers, "answers")
        assert not load.failures
        assert service.stop() == 0


@needs_nginx
def test_behind_the_nginx_of_the_compose_file(tmp_path: Path) -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "docker" / "compose.yaml").read_text())
    trusted = compose["services"]["app"]["environment"]["FORWARDED_ALLOW_IPS"]
    port = free_port()
    with serving(tmp_path, {"port": 0, "forwarded_allow_ips": trusted}) as service:
        text = replaced(
            (ROOT / "deploy" / "docker" / "nginx.conf").read_text(),
            ("app:8000", f"127.0.0.1:{service.port}"),
            ("listen 80;", f"listen 127.0.0.1:{port};"),
        )
        with nginx(tmp_path, text, Site(port, None)) as site:
            seen = site.seen(**{"X-Forwarded-For": "6.6.6.6"})
            assert seen == {"client": "127.0.0.1", "scheme": "http"}
            with site.websocket() as socket:
                socket.send("hello")
                assert socket.recv(PATIENCE) == "hello"
            with site.load() as load:
                service.send_signal(signal.SIGHUP)
                service.wait_log("Reload complete")
                wait_for(lambda: load.answers, "answers")
            assert not load.failures
        assert service.stop() == 0


@needs_haproxy
def test_behind_haproxy_one_machine_goes_and_nothing_is_lost(
    tmp_path: Path, certificate: ssl.SSLContext
) -> None:
    told = settings("Behind haproxy")
    addresses = {"bind": "127.0.0.1:0", "admin": "127.0.0.1:0", "forwarded_allow_ips": "127.0.0.1"}
    port = free_port()
    with (
        serving(tmp_path / "web1", {**told, **addresses}) as first,
        serving(tmp_path / "web2", {**told, **addresses}) as second,
    ):
        text = replaced(
            (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text(),
            ("bind :443 ssl", f"bind 127.0.0.1:{port} ssl"),
            ("/etc/ssl/shop", str(tmp_path)),
            ("web1 10.0.0.11:8000", f"web1 127.0.0.1:{first.port} port {admin_port(first)}"),
            ("web2 10.0.0.12:8000", f"web2 127.0.0.1:{second.port} port {admin_port(second)}"),
        )
        (tmp_path / "haproxy.cfg").write_text(text)
        assert HAPROXY is not None
        command = [HAPROXY, "-db", "-f", str(tmp_path / "haproxy.cfg")]
        with proxy(tmp_path, command, Site(port, certificate)) as site:
            seen = site.seen(**{"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http"})
            assert seen == {"client": "127.0.0.1", "scheme": "https"}
            with site.websocket() as socket:
                socket.send("hello")
                assert socket.recv(PATIENCE) == "hello"
            with site.load() as load:
                assert first.stop() == 0
                before = load.answers
                wait_for(lambda: load.answers > before + 100, "answers of the other one")
            assert not load.failures
            assert second.stop() == 0


def admin_port(service: Service) -> int:
    return int(service.wait_log(r"answers on .*http://127\.0\.0\.1:(\d+)")[1])

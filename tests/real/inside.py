"""The life cycles of the units, under a systemd that is process 1. Runs inside of the container that systemd.py makes.

The commands are those of the pages, read from the pages themselves. Standard library alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.real.table import Table, expect, wait_for
from tests.real.unit import (
    APP,
    CONFIG,
    DEPLOYING,
    EXECUTED,
    PAGES,
    README,
    SERVICE,
    SOCKET,
    Load,
    code,
    documented,
    dropin,
    files,
    generation,
    get,
    main_pid,
    promised,
    reload,
    restart,
    run,
    shown,
    version,
    written,
)


def install(details: list[str]) -> None:
    APP.parent.mkdir(parents=True)
    APP.write_text(Path("/mnt/app.py").read_text())
    documented("useradd")
    if version() < 253:
        documented("before-253.conf")
        details.append("with before-253.conf")


def verify(details: list[str]) -> None:
    said = run("systemd-analyze verify /etc/systemd/system/uvicorn.service").splitlines()
    if version() < 253:
        said = [line for line in said if "ignoring: notify-reload" not in line]
    expect(not said, f"systemd-analyze verify says: {said}")
    score = re.search(r"exposure level for .*: (\S+)", run(f"systemd-analyze security {SERVICE}"))
    assert score is not None
    details.append(f"systemd-analyze security: {score[1]}")
    expect(float(score[1]) <= 1.5, f"exposure {score[1]}")


def start(details: list[str]) -> None:
    documented("enable --now uvicorn.service")
    expect(shown("ActiveState") == "active", "not active when systemctl returned")
    expect(code() == "v1", "no answer")
    details.append(shown("StatusText"))
    user = run(f"ps -o user= -p {main_pid()}")
    expect(user == "uvicorn", f"runs as {user}")
    run("/opt/uvicorn/bin/uvicornctl --socket /run/uvicorn/uvicorn.ctl health")
    expect("\x1b" not in run(f"journalctl -u {SERVICE} -o cat"), "colours in the journal")


def reload_good(details: list[str]) -> None:
    pid, before = main_pid(), generation()
    APP.write_text(APP.read_text().replace('"v1"', '"v2"'))
    with Load() as load:
        reload()
        expect(code() == "v2", "the old code answers after systemctl reload has returned")
    load.check(details)
    expect(main_pid() == pid, "another process")
    details.append(f"generation {before} to {generation()}")
    expect(generation() == before + 1, "no new generation")


def reload_broken(details: list[str]) -> None:
    pid, before = main_pid(), generation()
    with Load() as load:
        for path, broken in ((APP, "raise RuntimeError('broken on purpose')\n"), (CONFIG, "wrkers: 2\n")):
            with written(path, lambda text, broken=broken: broken + text):
                reload()
                why = shown("StatusText")
                expect("Reload failed" in why, f"the status line says {why!r}")
                expect(shown("ActiveState") == "active", "not active")
                expect(code() == "v2", "other code")
        details.append(why)
        reload()  # what is whole again is taken
    load.check(details)
    expect("failed" not in shown("StatusText"), "the failure is still in the status line")
    expect(main_pid() == pid, "another process")
    expect(generation() > before, "no new generation after the repair")


def worker_killed(details: list[str]) -> None:
    children = run(f"pgrep -P {main_pid()} -f 'uvicorn: worker'").split()
    os.kill(int(children[0]), signal.SIGKILL)
    wait_for(
        lambda: re.search(r"died: killed by SIGKILL", run(f"journalctl -u {SERVICE} -o cat")), "the log line"
    )
    expect(code() == "v2", "no answer")
    expect(shown("NRestarts") == "0", "systemd has started it again")


def upgrade(details: list[str]) -> None:
    pid, before = main_pid(), generation()
    with Load() as load:
        documented("USR2")
        wait_for(lambda: "Took over" in run(f"journalctl -u {SERVICE} -o cat"), "the new program")
        wait_for(lambda: generation() > before and "rolling" not in shown("StatusText"), "the new generation")
        run("/opt/uvicorn/bin/uvicornctl --socket /run/uvicorn/uvicorn.ctl health")
    load.check(details)
    expect(main_pid() == pid, "another process")
    expect(shown("ActiveState") == "active", "not active")


def by_command(details: list[str]) -> None:
    documented("^systemctl status uvicorn$")
    documented("^systemctl status uvicorn$", DEPLOYING)
    documented("uvicorn.ctl status")
    details.append(shown("StatusText"))


def watchdog(details: list[str]) -> None:
    with dropin(SERVICE, "WatchdogSec=2"):
        restart()
        before = main_pid()
        # As long as the master turns, nothing happens: three times the limit.
        over = time.monotonic() + 6
        wait_for(lambda: time.monotonic() > over, "the time")
        expect(main_pid() == before, "killed although it was well")
        os.kill(before, signal.SIGSTOP)
        wait_for(lambda: shown("NRestarts") == "1" and shown("ActiveState") == "active", "the restart")
        expect(main_pid() != before, "the same process")
        expect("atchdog timeout" in run(f"journalctl -u {SERVICE} -o cat"), "not by the watchdog")
        expect(code() == "v2", "no answer")
    restart()


def master_killed(details: list[str]) -> None:
    before = shown("NRestarts")
    with Load() as load:
        os.kill(main_pid(), signal.SIGKILL)
        wait_for(lambda: shown("NRestarts") > before and shown("ActiveState") == "active", "the restart")
        expect(code() == "v2", "no answer")
    if version() >= 254:
        # The store holds the listener: what comes meanwhile waits. What was in flight may be cut: the old workers would
        # answer it, but systemd kills what is left of a service whose main process is gone (KillMode=mixed).
        load.check(details, cut=1)
        expect("from the service manager's store" in run(f"journalctl -u {SERVICE} -o cat"), "store not used")
    else:
        details.append(f"no store before systemd 254: {sum(load.counts.values()) - load.counts['ok']} failed")


def wrong_configuration(details: list[str]) -> None:
    with written(CONFIG, lambda text: text + "wrkers: 2\n"):
        run(f"systemctl restart {SERVICE}", ok=False)
        expect(shown("ExecMainStatus") == "2", f"exit code {shown('ExecMainStatus')}")
        expect(shown("ActiveState") == "failed", f"state {shown('ActiveState')}: started again")
        said = re.findall(r"uvicorn.yaml:\d+: wrkers: .*", run(f"journalctl -u {SERVICE} -o cat"))
        expect(said, "the journal does not say why")
        details.append(said[-1])
    run(f"systemctl reset-failed {SERVICE}; systemctl start {SERVICE}")


def failed_starts(details: list[str]) -> None:
    run(f"systemctl stop {SERVICE}; systemctl reset-failed {SERVICE}")
    with (
        written(APP, lambda text: "raise RuntimeError('broken on purpose')\n" + text),
        dropin(SERVICE, "RestartSec=100ms"),
    ):
        run(f"systemctl start {SERVICE}", ok=False)
        wait_for(lambda: shown("ActiveState") == "failed", "systemd giving up")
        expect(shown("ExecMainStatus") == "3", f"exit code {shown('ExecMainStatus')}")
        details.append(f"given up after {shown('NRestarts')} restarts")
        expect(shown("NRestarts") == "5", f"{shown('NRestarts')} restarts")
    run(f"systemctl reset-failed {SERVICE}; systemctl start {SERVICE}")
    expect(code() == "v2", "no answer")


def slow_start(details: list[str]) -> None:
    with dropin(SERVICE, "TimeoutStartSec=3", "Environment=STARTUP=8"):
        started = time.monotonic()
        restart()
        details.append(f"started after {time.monotonic() - started:.1f} s with TimeoutStartSec=3")
        expect(code() == "v2", "no answer")
    restart()


def stop(details: list[str]) -> None:
    answers: list[bytes] = []
    client = threading.Thread(target=lambda: answers.append(get(path="/slow?6")))
    client.start()
    wait_for(lambda: in_flight() == 1, "the request")  # told once a second
    started = time.monotonic()
    documented("^systemctl stop uvicorn$")
    took = time.monotonic() - started
    client.join()
    expect(answers == [b"slow answer"], f"what was in flight got {answers}")
    expect(shown("Result") == "success", f"result {shown('Result')}")
    details.append(f"{took:.1f} s with up to 6 s in flight, TimeoutStopSec=60")
    expect(took < 20, f"{took:.1f} s")
    left = subprocess.run(["pgrep", "-af", "uvicorn: "], check=False, capture_output=True, text=True).stdout
    expect(not left, f"left behind: {left}")


def stop_stuck(details: list[str]) -> None:
    limits = ("GRACEFUL_SHUTDOWN=2", "LIFESPAN_SHUTDOWN=1", "WORKER_HEALTHCHECK=1")
    with dropin(SERVICE, *(f"Environment=UVICORN_TIMEOUT_{each}" for each in limits)):
        run(f"systemctl reset-failed {SERVICE}; systemctl start {SERVICE}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(SOCKET)
            client.sendall(b"GET /block?1000 HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: "is stalled" in run(f"journalctl -u {SERVICE} -o cat"), "the report")
            started = time.monotonic()
            run(f"systemctl stop {SERVICE}")
        details.append(f"{time.monotonic() - started:.1f} s with limits of 3 s")
    expect(shown("Result") == "success", f"result {shown('Result')}")
    said = run(f"journalctl -u {SERVICE} -o cat")
    expect(re.search("Aborting worker=", said), "the master has not aborted the worker")
    expect("in block" in said, "the log has no stack of the worker that was stuck")


def in_flight() -> int:
    said = run("/opt/uvicorn/bin/uvicornctl --socket /run/uvicorn/uvicorn.ctl status --json")
    return int(json.loads(said)["in_flight"])


def template(details: list[str]) -> None:
    Path("/srv/shop").mkdir()
    Path("/srv/shop/app.py").write_text(APP.read_text().replace('"v2"', '"shop"'))
    text = (
        CONFIG.read_text().replace("/srv/uvicorn", "/srv/shop").replace("/run/uvicorn/", "/run/uvicorn-shop/")
    )
    Path("/etc/uvicorn/shop.yaml").write_text(text)
    if version() < 253:
        run("install -Dm644 before-253.conf /etc/systemd/system/uvicorn@.service.d/before-253.conf")
    run(f"systemctl start {SERVICE}")
    documented("uvicorn@shop")
    shop = "/run/uvicorn-shop/uvicorn.sock"
    expect((code(), code(shop)) == ("v2", "shop"), "not each its own")
    with Load(shop) as load:
        run("systemctl reload uvicorn@shop")
    load.check(details)
    run("systemctl disable --now uvicorn@shop.service")
    expect(code() == "v2", "the other one went too")


def activation(details: list[str]) -> None:
    documented("uvicorn.socket")
    expect(code(80) == "v2", "no answer on port 80")
    with Load(80) as load:
        run(f"systemctl restart {SERVICE}")
        run(f"systemctl reload {SERVICE}")
        expect(code(80) == "v2", "no answer after the restart")
    load.check(details)
    # Stopped, the socket listens on, and the first connection starts the service.
    run(f"systemctl stop {SERVICE}")
    expect(shown("ActiveState") == "inactive", "not stopped")
    expect(code(80) == "v2", "the connection has not started it")
    # Answered by the first worker; READY is said when all of them serve.
    wait_for(lambda: shown("ActiveState") == "active", "READY")
    details.append("restart, and a start by the first connection")
    run(f"systemctl stop uvicorn.socket {SERVICE}")


def tls(details: list[str]) -> None:
    heading = "systemd: TLS without a proxy"
    directory = Path("/etc/ssl/shop")
    shutil.copytree("/mnt/first", directory)
    documented("groupadd", DEPLOYING)
    told = CONFIG.read_text()
    for name, text in files(heading):
        if name == "yaml":
            CONFIG.write_text(re.sub("(?m)^bind: .*\n", "", told) + text)
        else:
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(text)
    run(f"systemctl daemon-reload; systemctl restart uvicorn.socket; systemctl reset-failed {SERVICE}")
    run(f"systemctl start {SERVICE}")
    before = main_pid()
    expect(subject() == "first", f"the certificate is {subject()}")
    for name in ("privkey.pem", "fullchain.pem"):
        # As a renewal does: rights and owner stay, the content changes.
        (directory / name).write_bytes(Path("/mnt/second", name).read_bytes())
    documented("^systemctl reload uvicorn$", DEPLOYING)
    wait_for(lambda: subject() == "second", "the new certificate")
    with written(directory / "fullchain.pem", lambda text: Path("/mnt/first/fullchain.pem").read_text()):
        reload()
        why = wait_for(lambda: re.search("Last failure: (.*)", shown("StatusText")), "the failure")[1]
        expect(subject() == "second", "the wrong certificate is used")
    details.append(why)
    expect(main_pid() == before, "another process")
    run(f"systemctl stop uvicorn.socket {SERVICE}")
    CONFIG.write_text(told)


def subject() -> str:
    """The organization in the certificate that port 443 has."""
    context = ssl.create_default_context(cafile="/mnt/authority.pem")
    with (
        socket.create_connection(("127.0.0.1", 443), timeout=30) as sock,
        context.wrap_socket(sock, server_hostname="shop.example") as tls,
    ):
        fields = (tls.getpeercert() or {})["subject"]
        return str(dict(pair for field in fields for pair in field)["organizationName"])


def root_refused(details: list[str]) -> None:
    with dropin(SERVICE, "User=root", "Group=root"):
        run(f"systemctl reset-failed {SERVICE}; systemctl start {SERVICE}", ok=False)
        expect(shown("ExecMainStatus") == "2", f"exit code {shown('ExecMainStatus')}")
        said = [line for line in run(f"journalctl -u {SERVICE} -o cat").splitlines() if "root" in line]
        expect(said, "the journal does not say why")
        details.append(said[-1])


def every_block(details: list[str]) -> None:
    wanted = {(page, block.line) for page in PAGES for block in promised(page)}
    if version() >= 253:
        wanted = {(page, line) for page, line in wanted if line != drop_in_line()}
    details.append(f"{len(EXECUTED)} blocks")
    expect(EXECUTED == wanted, f"never run: {sorted(wanted - EXECUTED)}")


def drop_in_line() -> int:
    """Of the block that is for systemd before 253 alone."""
    return next(block.line for block in promised(README) if "before-253.conf" in block.text)


CYCLES = (
    ("installed by README.md's commands", install),
    ("verify finds nothing, exposure at most 1.5", verify),
    ("start returns when workers serve", start),
    ("reload with new code under load", reload_good),
    ("broken code and broken YAML: active, unchanged, the reason in the status line", reload_broken),
    ("a killed worker is the master's business", worker_killed),
    ("uvicornctl status, reload", by_command),
    ("upgrade by USR2 under load, same main process", upgrade),
    ("a start that is slower than TimeoutStartSec is prolonged", slow_start),
    ("watchdog: quiet while well; a stopped master is replaced", watchdog),
    ("kill -9 of the master under load", master_killed),
    ("exit code 2 is not tried again", wrong_configuration),
    ("exit code 3 is tried again until StartLimitBurst", failed_starts),
    ("stop answers what is in flight, leaves nobody", stop),
    ("stop with a worker that is stuck: the master ends it within its limits, not systemd", stop_stuck),
    ("uvicorn@shop beside it", template),
    ("socket activation on port 80, no connection refused by a restart", activation),
    ("TLS on port 443, the key is root's; a new certificate by reload, a wrong one changes nothing", tls),
    ("without User= it is refused", root_refused),
    ("every command of the pages has been run", every_block),
)


def main() -> int:
    wait_for(
        lambda: run("systemctl is-system-running || true") in ("running", "degraded"), "the end of the boot"
    )
    table = Table(run("systemctl --version").splitlines()[0])
    for name, cycle in CYCLES:
        with table.row(name) as details:
            cycle(details)
    if table.failures:
        print(run(f"journalctl -u {SERVICE} -o short-precise | tail -n 60"))
    return table.conclude()


if __name__ == "__main__":
    result = main()
    Path("/mnt/exit-code").write_text(str(result))
    sys.exit(result)

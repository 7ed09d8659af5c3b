"""The `uvicornctl` command.

Exit codes: 0 it is so, or was done; 1 it was not done, or the service is not healthy; 2 the command line; 3 nobody
answers. `health` knows 0 and 1 only, as HEALTHCHECK of containers does.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import click

from uvicorn.control.client import Client, Unreachable
from uvicorn.control.screen import Screen, is_live
from uvicorn.control.tables import listing

FAILED, USAGE, NOBODY = 1, 2, 3
# Within this time, in seconds, a service that is there says how it is.
PATIENCE = 10.0
# The same for a live table, which tries again.
LIVE_PATIENCE = 4.0
# How long a command waits for its outcome where nothing else is said.
OUTCOME_PATIENCE = 900.0
# The name of the socket in the directory that systemd gives.
SOCKET_NAME = "uvicorn.ctl"

_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, help="Answer with JSON."),
    click.option(
        "--socket",
        "--control-socket",
        "path",
        metavar="PATH",
        help="The control socket. [$UVICORN_CONTROL_SOCKET]",
    ),
    click.option("--timeout", type=float, metavar="SECONDS", help="Wait this long for the answer."),
)


def _with_options(function: Callable[..., Any]) -> Any:
    """Before the verb and behind it alike."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class Call:
    """One call of the command: which service, and how to answer."""

    def __init__(self, ctx: click.Context, given: dict[str, Any], patience: float) -> None:
        outer = ctx.parent.params if ctx.parent is not None else {}
        self.as_json: bool = given["as_json"] or outer.get("as_json", False)
        self.path = given["path"] or outer.get("path") or _default_path(ctx)
        timeout = given["timeout"] if given["timeout"] is not None else outer.get("timeout")
        self.client = Client(self.path, patience if timeout is None else timeout)

    def ask(self, method: str, path: str, content: Any = None, nobody: int = NOBODY) -> tuple[int, Any]:
        try:
            return self.client.ask(method, path, content)
        except Unreachable as exc:
            self.fail(str(exc), nobody)

    def fail(self, text: str, code: int) -> NoReturn:
        self.show({"ok": False, "text": text}, text, error=True)
        sys.exit(code)

    def show(self, content: Any, text: str, error: bool = False) -> None:
        if self.as_json:
            click.echo(json.dumps(content, indent=2))
        else:
            click.echo(text, err=error)

    def conclude(self, status: int, content: Any, nobody: int = NOBODY) -> None:
        """Show how it ended; leave with its exit code."""
        ok = bool(content.get("ok"))
        self.show(content, content.get("text", ""), error=not ok)
        if not ok:
            sys.exit(nobody if status == 403 else FAILED)


def _default_path(ctx: click.Context) -> str:
    path = os.environ.get("UVICORN_CONTROL_SOCKET", "")
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if not path and runtime:
        path = os.path.join(runtime, SOCKET_NAME)
    if not path:
        raise click.UsageError("Which service? Give --socket PATH, or set UVICORN_CONTROL_SOCKET.", ctx)
    return path


@click.group(context_settings={"max_content_width": 80})
@_with_options
def main(**_: Any) -> None:
    """Look inside a running uvicorn master, and command it."""


@main.command()
@_with_options
@click.pass_context
def status(ctx: click.Context, /, **given: Any) -> None:
    """How the service is: state, workers, restarts, last events."""
    call = Call(ctx, given, PATIENCE)
    found = _status(call)
    call.show(found, "\n".join(listing(found, events=10, width=None)))


def _status(call: Call) -> Any:
    code, found = call.ask("GET", "/v1/status")
    if code != 200:
        call.fail(found.get("text", f"status {code}"), NOBODY)
    return found


@main.command()
@click.option("--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS")
@click.option("--count", type=click.IntRange(1), help="End after so many looks.")
@_with_options
@click.pass_context
def top(ctx: click.Context, /, interval: float, count: int | None, **given: Any) -> None:
    """The status, live; q or Ctrl-C ends it, up and down move among many workers.

    With --json it is one line for each look; where the output is no terminal, one table after the other.
    """
    live = is_live() and not given["as_json"]
    call = Call(ctx, given, LIVE_PATIENCE if live else PATIENCE)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        if live and not call.as_json:
            _live(call, interval, count)
        else:
            _one_after_the_other(call, interval, count)


def _one_after_the_other(call: Call, interval: float, count: int | None) -> None:
    previous = None
    for number in itertools.count(1):
        found = _status(call)
        click.echo(json.dumps(found) if call.as_json else "\n".join(listing(found, previous)) + "\n")
        previous = found
        if number == count:
            return
        time.sleep(interval)  # noqa: TID251 - a command, without an event loop


def _live(call: Call, interval: float, count: int | None) -> None:
    """On the terminal. A service that goes away is waited for: it may only be started anew."""
    found, before = _status(call), None  # without one there is nothing to draw
    lost, heard_at, looks, skip = "", time.monotonic(), 1, 0
    with Screen() as screen:
        while True:
            _draw(
                screen,
                found,
                before,
                skip,
                f"No answer for {time.monotonic() - heard_at:.0f} s. {lost}" if lost else "",
            )
            if count is not None and looks >= count:
                break
            due = time.monotonic() + interval
            key = ""
            while key in ("", "other") and (left := due - time.monotonic()) > 0:
                key = screen.wait(left)
            if key == "quit":
                break
            skip = max(0, skip + {"down": 1, "up": -1}.get(key, 0))
            if key:
                continue
            looks += 1
            try:
                code, answer = call.client.ask("GET", "/v1/status")
            except Unreachable as exc:
                lost = str(exc)
                continue
            if code != 200:
                lost = answer.get("text", f"status {code}")
                continue
            found, before, lost, heard_at = answer, None if lost else found, "", time.monotonic()
    if lost:
        call.fail(lost, NOBODY)
    click.echo("\n".join(listing(found, before)))


def _draw(screen: Screen, found: Any, before: Any, skip: int, lost: str) -> None:
    width, height = screen.size
    lines = listing(found, before, width=width, height=height - bool(lost), skip=skip)
    if lost:
        screen.draw([lost, *lines], reverse=0)
    else:
        screen.draw(lines, reverse=next(i for i, line in enumerate(lines) if not line) + 1)


def _command(name: str, path: str, text: str) -> None:
    @main.command(name, help=text)
    @_with_options
    @click.pass_context
    def command(ctx: click.Context, /, **given: Any) -> None:
        call = Call(ctx, given, OUTCOME_PATIENCE)
        call.conclude(*call.ask("POST", path))


_command("reload", "/v1/reload", "Read settings and code again; wait until they serve, or say why not.")
_command(
    "upgrade", "/v1/upgrade", "Replace the master's program in place; wait until it serves, or say why not."
)
_command("reopen-logs", "/v1/reopen-logs", "Let master and workers open their log files again.")


@main.command()
@click.argument("workers", metavar="N", type=click.IntRange(1))
@_with_options
@click.pass_context
def scale(ctx: click.Context, /, workers: int, **given: Any) -> None:
    """Have N workers; wait until they are ready. A reload returns to the configured number."""
    call = Call(ctx, given, OUTCOME_PATIENCE)
    call.conclude(*call.ask("POST", "/v1/scale", {"workers": workers}))


@main.command()
@click.argument("worker", metavar="ID", type=click.IntRange(1))
@_with_options
@click.pass_context
def restart(ctx: click.Context, /, worker: int, **given: Any) -> None:
    """Replace worker ID; wait until its successor serves."""
    call = Call(ctx, given, OUTCOME_PATIENCE)
    call.conclude(*call.ask("POST", f"/v1/workers/{worker}/restart"))


@main.command()
@click.argument("worker", metavar="ID", type=click.IntRange(1))
@_with_options
@click.pass_context
def dump(ctx: click.Context, /, worker: int, **given: Any) -> None:
    """Where worker ID is: stacks, requests in flight, tasks. Also of one whose event loop is blocked."""
    call = Call(ctx, given, 2 * PATIENCE)
    call.conclude(*call.ask("GET", f"/v1/workers/{worker}/dump"))


@main.command()
@click.option("--no-wait", is_flag=True, help="Do not wait for the end.")
@_with_options
@click.pass_context
def stop(ctx: click.Context, /, no_wait: bool, **given: Any) -> None:
    """Stop the service in order; wait until it has ended."""
    call = Call(ctx, given, OUTCOME_PATIENCE)
    code, found = call.ask("POST", "/v1/stop")
    if found.get("ok") and not no_wait:
        if not call.client.wait_end():
            call.fail("The service has not ended in time; it goes on stopping.", FAILED)
        found = {"ok": True, "text": "The service has stopped."}
    call.conclude(code, found)


@main.command()
@_with_options
@click.pass_context
def health(ctx: click.Context, /, **given: Any) -> None:
    """Exit 0 where a worker is ready and the service does not stop, else 1."""
    call = Call(ctx, given, PATIENCE)
    code, found = call.ask("GET", "/v1/health", nobody=FAILED)
    call.conclude(code, found, nobody=FAILED)


if __name__ == "__main__":
    main()

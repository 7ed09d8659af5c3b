"""Process 1 hears SIGTERM from its first line on; nobody else is touched."""

from __future__ import annotations

import signal

import pytest

from uvicorn import _early

MODULE = ["python3", "-m", "uvicorn", "app:app"]


@pytest.mark.parametrize(
    ("argv", "original", "ours"),
    [
        (["/opt/uvicorn/bin/uvicorn", "app:app"], ["python3", "/opt/uvicorn/bin/uvicorn", "app:app"], True),
        (["uvicorn.exe"], ["uvicorn.exe"], True),
        (["-m", "app:app"], MODULE, True),
        (["-m"], ["python3", "-m", "gunicorn"], False),
        (["-m"], ["python3", "-X", "dev", "-m", "uvicorn"], True),
        (["serve.py"], ["python3", "serve.py"], False),
        (["/usr/bin/gunicorn"], ["python3", "/usr/bin/gunicorn", "-k", "uvicorn"], False),
        (["-c"], ["python3", "-c", "import uvicorn"], False),
        ([""], ["python3"], False),
        ([], [], False),
    ],
)
def test_the_command_is_told_from_what_imports_us(argv: list[str], original: list[str], ours: bool) -> None:
    assert _early.is_our_command(argv, original) is ours


@pytest.mark.parametrize(
    ("pid", "command", "prepared"), [(1, True, True), (2, True, False), (1, False, False)]
)
def test_only_process_1_that_is_our_command_gets_handlers(
    pid: int, command: bool, prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_early.os, "getpid", lambda: pid)
    monkeypatch.setattr(_early, "is_our_command", lambda argv, original: command)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGQUIT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # somebody's wish
    try:
        _early.prepare()
        assert (signal.getsignal(signal.SIGTERM) is _early.die) is prepared
        assert signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_it_is_not_put_back_by_who_has_taken_its_place() -> None:
    assert _early.before_us(_early.die) == signal.SIG_DFL
    assert _early.before_us(signal.default_int_handler) is signal.default_int_handler

"""Sources: the environment, and files that have to be there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uvicorn.settings.layers import Raw, SettingsError, merge
from uvicorn.settings.sources import (
    MAX_ENV_FILE_SIZE,
    env_file_text,
    from_environ,
    missing_files,
    misspelt,
    unsupported,
)
from uvicorn.settings.table import OPTIONS

# --- environment -----------------------------------------------------------------------------------


def test_environment_is_read_as_text_with_the_variables_name_as_place() -> None:
    layer = from_environ({"UVICORN_PORT": "1", "UVICORN_APP": "a:b", "UVICORN_NOTHING": "x", "PORT": "2"})
    assert layer == {
        "port": Raw("1", "$UVICORN_PORT", is_text=True),
        "app": Raw("a:b", "$UVICORN_APP", is_text=True),
    }


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("UVICORN_WORKRES", "UVICORN_WORKERS"),
        ("UVICORN_WORKER", "UVICORN_WORKERS"),
        ("UVICORN_HOSTS", "UVICORN_HOST"),
        ("UVICORN_SSL_CERT_FILE", "UVICORN_SSL_CERTFILE"),
        ("UVICORN_TIMEOUT_KEEPALIVE", "UVICORN_TIMEOUT_KEEP_ALIVE"),
        ("UVICORN_port", "UVICORN_PORT"),
    ],
)
def test_a_variable_that_is_nearly_a_settings_is_told(variable: str, meant: str) -> None:
    (problem,) = misspelt({"UVICORN_PORT": "1", variable: "1"})
    assert str(problem) == f"${variable}: is no setting, and is ignored; did you mean {meant}?"


def test_variables_of_settings_and_of_others_are_nobodys_mistake() -> None:
    known = {option.env_name: "1" for option in OPTIONS}
    others = [
        "UVICORN_HANDOVER_FD",
        "UVICORN_UPGRADE_TRIAL",
        "UVICORN_HANDOVER_BINDS",
        "UVICORN_",
        "PORTS",
        "UVICORN",
    ]
    others += ["UVICORN_OPTIONS", "UVICORN_EXTRA_ARGS", "UVICORN_VERSION", "UVICORN_HOME"]
    assert misspelt(known | dict.fromkeys(others, "1")) == []


@pytest.mark.parametrize(
    ("variable", "name", "value"),
    [("WEB_CONCURRENCY", "workers", "3"), ("FORWARDED_ALLOW_IPS", "forwarded_allow_ips", "*")],
)
def test_variables_of_old_are_read_unless_our_own_is_set(variable: str, name: str, value: str) -> None:
    assert from_environ({variable: value})[name].place == f"${variable}"
    own = f"UVICORN_{name.upper()}"
    assert from_environ({variable: value, own: "9"})[name].place == f"${own}"
    assert from_environ({variable: value, own: ""})[name].place == f"${variable}"


def test_empty_variable_counts_as_not_set() -> None:
    assert from_environ({"UVICORN_HOST": "", "WEB_CONCURRENCY": ""}) == {}


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["env_file", "log_config", "ssl_certfile", "ssl_ca_certs"])
def test_file_that_a_setting_names_has_to_be_there(tmp_path: Path, name: str) -> None:
    missing = {name: Raw(str(tmp_path / "none"), "f:3")}
    (problem,) = missing_files(merge([missing]))
    assert str(problem) == f"f:3: {name}: Path '{tmp_path}/none' does not exist."
    (tmp_path / "none").touch()
    assert missing_files(merge([missing])) == []


def test_directory_is_no_file(tmp_path: Path) -> None:
    (problem,) = missing_files(merge([{"env_file": Raw(str(tmp_path), "--env-file")}]))
    assert str(problem) == f"--env-file: env_file: Path '{tmp_path}' does not exist."


def test_file_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    path.touch()
    # Asked this way because nothing is unreadable to root.
    monkeypatch.setattr(os, "access", lambda asked, mode: (asked, mode) != (str(path), os.R_OK))
    (problem,) = missing_files(merge([{"ssl_certfile": Raw(str(path), "f:1")}]))
    assert str(problem) == f"f:1: ssl_certfile: Path '{path}' is not readable."


def test_logging_configuration_in_place_names_no_file() -> None:
    assert missing_files(merge([{"log_config": Raw({"version": 1}, "f:1")}])) == []


def test_each_watched_directory_has_to_be_there(tmp_path: Path) -> None:
    dirs = [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "b")]
    found = missing_files(merge([{"reload_dirs": Raw(dirs, "--reload-dir")}]))
    assert [str(problem) for problem in found] == [
        f"--reload-dir: reload_dirs: Path '{path}' does not exist." for path in dirs[1:]
    ]


def test_preload_is_refused_where_nobody_adopts_orphans(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = merge([{"preload": Raw(True, "f:3"), "workers": Raw(2, "f:4")}])
    for has_subreaper, expected in ((True, []), (False, ["f:3: preload: needs Linux"])):
        monkeypatch.setattr("uvicorn.settings.sources.HAS_SUBREAPER", has_subreaper)
        assert [str(problem).partition(": no other")[0] for problem in unsupported(resolved)] == expected


# --- environment files -----------------------------------------------------------------------------------


def test_environment_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"#" * MAX_ENV_FILE_SIZE)
    assert len(env_file_text(path)) == MAX_ENV_FILE_SIZE


def test_environment_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert env_file_text(tmp_path / ".env") == ""


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: Is a directory."),
        (b"A=\xff\n", "is not UTF-8: invalid start byte at byte 2."),
        (b"#" * (MAX_ENV_FILE_SIZE + 1), "is larger than 262144 bytes."),
    ],
)
def test_what_can_be_no_environment_file_is_told_by_name(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / ".env"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        env_file_text(path)
    assert str(caught.value) == f"{path}: {problem}"

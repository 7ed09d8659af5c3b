"""How a logging configuration is put into effect, and log files that are opened again."""

from __future__ import annotations

import copy
import io
import json
import logging
import logging.config
import os
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from uvicorn._logconfig import LOG_LEVELS, LOGGING_CONFIG, configure, give_files, reopen_files
from uvicorn.logging import AccessFormatter, DefaultFormatter

pytestmark = pytest.mark.usefixtures("process_state")

INI = """\
[loggers]
keys=root

[handlers]
keys=h

[formatters]
keys=f

[logger_root]
level=WARNING
handlers=h

[handler_h]
class=StreamHandler
args=(sys.stdout,)
formatter=f

[formatter_f]
format=%(message)s
"""


class FakeConfigurators:
    """Stands for the functions of `logging.config`, looked up there at each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        for name in ("dictConfig", "fileConfig"):
            monkeypatch.setattr(logging.config, name, self._recorder(name))

    def _recorder(self, name: str) -> Any:
        return lambda value, **more: self.calls.append((name, value, more))


@pytest.fixture
def configurators(monkeypatch: pytest.MonkeyPatch) -> FakeConfigurators:
    return FakeConfigurators(monkeypatch)


def apply(
    log_config: Any = None,
    use_colors: Any = None,
    log_level: str | int | None = None,
    access_log: bool = True,
) -> None:
    configure(log_config, use_colors, log_level, access_log)


def test_default_configuration_is_the_documented_one() -> None:
    formatters, handlers, loggers = (LOGGING_CONFIG[each] for each in ("formatters", "handlers", "loggers"))
    assert LOGGING_CONFIG["version"] == 1
    assert LOGGING_CONFIG["disable_existing_loggers"] is False
    assert formatters == {
        "default": {
            "()": "uvicorn.logging.DefaultFormatter",
            "fmt": "%(levelprefix)s %(message)s",
            "use_colors": None,
        },
        "access": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
        },
    }
    stream = {"class": "logging.StreamHandler"}
    assert handlers == {
        "default": {**stream, "formatter": "default", "stream": "ext://sys.stderr"},
        "access": {**stream, "formatter": "access", "stream": "ext://sys.stdout"},
    }
    assert loggers == {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    }


def test_default_configuration_works() -> None:
    apply(LOGGING_CONFIG)
    (handler,) = logging.getLogger("uvicorn").handlers
    (access,) = logging.getLogger("uvicorn.access").handlers
    assert isinstance(handler.formatter, DefaultFormatter)
    assert isinstance(access.formatter, AccessFormatter)


@pytest.mark.parametrize(("use_colors", "written"), [(True, True), (False, False), (None, None), ("x", None)])
def test_colours_are_written_into_the_given_mapping(
    use_colors: Any, written: bool | None, configurators: FakeConfigurators
) -> None:
    apply(LOGGING_CONFIG, use_colors=use_colors)
    assert configurators.calls == [("dictConfig", LOGGING_CONFIG, {})]
    assert configurators.calls[0][1] is LOGGING_CONFIG
    assert LOGGING_CONFIG["formatters"]["default"]["use_colors"] is written
    assert LOGGING_CONFIG["formatters"]["access"].get("use_colors") is written


@pytest.mark.parametrize("mapping", [{"version": 1}, {"version": 1, "formatters": {"mine": {}}}])
def test_mapping_without_our_formatters_gets_no_colours(
    mapping: dict[str, Any], configurators: FakeConfigurators
) -> None:
    before = copy.deepcopy(mapping)
    apply(mapping, use_colors=True)
    assert configurators.calls == [("dictConfig", before, {})]


def test_json_file_is_parsed(tmp_path: Path, configurators: FakeConfigurators) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps(LOGGING_CONFIG))
    for given in (str(path), path):
        configurators.calls.clear()
        apply(given, use_colors=True)
        assert configurators.calls == [("dictConfig", LOGGING_CONFIG, {})]


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ["log.yaml", "log.yml"])
def test_yaml_file_is_parsed(kind: Any, name: str, tmp_path: Path, configurators: FakeConfigurators) -> None:
    path = tmp_path / name
    path.write_text(yaml.safe_dump(LOGGING_CONFIG))
    apply(kind(path))
    assert configurators.calls == [("dictConfig", LOGGING_CONFIG, {})]


@pytest.mark.parametrize("value", ["log.ini", "log_config.json.j2", RawConfigParser(), io.StringIO(INI)])
def test_everything_else_is_for_file_config(value: Any, configurators: FakeConfigurators) -> None:
    apply(value)
    assert configurators.calls == [("fileConfig", value, {"disable_existing_loggers": False})]


@pytest.mark.parametrize("kind", [str, Path])
def test_ini_file_works(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.ini"
    path.write_text(INI)
    other = logging.getLogger("tests.other")
    apply(kind(path))
    assert not other.disabled
    assert logging.getLogger().level == logging.WARNING


def test_no_configuration_leaves_the_handlers(configurators: FakeConfigurators) -> None:
    handlers = [logging.NullHandler()]
    logging.getLogger("uvicorn").handlers = list(handlers)
    apply(None, log_level="debug")
    assert configurators.calls == []
    assert logging.getLogger("uvicorn").handlers == handlers
    assert logging.getLogger("uvicorn.error").level == logging.DEBUG


@pytest.mark.parametrize(("log_level", "level"), [*LOG_LEVELS.items(), (7, 7), (0, 0)])
def test_level_goes_to_our_three_loggers(log_level: str | int, level: int) -> None:
    apply(LOGGING_CONFIG, log_level=log_level)
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        assert logging.getLogger(name).level == level
    assert logging.getLogger("uvicorn").level == logging.INFO


def test_no_level_leaves_those_of_the_configuration() -> None:
    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["uvicorn.error"]["level"] = "ERROR"
    apply(config)
    assert logging.getLogger("uvicorn.error").level == logging.ERROR
    assert logging.getLogger("uvicorn.access").level == logging.INFO


@pytest.mark.parametrize(("access_log", "count"), [(True, 1), (False, 0)])
def test_access_log_has_its_handler_or_none(access_log: bool, count: int) -> None:
    apply(LOGGING_CONFIG, access_log=access_log)
    logger = logging.getLogger("uvicorn.access")
    assert len(logger.handlers) == count
    assert logger.propagate is False


def test_access_log_that_is_off_does_not_propagate() -> None:
    logging.getLogger("uvicorn.access").propagate = True
    apply(None, access_log=False)
    assert logging.getLogger("uvicorn.access").propagate is False


def test_levels_have_their_numbers() -> None:
    assert LOG_LEVELS == {"critical": 50, "error": 40, "warning": 30, "info": 20, "debug": 10, "trace": 5}


# --- reopening -------------------------------------------------------------------------------------


@pytest.fixture
def no_other_files(process_state: None) -> None:
    """The test runner keeps a file of its own on the root logger."""
    logging.getLogger().handlers[:] = []


@pytest.fixture
def log_file(tmp_path: Path, no_other_files: None) -> Iterator[logging.FileHandler]:
    """A handler that writes to log.txt, on two loggers of ours."""
    handler = logging.FileHandler(tmp_path / "log.txt")
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addHandler(handler)
    yield handler
    handler.close()


def test_files_are_opened_again_after_they_were_renamed(
    log_file: logging.FileHandler, tmp_path: Path
) -> None:
    logger = logging.getLogger("uvicorn.error")
    logger.warning("before")
    (tmp_path / "log.txt").rename(tmp_path / "old.txt")
    previous = log_file.stream
    assert reopen_files() == 1
    logger.warning("after")
    assert previous.closed
    assert (tmp_path / "old.txt").read_text() == "before\n"
    assert (tmp_path / "log.txt").read_text() == "after\n"


@pytest.mark.usefixtures("no_other_files")
def test_file_that_was_never_opened_is_opened(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "late.txt", delay=True)
    logging.getLogger("uvicorn.error").addHandler(handler)
    try:
        assert reopen_files() == 1
        assert not handler.stream.closed
    finally:
        handler.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_given_files_are_their_owners_from_the_first_moment(
    log_file: logging.FileHandler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_files(65534)
    assert (tmp_path / "log.txt").stat().st_uid == 65534
    (tmp_path / "log.txt").rename(tmp_path / "old.txt")
    owners = []

    def opened(handler: logging.FileHandler) -> Any:
        owners.append(os.stat(handler.baseFilename).st_uid)
        return open(handler.baseFilename, handler.mode)

    monkeypatch.setattr(logging.FileHandler, "_open", opened)
    reopen_files()
    assert owners == [65534]


def test_file_that_cannot_be_opened_goes_on_as_the_old_one(
    log_file: logging.FileHandler, tmp_path: Path
) -> None:
    (tmp_path / "log.txt").rename(tmp_path / "old.txt")
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        reopen_files()
    logging.getLogger("uvicorn.error").warning("still here")
    assert (tmp_path / "old.txt").read_text() == "still here\n"


def test_file_that_cannot_be_opened_does_not_keep_others_from_it(
    log_file: logging.FileHandler, tmp_path: Path
) -> None:
    other = logging.FileHandler(tmp_path / "other.txt")
    logging.getLogger("uvicorn.error").addHandler(other)
    before = {log_file: log_file.stream, other: other.stream}
    try:
        for bad in (log_file, other):  # whichever comes first
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(bad, "baseFilename", str(tmp_path / "gone" / "log.txt"))
                with pytest.raises(FileNotFoundError):
                    reopen_files()
        assert all(handler.stream is not stream for handler, stream in before.items())
    finally:
        other.close()


@pytest.mark.usefixtures("no_other_files")
def test_other_handlers_are_left_alone() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("uvicorn.error").addHandler(handler)
    assert reopen_files() == 0
    assert handler.stream is stream


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "{"), ("a.yaml", "a: ["), ("a.yml", ""), ("a.ini", "x"), ("a.json", '{"version": 2}')],
)
def test_failure_says_which_configuration_it_is(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the reader raises
        configure(str(path), None, None, True)
    assert caught.value.__notes__ == [f"in the logging configuration {str(path)!r}"]


def test_failure_of_a_mapping_says_what_it_is() -> None:
    with pytest.raises(ValueError, match="version") as caught:
        configure({"version": 2}, None, None, True)
    assert caught.value.__notes__ == ["in the logging configuration"]


def test_what_is_wrong_with_a_handler_is_noted_beside_its_name() -> None:
    wrong = {"version": 1, "handlers": {"file": {"class": "logging.FileHandlr"}}}
    with pytest.raises(ValueError, match="Unable to configure handler 'file'") as caught:
        apply(wrong)
    (note,) = caught.value.__notes__
    assert note.startswith("in the logging configuration: Cannot resolve 'logging.FileHandlr'")

"""One table, two signatures: `run()` and `Config()` hold what the table says, and every option arrives in `run()`."""

from __future__ import annotations

import enum
import importlib
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import uvicorn
from uvicorn.config import LOGGING_CONFIG, Config
from uvicorn.settings.kinds import Boolean, Choice, Integer, ListOf, PathText, WorkerCount
from uvicorn.settings.table import APP, BY_NAME, OPTIONS, Option

pytestmark = pytest.mark.usefixtures("process_state")

# Every exception there is.
ONLY_IN_RUN = {"app_dir"}
ONLY_IN_CONFIG = {"timeout_notify", "callback_notify"}
# The table says "none was given" with None where the signatures have the default itself.
DEFAULT_OF_THE_SIGNATURES = {"log_config": LOGGING_CONFIG}
# What the command passes on where nobody has said anything, because `run()` gets every option from it.
DEFAULT_OF_THE_COMMAND = {"log_config": LOGGING_CONFIG, "headers": [], "app_dir": ""}

RUN = inspect.signature(uvicorn.run).parameters
CONFIG = {
    name: each for name, each in inspect.signature(Config.__init__).parameters.items() if name != "self"
}
RUN_OPTIONS = [option for option in OPTIONS if option.taker in ("both", "run")]

# The documented signature of `Config`, in its order; those of `run()` are the same less the exceptions.
DOCUMENTED = """\
app: 'ASGIApplication | Callable[..., Any] | str'
host: 'str' = '127.0.0.1'
port: 'int' = 8000
uds: 'str | None' = None
fd: 'int | None' = None
loop: 'LoopFactoryType | str | Callable[[], asyncio.AbstractEventLoop]' = 'auto'
http: 'type[asyncio.Protocol] | HTTPProtocolType | str' = 'auto'
ws: 'type[asyncio.Protocol] | WSProtocolType | str' = 'auto'
ws_max_size: 'int' = 16777216
ws_max_queue: 'int' = 32
ws_ping_interval: 'float | None' = 20.0
ws_ping_timeout: 'float | None' = 20.0
ws_per_message_deflate: 'bool' = True
lifespan: 'LifespanType' = 'auto'
env_file: 'str | os.PathLike[str] | None' = None
log_config: 'dict[str, Any] | str | os.PathLike[str] | RawConfigParser | IO[Any] | None' = LOGGING_CONFIG
log_level: 'str | int | None' = None
access_log: 'bool' = True
use_colors: 'bool | None' = None
interface: 'InterfaceType' = 'auto'
reload: 'bool' = False
reload_dirs: 'list[str] | str | None' = None
reload_delay: 'float' = 0.25
reload_includes: 'list[str] | str | None' = None
reload_excludes: 'list[str] | str | None' = None
workers: 'int | None' = None
proxy_headers: 'bool' = True
server_header: 'bool' = True
date_header: 'bool' = True
forwarded_allow_ips: 'list[str] | str | None' = None
root_path: 'str' = ''
limit_concurrency: 'int | None' = None
limit_max_requests: 'int | None' = None
backlog: 'int' = 2048
timeout_keep_alive: 'int' = 5
timeout_notify: 'int' = 30
timeout_graceful_shutdown: 'int | None' = None
timeout_worker_healthcheck: 'int' = 5
callback_notify: 'Callable[..., Awaitable[None]] | None' = None
ssl_keyfile: 'str | os.PathLike[str] | None' = None
ssl_certfile: 'str | os.PathLike[str] | None' = None
ssl_keyfile_password: 'str | None' = None
ssl_version: 'int' = 17
ssl_cert_reqs: 'int' = 0
ssl_ca_certs: 'str | os.PathLike[str] | None' = None
ssl_ciphers: 'str | None' = 'TLSv1'
headers: 'list[tuple[str, str]] | None' = None
factory: 'bool' = False
h11_max_incomplete_event_size: 'int | None' = None
""".splitlines()


def shown(parameter: inspect.Parameter) -> str:
    if parameter.default is LOGGING_CONFIG:
        return f"{parameter.name}: {parameter.annotation!r} = LOGGING_CONFIG"
    if isinstance(parameter.default, enum.IntEnum):
        parameter = parameter.replace(default=int(parameter.default))
    return str(parameter)


# --- signatures ------------------------------------------------------------------------------------


def test_config_takes_the_documented_parameters_in_their_order() -> None:
    assert list(map(shown, CONFIG.values()))[: len(DOCUMENTED)] == DOCUMENTED


def test_config_takes_everything_new_by_keyword_only() -> None:
    new = list(CONFIG.values())[len(DOCUMENTED) :]
    assert {each.kind for each in new} == {inspect.Parameter.KEYWORD_ONLY}
    assert {each.name for each in new} == {option.name for option in OPTIONS if option.since != "0.37.0"} - {
        "config"
    }


def test_run_takes_the_app_and_then_keywords_only() -> None:
    app, *others = RUN.values()
    assert (app.name, app.kind) == ("app", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert {each.kind for each in others} == {inspect.Parameter.KEYWORD_ONLY}


def test_run_and_config_take_the_same_parameters() -> None:
    assert {name: repr(each) for name, each in RUN.items() if name not in ONLY_IN_RUN} == {
        name: repr(each) for name, each in CONFIG.items() if name not in ONLY_IN_CONFIG
    }


def test_app_dir_is_a_parameter_of_run() -> None:
    assert shown(RUN["app_dir"]) == "app_dir: 'str | None' = None"


def test_run_takes_the_options_of_the_table() -> None:
    assert set(RUN) - {APP.name} == {option.name for option in RUN_OPTIONS}
    assert {option.name for option in OPTIONS if option.taker == "run"} == ONLY_IN_RUN


def test_config_takes_the_options_of_the_table() -> None:
    names = {option.name for option in OPTIONS if option.taker in ("both", "config")}
    assert set(CONFIG) - ONLY_IN_CONFIG - {APP.name} == names


@pytest.mark.parametrize("option", RUN_OPTIONS, ids=lambda option: option.name)
def test_default_is_that_of_the_table(option: Option) -> None:
    expected = DEFAULT_OF_THE_SIGNATURES.get(option.name, option.default)
    for parameters in (RUN, CONFIG):
        if option.name in parameters:
            assert parameters[option.name].default == expected


@pytest.mark.parametrize("option", RUN_OPTIONS, ids=lambda option: option.name)
def test_annotation_admits_null_where_the_table_does(option: Option) -> None:
    admits = "None" in RUN[option.name].annotation
    assert admits == (option.default is None or option.nullable)


@pytest.mark.parametrize("name", sorted(set(CONFIG) - {"log_level"}))
def test_config_keeps_every_parameter_as_an_attribute(name: str) -> None:
    config = Config("a:b")
    default = CONFIG[name].default
    made_of_none = {
        "workers": 1,
        "forwarded_allow_ips": "127.0.0.1",
        "headers": [],
        "bind": [],
        "reload_dirs": [],
        "reload_includes": [],
        "reload_excludes": [],
        "app": "a:b",
    }
    assert getattr(config, name) == made_of_none.get(name, default)


# --- every option, by every way --------------------------------------------------------------------

# Kinds of which no value fits all options.
SAMPLES: dict[str, str] = {
    "admin": "[::1]:9000",
    "bind": "[::1]:8443",
    "forwarded_allow_ips": "10.0.0.0/8",
    "headers": "X-Sample:yes",
    "interface": "asgi3",
    "limit_worker_memory": "512M",
    "log_level": "debug",
    "ssl_cert_reqs": "2",
    "ssl_context_factory": "a.b:c",
    "group": str(os.getegid()) if hasattr(os, "getegid") else "0",
    "umask": "027",
    "user": str(os.geteuid()) if hasattr(os, "geteuid") else "0",
    "workers": "3",
}
EXPECTED: dict[str, Any] = {
    "bind": ["[::1]:8443"],
    "headers": [["X-Sample", "yes"]],
    "limit_worker_memory": 512 * 1024**2,
}
# What has to come with an option, so that the two make sense.
COMPANIONS: dict[str, dict[str, str]] = {
    "limit_max_requests_jitter": {"limit_max_requests": "5"},
    "limit_worker_lifetime_jitter": {"limit_worker_lifetime": "5"},
    "limit_worker_memory_jitter": {"limit_worker_memory": "512M"},
    "ssl_keyfile": {"ssl_certfile": "FILE"},
    "preload": {"workers": "2"},
}


def sample(option: Option) -> str:
    """A text that means something else than the default; FILE and DIRECTORY stand for ones that exist."""
    if option.name in SAMPLES:
        return SAMPLES[option.name]
    kind = option.kind
    if isinstance(kind, Boolean):
        return "false" if option.default else "true"
    if isinstance(kind, Choice):
        return next(name for name in kind.names if name != option.default)
    if isinstance(kind, PathText):
        return "FILE"
    if isinstance(kind, ListOf) and isinstance(kind.item, PathText):
        return "DIRECTORY"
    if isinstance(kind, (Integer, WorkerCount)):
        return "18"
    return "71680" if kind.metavar() in ("BYTES", "SECONDS") else "sample"


def expected(option: Option, text: str) -> Any:
    """What `run()` is to get for it."""
    value = option.kind.parse(text)
    return EXPECTED.get(option.name, value)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The calls of `uvicorn.main.run`, which does nothing."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    module = importlib.import_module("uvicorn.main")
    monkeypatch.setattr(module, "run", lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


def by_command_line(option: Option, text: str) -> list[str]:
    if not option.is_switch:
        return [option.flag, text]
    return [option.flag if text == "true" else f"--no-{option.flag.removeprefix('--')}"]


@pytest.mark.parametrize("way", ["command line", "environment", "yaml", "yaml as text"])
@pytest.mark.parametrize("option", RUN_OPTIONS, ids=lambda option: option.name)
def test_option_arrives_in_run(
    option: Option,
    way: str,
    called: list[tuple[tuple[Any, ...], dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # That root has to be named is another matter: tests/test_compose.py.
    monkeypatch.setattr("uvicorn.compose.is_root", lambda: False)
    file = tmp_path / "file"
    file.touch()

    def real(text: str) -> str:
        return text.replace("FILE", str(file)).replace("DIRECTORY", str(tmp_path))

    given = {option.name: sample(option), **COMPANIONS.get(option.name, {})}
    given = {name: real(text) for name, text in given.items()}
    arguments: list[str] = ["a:b"]
    environ: dict[str, str] = {}
    if way == "command line":
        for name, text in given.items():
            arguments += by_command_line(BY_NAME[name], text)
    elif way == "environment":
        environ = {BY_NAME[name].env_name: text for name, text in given.items()}
    else:
        values: dict[str, Any] = dict(given)
        if way == "yaml":
            values = {name: BY_NAME[name].kind.parse(text) for name, text in given.items()}
        config = tmp_path / "uvicorn.yaml"
        config.write_text(yaml.safe_dump(values))
        arguments += ["--config", str(config)]
    if option.name in ("reload_dirs", "reload_includes", "reload_excludes"):
        arguments.append("--reload")

    result = CliRunner().invoke(uvicorn.main, arguments, env=environ)
    assert (result.exit_code, result.output) == (0, "")
    ((args, keywords),) = called
    assert args == ("a:b",)
    assert set(keywords) == set(RUN) - {APP.name}
    assert keywords[option.name] == expected(option, given[option.name])
    assert keywords[option.name] != option.default
    untouched = set(keywords) - set(given) - {"reload"}
    assert {name: keywords[name] for name in untouched} == {
        name: DEFAULT_OF_THE_COMMAND.get(name, BY_NAME[name].default) for name in untouched
    }


@pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"])
def test_variable_of_old_arrives_in_run(
    variable: str, called: list[tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    option = next(option for option in OPTIONS if variable in option.env)
    CliRunner().invoke(uvicorn.main, ["a:b"], env={variable: "7"}, catch_exceptions=False)
    assert called[0][1][option.name] == option.kind.parse("7")


@pytest.mark.parametrize(
    ("arguments", "environ", "text", "port"),
    [
        (["--port", "1"], {"UVICORN_PORT": "2"}, "port: 3", 1),
        ([], {"UVICORN_PORT": "2"}, "port: 3", 2),
        ([], {}, "port: 3", 3),
        ([], {}, "", 8000),
    ],
)
def test_command_line_goes_before_environment_before_file_before_default(
    arguments: list[str],
    environ: dict[str, str],
    text: str,
    port: int,
    called: list[tuple[tuple[Any, ...], dict[str, Any]]],
    tmp_path: Path,
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    environ = {**environ, "UVICORN_CONFIG": str(tmp_path / "c.yaml")}
    CliRunner().invoke(uvicorn.main, ["a:b", *arguments], env=environ, catch_exceptions=False)
    assert called[0][1]["port"] == port

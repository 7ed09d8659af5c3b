"""`Config`: what follows from its parameters, what it loads, and where it binds."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from uvicorn import config as config_module
from uvicorn._addresses import Address
from uvicorn._compat import usable_cpus
from uvicorn.config import HTTP_PROTOCOLS, LIFESPAN, LOOP_FACTORIES, WS_PROTOCOLS, Config
from uvicorn.importer import import_from_string
from uvicorn.middleware.asgi2 import ASGI2Middleware
from uvicorn.middleware.message_logger import MessageLoggerMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.middleware.wsgi import WSGIMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

Records = list[logging.LogRecord]

pytestmark = pytest.mark.usefixtures("process_state")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI 3 application."""


class Asgi2App:
    def __init__(self, scope: Any) -> None:
        pass

    async def __call__(self, receive: Any, send: Any) -> None:
        pass


class CallableApp:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        pass


class AwaitableApp:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        pass

    def __await__(self) -> Iterator[None]:
        yield


class OldCallableApp:
    def __call__(self, scope: Any) -> Any:
        pass


def old_function_app(scope: Any) -> Any:
    """An ASGI 2 application as a function."""


def make_app() -> Any:
    return app


def wsgi_app(environ: Any, start_response: Any) -> Any:
    return []


def quiet(asgi: Any = app, **more: Any) -> Config:
    """A configuration that leaves the handlers alone."""
    return Config(asgi, log_config=None, **more)


def loaded(asgi: Any = app, **more: Any) -> Config:
    config = quiet(asgi, **more)
    config.load()
    return config


def lines(records: Records) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in records]


# --- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("timeout_keep_alive", "2m", 120),
        ("timeout_graceful_shutdown", "30s", 30),
        ("reload_delay", "250ms", 0.25),
        ("ws_max_size", "1M", 1048576),
        ("limit_worker_memory", "512M", 536870912),
    ],
)
def test_text_with_a_unit_is_understood(name: str, text: str, value: float) -> None:
    assert getattr(quiet(**{name: text}), name) == value


def test_text_that_is_no_duration_is_an_error() -> None:
    with pytest.raises(ValueError, match="'soon' is not a valid duration"):
        quiet(timeout_keep_alive="soon")


def test_values_that_are_no_text_stay_as_they_are() -> None:
    config = quiet(timeout_keep_alive=0, limit_max_requests=0, headers=[("a", "b")], log_level=0)
    assert (config.timeout_keep_alive, config.limit_max_requests) == (0, 0)
    assert config.headers == [("a", "b")]
    assert config.log_level == 0


def test_notify_parameters_are_kept() -> None:
    async def notify() -> None:
        pass

    config = quiet(timeout_notify=3, callback_notify=notify)
    assert (config.timeout_notify, config.callback_notify) == (3, notify)


def test_config_of_no_app_is_for_those_who_assign_it_later() -> None:
    config = quiet(None)
    config.app = app
    config.load()
    assert config.loaded


@pytest.mark.parametrize(("bind", "kept"), [(":1", [":1"]), ([":1", "fd://3"], [":1", "fd://3"]), (None, [])])
def test_bind_is_one_text_or_several(bind: Any, kept: list[str]) -> None:
    config = quiet(bind=bind)
    assert config.bind == kept
    assert list(map(str, config.addresses)) == kept


def test_bind_that_means_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="'nowhere' is not HOST:PORT"):
        quiet(bind="nowhere")


@pytest.mark.parametrize(
    ("arguments", "addresses"),
    [
        ({}, [Address("tcp", host="127.0.0.1", port=8000)]),
        ({"host": "::1", "port": 1}, [Address("tcp", host="::1", port=1)]),
        ({"host": None}, [Address("tcp", host="", port=8000)]),
        ({"uds": "/a", "host": "x"}, [Address("unix", name="/a")]),
        ({"uds": Path("/a")}, [Address("unix", name="/a")]),
        ({"fd": 0}, [Address("fd", fd=0)]),
        ({"uds": "/a", "fd": 3}, [Address("unix", name="/a")]),
        ({"bind": [":1", "unix:/b"], "uds": "/a"}, [Address("tcp", port=1), Address("unix", name="/b")]),
    ],
)
def test_bind_addresses_are_one_thing_however_they_are_given(
    arguments: dict[str, Any], addresses: list[Address]
) -> None:
    assert quiet(**arguments).bind_addresses == addresses


@pytest.mark.parametrize(
    ("arguments", "is_ssl"),
    [
        ({}, False),
        ({"ssl_certfile": "c"}, True),
        ({"ssl_keyfile": "k"}, True),
        ({"ssl_ca_certs": "a"}, False),
    ],
)
def test_tls_is_on_with_a_certificate_or_a_key(arguments: dict[str, Any], is_ssl: bool) -> None:
    assert quiet(**arguments).is_ssl is is_ssl


@pytest.mark.parametrize(
    ("reload", "workers", "use_subprocess"),
    [(False, 1, False), (False, None, False), (True, 1, True), (False, 2, True), (True, 2, True)],
)
def test_subprocesses_are_used_for_reload_and_for_workers(
    reload: bool, workers: int | None, use_subprocess: bool
) -> None:
    assert quiet(reload=reload, workers=workers).use_subprocess is use_subprocess


@pytest.mark.parametrize(
    ("asgi", "reload", "should_reload"),
    [("a:b", True, True), ("a:b", False, False), (app, True, False), (app, False, False)],
)
def test_files_are_watched_where_the_app_can_be_imported_again(
    asgi: Any, reload: bool, should_reload: bool
) -> None:
    assert quiet(asgi, reload=reload).should_reload is should_reload


# --- environment -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "variable", "count", "given"),
    [
        (None, None, 1, False),
        (None, "", 1, False),
        (None, "2", 2, True),
        (None, "1", 1, True),
        (None, "0", 0, False),
        (None, "auto", usable_cpus(), True),
        (1, None, 1, True),
        (3, "2", 3, True),
        (0, "2", 0, False),
        ("4", None, 4, True),
        ("auto", "2", usable_cpus(), True),
    ],
)
def test_workers_are_the_argument_else_the_variable_else_one(
    workers: Any, variable: str | None, count: int, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("WEB_CONCURRENCY", variable)
    config = quiet(workers=workers)
    assert (config.workers, config.workers_given) == (count, given)


@pytest.mark.parametrize(
    ("argument", "variable", "trusted"),
    [
        (None, None, "127.0.0.1"),
        (None, "10.0.0.1", "10.0.0.1"),
        (None, "", ""),
        ("*", "10.0.0.1", "*"),
        (["a", "b"], "10.0.0.1", ["a", "b"]),
        ("", "10.0.0.1", ""),
    ],
)
def test_trusted_proxies_are_the_argument_else_the_variable(
    argument: Any, variable: str | None, trusted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", variable)
    assert quiet(forwarded_allow_ips=argument).forwarded_allow_ips == trusted


def test_no_other_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVICORN_PORT", "1")
    monkeypatch.setenv("UVICORN_WORKERS", "3")
    config = quiet()
    assert (config.port, config.workers) == (8000, 1)


@pytest.mark.parametrize("concurrency", ["0", "1", "2"])
def test_environment_file_is_loaded_before_variables_are_read(
    concurrency: str, tmp_path: Path, error_log: Records
) -> None:
    path = tmp_path / ".env"
    path.write_text(f"WEB_CONCURRENCY={concurrency}\nFORWARDED_ALLOW_IPS=10.9.9.9\nSAMPLE=x\n")
    config = quiet(env_file=path)
    assert config.workers == int(concurrency)
    assert config.forwarded_allow_ips == "10.9.9.9"
    assert os.environ["SAMPLE"] == "x"
    assert config.env_file == path
    assert lines(error_log) == [f"INFO Loading environment from '{path}'"]


def test_reload_with_workers_is_warned_of(error_log: Records, tmp_path: Path) -> None:
    config = quiet(reload=True, workers=2)
    assert config.use_subprocess
    assert lines(error_log) == ['WARNING "workers" flag is ignored when reloading is enabled.']


# --- reload paths ----------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with app/, app/sub/, app_extra/ and ext/ in it."""
    for name in ("app/sub", "app_extra", "ext"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reloading(**more: Any) -> Config:
    return quiet("a:b", reload=True, **more)


def names(paths: list[Path], tree: Path) -> list[str]:
    return sorted(str(path.relative_to(tree)) for path in paths)


@pytest.mark.parametrize(
    ("arguments", "watched"),
    [
        ({}, ["."]),
        ({"reload_dirs": "app"}, ["app"]),
        ({"reload_dirs": ["app", "app/sub", "app"]}, ["app"]),
        ({"reload_dirs": ["app/sub", "app"]}, ["app"]),
        ({"reload_dirs": ["app", "app_extra"]}, ["app", "app_extra"]),
        ({"reload_dirs": ["none", "ext"]}, ["ext"]),
        ({"reload_includes": ["*.html"]}, ["."]),
        ({"reload_includes": ["ext"]}, ["ext"]),
        ({"reload_dirs": ["app"], "reload_includes": ["ext"]}, ["app", "ext"]),
        ({"reload_dirs": ["app", "ext"], "reload_excludes": ["ext"]}, ["app"]),
        ({"reload_dirs": ["app/sub", "ext"], "reload_excludes": ["app"]}, ["ext"]),
        ({"reload_includes": ["ext"], "reload_excludes": ["ext"]}, ["."]),
    ],
)
def test_watched_directories_are_named_included_and_not_excluded(
    arguments: dict[str, Any], watched: list[str], tree: Path, error_log: Records
) -> None:
    config = reloading(**arguments)
    assert names(config.reload_dirs, tree) == watched
    shown = sorted(str(path) for path in config.reload_dirs)
    assert lines(error_log) == [f"INFO Will watch for changes in these directories: {shown}"]


@pytest.mark.parametrize("arguments", [{"reload_dirs": "reload"}, {"reload_dirs": ["reload"]}])
def test_no_valid_directory_means_the_current_one_and_a_warning(
    arguments: dict[str, Any], tree: Path, error_log: Records
) -> None:
    assert reloading(**arguments).reload_dirs == [tree]
    assert lines(error_log) == [
        (
            "WARNING Provided reload directories ['reload'] did not contain valid directories, "
            "watching current working directory."
        ),
        f"INFO Will watch for changes in these directories: ['{tree}']",
    ]


def test_excluded_directories_are_kept_folded(tree: Path) -> None:
    config = reloading(reload_excludes=["app/sub", "app", "*.txt"])
    assert names(config.reload_dirs_excludes, tree) == ["app"]


@pytest.mark.parametrize(
    ("given", "kept"), [("*.a", ["*.a"]), (["*.a", "*.b", "*.a"], ["*.a", "*.b"]), (None, [])]
)
def test_patterns_are_kept_as_they_are_given(given: Any, kept: list[str], tree: Path) -> None:
    config = reloading(reload_includes=given)
    assert config.reload_includes == kept
    assert reloading(reload_excludes=given).reload_excludes == kept


def test_pattern_that_is_excluded_as_well_is_not_included(tree: Path) -> None:
    config = reloading(reload_includes=["*.a", "*.b"], reload_excludes=["*.a"])
    assert (config.reload_includes, config.reload_excludes) == (["*.b"], ["*.a"])


@pytest.mark.parametrize("name", ["reload_dirs", "reload_includes", "reload_excludes"])
@pytest.mark.parametrize("asgi", ["a:b", app])
def test_reload_paths_without_reload_are_warned_of(asgi: Any, name: str, error_log: Records) -> None:
    config = quiet(asgi, reload=not isinstance(asgi, str), **{name: ["x"]})
    assert (config.reload_dirs, config.reload_includes, config.reload_excludes) == ([], [], [])
    assert lines(error_log) == [
        (
            "WARNING Current configuration will not reload as not all conditions are met, "
            "please refer to documentation."
        )
    ]


# --- logging ---------------------------------------------------------------------------------------


def test_constructor_configures_logging_and_load_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(logging.config, "dictConfig", calls.append)
    config = Config(app)
    config.load()
    assert calls == [config_module.LOGGING_CONFIG]


def test_trace_is_the_name_of_level_5() -> None:
    logging.addLevelName(5, "Level 5")
    quiet()
    assert logging.getLevelName(5) == "TRACE"


# --- loading the app -------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that can be imported, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "written_app.py").write_text(text)
        return "written_app"

    return write


def test_load_sets_what_the_server_needs() -> None:
    config = quiet(http="h11", ws="none", lifespan="off", proxy_headers=False)
    assert config.loaded is False
    config.load()
    assert config.loaded is True
    assert config.loaded_app is app
    assert config.http_protocol_class is H11Protocol
    assert config.ws_protocol_class is None
    assert config.lifespan_class is import_from_string(LIFESPAN["off"])
    assert config.encoded_headers == [(b"server", b"uvicorn")]
    assert config.ssl is None


def test_load_is_done_once() -> None:
    with pytest.raises(AssertionError):
        loaded().load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("app", 'Import string "app" must be in format "<module>:<attribute>".'),
        ("no_such_module:app", 'Could not import module "no_such_module".'),
        ("tests.test_config:nothing", 'Attribute "nothing" not found in module "tests.test_config".'),
    ],
)
def test_app_that_is_not_there_is_a_log_line_and_exit_3(text: str, message: str, error_log: Records) -> None:
    with pytest.raises(SystemExit) as caught:
        loaded(text)
    assert caught.value.code == 3
    assert lines(error_log) == [f"ERROR Error loading ASGI app. {message}"]


@pytest.mark.parametrize(
    ("text", "error"),
    [("import no_such_dependency", ModuleNotFoundError), ("1 / 0", ZeroDivisionError), ("def", SyntaxError)],
)
def test_failure_of_the_apps_own_import_passes_through(
    text: str, error: type[Exception], module: Callable[[str], str]
) -> None:
    with pytest.raises(error):
        loaded(f"{module(text)}:app")


def test_missing_parent_package_passes_through() -> None:
    with pytest.raises(ModuleNotFoundError, match="'no'"):
        loaded("no.such:app")


def test_app_is_imported_by_its_name(module: Callable[[str], str]) -> None:
    name = module("class holder:\n    async def app(scope, receive, send): pass\n")
    assert loaded(f"{name}:holder.app", proxy_headers=False).loaded_app.__name__ == "app"


def test_factory_makes_the_app(error_log: Records) -> None:
    assert loaded(make_app, factory=True, proxy_headers=False).loaded_app is app
    assert error_log == []


def test_factory_without_the_flag_is_used_with_a_warning(error_log: Records) -> None:
    assert loaded(make_app, proxy_headers=False).loaded_app is app
    assert lines(error_log) == [
        "WARNING ASGI app factory detected. Using it, but please consider setting the --factory flag explicitly."
    ]


def test_factory_that_takes_arguments_is_a_log_line_and_exit_3(error_log: Records) -> None:
    with pytest.raises(SystemExit) as caught:
        loaded(old_function_app, factory=True)
    assert caught.value.code == 3
    (line,) = lines(error_log)
    assert line.startswith("ERROR Error loading ASGI app factory: old_function_app() missing 1 required")


@pytest.mark.parametrize(
    ("asgi", "interface", "version"),
    [
        (app, "asgi3", "3.0"),
        (CallableApp(), "asgi3", "3.0"),
        (AwaitableApp, "asgi3", "3.0"),
        (Asgi2App, "asgi2", "2.0"),
        (old_function_app, "asgi2", "2.0"),
        (OldCallableApp(), "asgi2", "2.0"),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__) if not isinstance(each, str) else each,
)
def test_interface_is_told_by_how_the_app_can_be_called(asgi: Any, interface: str, version: str) -> None:
    config = loaded(asgi)
    assert (config.interface, config.asgi_version) == (interface, version)


@pytest.mark.parametrize(("interface", "version"), [("asgi2", "2.0"), ("asgi3", "3.0"), ("wsgi", "3.0")])
def test_interface_that_is_given_decides(interface: Any, version: str) -> None:
    config = loaded(old_function_app, interface=interface)
    assert (config.interface, config.asgi_version) == (interface, version)


def test_asgi2_app_is_adapted() -> None:
    adapted = loaded(Asgi2App, proxy_headers=False).loaded_app
    assert isinstance(adapted, ASGI2Middleware)
    assert adapted.app is Asgi2App


def test_wsgi_app_is_adapted_and_has_no_websockets() -> None:
    config = loaded(wsgi_app, interface="wsgi", proxy_headers=False, ws="wsproto")
    assert isinstance(config.loaded_app, WSGIMiddleware)
    assert config.ws_protocol_class is None


def test_wrappers_lie_around_the_app_in_their_order() -> None:
    outer = loaded(Asgi2App, log_level="trace").loaded_app
    assert isinstance(outer, ProxyHeadersMiddleware)
    assert isinstance(outer.app, MessageLoggerMiddleware)
    assert isinstance(outer.app.app, ASGI2Middleware)


def test_message_logger_is_there_at_trace_only() -> None:
    assert loaded(proxy_headers=False, log_level="debug").loaded_app is app
    assert isinstance(loaded(proxy_headers=False, log_level=5).loaded_app, MessageLoggerMiddleware)


def test_proxies_are_trusted_as_configured() -> None:
    wrapped = loaded(forwarded_allow_ips="10.0.0.1").loaded_app
    assert "10.0.0.1" in wrapped.trusted_hosts
    assert "10.0.0.2" not in wrapped.trusted_hosts


# --- implementations -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HTTP_PROTOCOLS)
def test_http_implementation_is_found_by_its_name(name: str) -> None:
    assert loaded(http=name).http_protocol_class is import_from_string(HTTP_PROTOCOLS[name])


@pytest.mark.parametrize("name", WS_PROTOCOLS)
def test_websocket_implementation_is_found_by_its_name(name: str) -> None:
    assert loaded(ws=name).ws_protocol_class is import_from_string(WS_PROTOCOLS[name])


@pytest.mark.parametrize("name", LIFESPAN)
def test_lifespan_is_found_by_its_name(name: Any) -> None:
    assert loaded(lifespan=name).lifespan_class is import_from_string(LIFESPAN[name])


def test_implementation_may_be_a_class_or_an_import_string() -> None:
    class Own(asyncio.Protocol):
        pass

    config = loaded(http=Own, ws=Own)
    assert (config.http_protocol_class, config.ws_protocol_class) == (Own, Own)
    path = "uvicorn.protocols.http.h11_impl:H11Protocol"
    assert loaded(http=path).http_protocol_class is H11Protocol


@pytest.mark.parametrize(
    ("arguments", "encoded"),
    [
        ({}, [(b"server", b"uvicorn")]),
        ({"server_header": False}, []),
        (
            {"headers": [("X-A", "b"), ("x-a", "c")]},
            [(b"server", b"uvicorn"), (b"x-a", b"b"), (b"x-a", b"c")],
        ),
        ({"headers": [("SERVER", "mine")]}, [(b"server", b"mine")]),
        ({"headers": [["Server", "a"], ["server", "b"]]}, [(b"server", b"a"), (b"server", b"b")]),
        ({"headers": [("X", "\xe9")], "server_header": False}, [(b"x", b"\xe9")]),
        ({"headers": [("X", 5)], "server_header": False}, [(b"x", b"5")]),
    ],
)
def test_headers_are_encoded_with_the_servers_own_in_front(
    arguments: dict[str, Any], encoded: list[tuple[bytes, bytes]]
) -> None:
    assert loaded(**arguments).encoded_headers == encoded


def test_certificate_is_read_when_the_configuration_is_loaded(tmp_path: Path) -> None:
    import trustme

    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    config = quiet(ssl_certfile=pem)
    assert config.ssl is None
    config.load()
    assert isinstance(config.ssl, ssl.SSLContext)


def tls_from_a_factory(config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


@pytest.mark.parametrize("factory", [tls_from_a_factory, f"{__name__}:tls_from_a_factory"])
def test_a_factory_may_change_the_context_that_the_settings_describe(factory: Any, tmp_path: Path) -> None:
    import trustme

    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    config = quiet(ssl_certfile=pem, ssl_context_factory=factory)
    assert config.is_ssl
    config.load()
    assert config.ssl is not None
    assert config.ssl.minimum_version is ssl.TLSVersion.TLSv1_3


def test_a_factory_alone_means_tls_and_gets_the_configuration() -> None:
    given: list[Any] = []
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def factory(config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        given.append(config)
        with pytest.raises(ValueError, match="ssl_certfile is not set"):
            default()
        return made

    config = quiet(ssl_context_factory=factory)
    assert config.is_ssl
    config.load()
    assert given == [config]
    assert config.ssl is made


def test_a_factory_that_makes_no_context_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"must return an ssl\.SSLContext, but returned 5"):
        loaded(ssl_context_factory=lambda config, default: 5)


def test_a_factory_that_cannot_be_found_ends_with_3(error_log: Records) -> None:
    with pytest.raises(SystemExit) as caught:
        loaded(ssl_context_factory="tests.test_config:nothing_here")
    assert caught.value.code == 3
    assert lines(error_log) == [
        'ERROR Error loading ssl_context_factory. Attribute "nothing_here" not found in module "tests.test_config".'
    ]


@pytest.mark.parametrize(("given", "level"), [("INFO", 20), ("Debug", 10), ("TRACE", 5)])
def test_log_level_is_taken_in_any_case_and_kept_as_it_was_given(given: str, level: int) -> None:
    assert quiet(log_level=given).log_level == given
    assert logging.getLogger("uvicorn.error").level == level


# --- loops -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in LOOP_FACTORIES if name != "none"])
def test_loop_factory_makes_a_loop(name: str) -> None:
    factory = quiet(loop=name).get_loop_factory()
    assert factory is not None
    loop = factory()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    loop.close()


def test_no_loop_factory_leaves_the_choice_to_the_interpreter() -> None:
    assert quiet(loop="none").get_loop_factory() is None


@pytest.mark.parametrize("loop", ["asyncio:SelectorEventLoop", asyncio.SelectorEventLoop])
def test_loop_may_be_an_import_string_or_a_class(loop: Any) -> None:
    assert quiet(loop=loop).get_loop_factory() is asyncio.SelectorEventLoop


def test_loop_that_is_not_there_is_a_log_line_and_exit_3(error_log: Records) -> None:
    with pytest.raises(SystemExit) as caught:
        quiet(loop="tests.test_config:no_loop").get_loop_factory()
    assert caught.value.code == 3
    assert lines(error_log) == [
        (
            "ERROR Error loading custom loop setup function. "
            'Attribute "no_loop" not found in module "tests.test_config".'
        )
    ]


def test_setup_event_loop_says_what_has_taken_its_place() -> None:
    text = "The `setup_event_loop` method was replaced by `get_loop_factory` in uvicorn 0.36.0."
    with pytest.raises(AttributeError, match=text.replace(".", r"\.")):
        quiet().setup_event_loop()


# --- sockets ---------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_tcp_socket_is_bound_inheritable_and_announced(error_log: Records) -> None:
    config = quiet(port=0)
    with config.bind_socket() as sock:
        host, port = sock.getsockname()
        assert (sock.family, host) == (socket.AF_INET, "127.0.0.1")
        assert port != 0
        assert sock.get_inheritable()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert config.listener is not None
        assert config.listener.sock is sock
    assert lines(error_log) == [f"INFO Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)"]


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
def test_host_with_a_colon_is_bound_as_ipv6(error_log: Records) -> None:
    with quiet(host="::1", port=0, ssl_certfile="c").bind_socket() as sock:
        assert sock.family == socket.AF_INET6
        port = sock.getsockname()[1]
    assert lines(error_log) == [f"INFO Uvicorn running on https://[::1]:{port} (Press CTRL+C to quit)"]


def test_unix_socket_is_open_to_everybody(tmp_path: Path, error_log: Records) -> None:
    path = tmp_path / "s"
    with quiet(uds=str(path)).bind_socket() as sock:
        assert sock.getsockname() == str(path)
        assert path.stat().st_mode & 0o777 == 0o666
    assert lines(error_log) == [f"INFO Uvicorn running on unix socket {path} (Press CTRL+C to quit)"]


def test_descriptor_is_taken_over_with_its_family(error_log: Records) -> None:
    given, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with given, other, quiet(fd=given.fileno()).bind_socket() as sock:
        assert (sock.family, sock.getsockname()) == (socket.AF_UNIX, "")
        assert sock.get_inheritable()
    assert lines(error_log) == ["INFO Uvicorn running on socket '' (Press CTRL+C to quit)"]


def test_descriptor_of_a_tcp_socket_is_announced_with_its_name(error_log: Records) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        name = given.getsockname()
        with quiet(fd=given.fileno()).bind_socket() as sock:
            assert sock.getsockname() == name
    assert lines(error_log) == [f"INFO Uvicorn running on socket {name!r} (Press CTRL+C to quit)"]


def test_first_of_several_addresses_is_bound(tmp_path: Path, error_log: Records) -> None:
    with quiet(bind=["127.0.0.1:0", f"unix:{tmp_path}/s"]).bind_socket() as sock:
        assert sock.family == socket.AF_INET
        port = sock.getsockname()[1]
    assert not (tmp_path / "s").exists()
    assert lines(error_log) == [f"INFO Uvicorn running on http://127.0.0.1:{port} (Press CTRL+C to quit)"]


def test_announcement_is_bold_in_colours(error_log: Records) -> None:
    quiet(port=0).bind_socket().close()
    assert vars(error_log[0])["color_message"] == "Uvicorn running on \x1b[1m%s\x1b[0m (Press CTRL+C to quit)"


def test_taken_port_is_a_log_line_and_exit_3(error_log: Records) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            quiet(port=port).bind_socket()
    assert caught.value.code == 3
    assert lines(error_log) == [
        (
            f"ERROR cannot bind to 127.0.0.1:{port}: address already in use; "
            "stop the server that uses it, or take another one."
        )
    ]

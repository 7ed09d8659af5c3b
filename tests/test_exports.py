"""Every documented import path, name, mapping and constant is there."""

from __future__ import annotations

import importlib
import logging
import re
import runpy
import ssl
import subprocess
import sys
import types
import typing
from pathlib import Path

import click
import pytest

import uvicorn
from uvicorn import config

NAMES: dict[str, str] = {
    "uvicorn": "main run Config Server __version__",
    "uvicorn.__main__": "main",
    "uvicorn._types": (
        "ASGIApplication ASGI2Application ASGI3Application ASGI2Protocol Scope WWWScope HTTPScope WebSocketScope "
        "LifespanScope ASGIReceiveCallable ASGISendCallable ASGIReceiveEvent ASGISendEvent Environ StartResponse "
        "ExcInfo WSGIApp HTTPRequestEvent HTTPResponseStartEvent HTTPResponseBodyEvent HTTPDisconnectEvent "
        "WebSocketConnectEvent WebSocketAcceptEvent WebSocketReceiveEvent WebSocketSendEvent WebSocketCloseEvent "
        "WebSocketDisconnectEvent WebSocketResponseStartEvent WebSocketResponseBodyEvent LifespanStartupEvent "
        "LifespanShutdownEvent LifespanStartupCompleteEvent LifespanStartupFailedEvent "
        "LifespanShutdownCompleteEvent LifespanShutdownFailedEvent"
    ),
    "uvicorn.config": (
        "Config LOGGING_CONFIG LOG_LEVELS HTTP_PROTOCOLS WS_PROTOCOLS LIFESPAN LOOP_FACTORIES INTERFACES "
        "SSL_PROTOCOL_VERSION HTTPProtocolType WSProtocolType LifespanType LoopFactoryType InterfaceType "
        "create_ssl_context"
    ),
    "uvicorn.importer": "import_from_string ImportFromStringError",
    "uvicorn.lifespan.off": "LifespanOff",
    "uvicorn.lifespan.on": "LifespanOn",
    "uvicorn.logging": "ColourizedFormatter DefaultFormatter AccessFormatter TRACE_LOG_LEVEL",
    "uvicorn.loops.asyncio": "asyncio_loop_factory",
    "uvicorn.loops.auto": "auto_loop_factory",
    "uvicorn.loops.uvloop": "uvloop_loop_factory",
    "uvicorn.main": (
        "main run STARTUP_FAILURE Config Server HTTP_PROTOCOLS WS_PROTOCOLS LIFESPAN LOOP_FACTORIES LOG_LEVELS "
        "LOGGING_CONFIG INTERFACES SSL_PROTOCOL_VERSION ChangeReload Multiprocess"
    ),
    "uvicorn.middleware.asgi2": "ASGI2Middleware",
    "uvicorn.middleware.message_logger": "MessageLoggerMiddleware",
    "uvicorn.middleware.proxy_headers": "ProxyHeadersMiddleware",
    "uvicorn.middleware.wsgi": "WSGIMiddleware",
    "uvicorn.protocols.http.auto": "AutoHTTPProtocol",
    "uvicorn.protocols.http.flow_control": "FlowControl HIGH_WATER_LIMIT CLOSE_HEADER service_unavailable",
    "uvicorn.protocols.http.h11_impl": "H11Protocol",
    "uvicorn.protocols.http.httptools_impl": "HttpToolsProtocol",
    "uvicorn.protocols.utils": "ClientDisconnected get_local_addr get_remote_addr get_client_addr",
    "uvicorn.protocols.websockets.auto": "AutoWebSocketsProtocol",
    "uvicorn.protocols.websockets.websockets_impl": "WebSocketProtocol",
    "uvicorn.protocols.websockets.websockets_sansio_impl": "WebSocketsSansIOProtocol",
    "uvicorn.protocols.websockets.wsproto_impl": "WSProtocol",
    "uvicorn.server": "Server ServerState HANDLED_SIGNALS",
    "uvicorn.supervisors": "ChangeReload Multiprocess",
    "uvicorn.supervisors.basereload": "BaseReload",
    "uvicorn.supervisors.multiprocess": "Multiprocess",
    "uvicorn.supervisors.statreload": "StatReload",
    "uvicorn.supervisors.watchfilesreload": "WatchFilesReload FileFilter",
}


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in NAMES.items() for name in names.split()]
)
def test_documented_name_is_at_its_path(path: str, name: str) -> None:
    assert hasattr(importlib.import_module(path), name)


@pytest.mark.parametrize("path", NAMES)
def test_every_name_that_a_module_offers_is_there(path: str) -> None:
    module = importlib.import_module(path)
    assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == []


def test_package_offers_four_names_in_the_documented_order() -> None:
    assert uvicorn.__all__ == ["main", "run", "Config", "Server"]


def test_package_says_its_version() -> None:
    assert uvicorn.__version__ == "0.37.0"


def test_package_is_typed() -> None:
    assert (Path(uvicorn.__file__).parent / "py.typed").exists()


def test_main_is_the_command_and_also_a_module() -> None:
    module = importlib.import_module("uvicorn.main")
    assert isinstance(module, types.ModuleType)
    assert isinstance(uvicorn.main, click.Command)
    assert callable(uvicorn.main)
    assert module.main is uvicorn.main
    assert module.run is uvicorn.run


def test_server_state_at_its_old_path_is_deprecated() -> None:
    module = importlib.import_module("uvicorn.main")
    text = "uvicorn.main.ServerState is deprecated, use uvicorn.server.ServerState instead."
    with pytest.warns(DeprecationWarning, match=f"^{re.escape(text)}$") as caught:
        state = module.ServerState
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert state is importlib.import_module("uvicorn.server").ServerState


def test_unknown_attribute_of_the_main_module_is_an_attribute_error() -> None:
    module = importlib.import_module("uvicorn.main")
    with pytest.raises(AttributeError, match=r"module uvicorn\.main has no attribute nothing"):
        _ = module.nothing
    assert not hasattr(module, "nothing")


# --- mappings and constants ------------------------------------------------------------------------


def test_mappings_are_the_documented_ones() -> None:
    assert config.HTTP_PROTOCOLS == {
        "auto": "uvicorn.protocols.http.auto:AutoHTTPProtocol",
        "h11": "uvicorn.protocols.http.h11_impl:H11Protocol",
        "httptools": "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
    }
    assert config.WS_PROTOCOLS == {
        "auto": "uvicorn.protocols.websockets.auto:AutoWebSocketsProtocol",
        "none": None,
        "websockets": "uvicorn.protocols.websockets.websockets_impl:WebSocketProtocol",
        "websockets-sansio": "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
        "wsproto": "uvicorn.protocols.websockets.wsproto_impl:WSProtocol",
    }
    assert config.LIFESPAN == {
        "auto": "uvicorn.lifespan.on:LifespanOn",
        "on": "uvicorn.lifespan.on:LifespanOn",
        "off": "uvicorn.lifespan.off:LifespanOff",
    }
    assert config.LOOP_FACTORIES == {
        "none": None,
        "auto": "uvicorn.loops.auto:auto_loop_factory",
        "asyncio": "uvicorn.loops.asyncio:asyncio_loop_factory",
        "uvloop": "uvicorn.loops.uvloop:uvloop_loop_factory",
    }
    assert config.INTERFACES == ["auto", "asgi3", "asgi2", "wsgi"]


def test_type_aliases_list_the_names_of_the_mappings() -> None:
    assert typing.get_args(config.HTTPProtocolType) == tuple(config.HTTP_PROTOCOLS)
    assert typing.get_args(config.WSProtocolType) == tuple(config.WS_PROTOCOLS)
    assert typing.get_args(config.LifespanType) == tuple(config.LIFESPAN)
    assert typing.get_args(config.LoopFactoryType) == tuple(config.LOOP_FACTORIES)
    assert typing.get_args(config.InterfaceType) == tuple(config.INTERFACES)


def test_constants_are_the_documented_ones() -> None:
    main_module = importlib.import_module("uvicorn.main")
    uvicorn_logging = importlib.import_module("uvicorn.logging")
    assert main_module.STARTUP_FAILURE == 3
    assert uvicorn_logging.TRACE_LOG_LEVEL == 5
    assert config.SSL_PROTOCOL_VERSION == ssl.PROTOCOL_TLS_SERVER
    assert config.LOG_LEVELS == {
        "critical": logging.CRITICAL,
        "error": logging.ERROR,
        "warning": logging.WARNING,
        "info": logging.INFO,
        "debug": logging.DEBUG,
        "trace": 5,
    }


# --- what is chosen by what is installed -----------------------------------------------------------


def test_automatic_choices_are_those_of_a_standard_installation() -> None:
    names = {
        "uvicorn.protocols.http.auto:AutoHTTPProtocol": "HttpToolsProtocol",
        "uvicorn.protocols.websockets.auto:AutoWebSocketsProtocol": "WebSocketProtocol",
        "uvicorn.supervisors:ChangeReload": "WatchFilesReload",
    }
    for path, name in names.items():
        module, _, attribute = path.partition(":")
        assert getattr(importlib.import_module(module), attribute).__name__ == name


def test_reloader_without_watchfiles_looks_at_modification_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.delitem(sys.modules, "uvicorn.supervisors.watchfilesreload")
    supervisors = importlib.import_module("uvicorn.supervisors")
    assert supervisors.__file__ is not None
    assert runpy.run_path(supervisors.__file__)["__getattr__"]("ChangeReload").__name__ == "StatReload"


def test_supervisors_are_one_thing_at_all_their_paths() -> None:
    found = {path: importlib.import_module(path) for path in NAMES if path.startswith("uvicorn.supervisors")}
    assert found["uvicorn.supervisors"].Multiprocess is found["uvicorn.supervisors.multiprocess"].Multiprocess
    assert issubclass(
        found["uvicorn.supervisors"].ChangeReload, found["uvicorn.supervisors.basereload"].BaseReload
    )


def test_a_master_imports_nothing_that_only_others_need() -> None:
    unwanted = (
        "watchfiles",
        "anyio",
        "a2wsgi",
        "yaml",
        "uvloop",
        "httptools",
        "websockets",
        "wsproto",
        "h11",
        "decimal",
        "difflib",
        "uvicorn.control.process",
    )
    code = f"import sys, uvicorn.main, uvicorn.supervisor.master; print(*set({unwanted}) & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.split() == []

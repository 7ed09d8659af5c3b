"""Which projects, in which version, with what beside them. The sdist of each contains tests that start uvicorn."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Project:
    """One project on the package index.

    Attributes:
        name: Its name there.
        version: Pinned, so that two runs compare the same tests.
        needs: What its tests import beside the project itself and uvicorn; versions are pinned where a newer one
            breaks the project's tests with any server.
        paths: The tests, in the sdist.
        without: What is taken away from the sdist: a package that would be imported in place of the installed one.
        options: More for pytest: what the project's own configuration lacks, or takes for granted.
        differs: What is another way here on purpose: the reason by the beginning of the tests' ids.
    """

    name: str
    version: str
    needs: tuple[str, ...]
    paths: tuple[str, ...] = ("tests",)
    without: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    differs: dict[str, str] = field(default_factory=dict)

    def reason(self, test: str) -> str | None:
        """Why this test may fail here."""
        return next((reason for start, reason in self.differs.items() if test.startswith(start)), None)


# Of the time of uvicorn 0.37.0: its "websockets" implementation needs the library's legacy interface.
_STANDARD = ("websockets==15.0.1", "httptools", "uvloop", "python-dotenv", "watchfiles", "wsproto")
_PYTEST = ("pytest==8.4.2", "pytest-timeout")

PROJECTS = (
    Project(
        "uvicorn",
        "0.37.0",
        (
            *("pytest==8.3.5", "pytest-timeout", "pytest-mock==3.14.0", "pytest-xdist[psutil]==3.6.1"),
            *("websockets==13.1", *_STANDARD[1:], "httpx==0.28.1", "trustme==1.2.1", "cryptography"),
            *("a2wsgi==1.10.8", "pyyaml"),
        ),
        without=("uvicorn",),
        options=("-o", "addopts=", "--continue-on-collection-errors"),
        # "listed": in docs/migrating.md. "private": the test looks at what is no promise.
        differs={
            "tests/supervisors/test_multiprocess.py::": "private: Process, signal_queue",
            "tests/supervisors/test_reload.py::": "private: imports _display_path",
            "tests/test_subprocess.py::": "private: imports uvicorn._subprocess",
            "tests/middleware/test_logging.py::test_trace_logging_on_ws_protocol": "listed: half closed first",
            "tests/protocols/test_http.py::test_keepalive_timeout_with_pipelined_requests": (
                "private: an attribute of the protocol"
            ),
            "tests/protocols/test_http.py::test_response_header_splitting": "listed: the client gets 500",
            "tests/protocols/test_http.py::test_100_continue_sent_when_body_consumed": (
                "listed: no 100 where the body is there"
            ),
            "tests/protocols/test_http.py::test_unsupported_ws_upgrade_request_warn_on_auto": (
                "private: an attribute of the protocol"
            ),
            "tests/protocols/test_http.py::test_scopes": "private: the scope of a request that is over",
            "tests/protocols/test_websocket.py::test_connection_lost_before_handshake_complete": (
                "listed: a handshake in flight is waited for"
            ),
            "tests/protocols/test_websocket.py::test_send_binary_data_to_server_bigger_than_default_on_websockets"
            "[httptools-max=10 sent=11]": "the client refuses the close frame, whose reason is above its own limit",
            "tests/protocols/test_websocket.py::test_send_binary_data_to_server_bigger_than_default_on_websockets"
            "[h11-max=10 sent=11]": "the client refuses the close frame, whose reason is above its own limit",
            "tests/protocols/test_websocket.py::test_server_reject_connection_with_body_nolength[wsproto": (
                "listed: with a length"
            ),
            "tests/test_cli.py::test_cli_incomplete_app_parameter": "listed: exit code 3",
            "tests/test_main.py::test_exit_on_create_server_with_invalid_host": "listed: exit code 3",
            "tests/test_config.py::test_log_config_": "private: puts another open() into uvicorn.config",
        },
    ),
    Project(
        "httpx",
        "0.28.1",
        (
            *_PYTEST,
            *("httpx[brotli,cli,http2,socks,zstd]==0.28.1", "chardet==5.2.0", "cryptography"),
            *("trio==0.27.0", "trustme", "click==8.1.8"),
        ),
        options=("-m", "not network"),
    ),
    Project(
        "httpx-ws",
        "0.9.0",
        (*_PYTEST, *_STANDARD, "starlette==0.49.3", "trio", "anyio"),
        options=("-o", "addopts="),
    ),
    Project(
        "sse-starlette",
        "3.7.0",
        (
            *_PYTEST,
            *_STANDARD,
            *("asgi-lifespan", "httpx2", "httpx", "fastapi", "psutil", "portend", "tenacity"),
            *("pytest-asyncio==0.26.0", "testcontainers"),
        ),
        # The sdist lacks a module that two of its test modules import.
        options=("--continue-on-collection-errors",),
    ),
    Project(
        "fastapi-proxy-lib",
        "0.3.0",
        (
            *("pytest==7.4.4", "pytest-timeout==2.3.1", *_STANDARD),
            *(
                "fastapi==0.115.12",
                "starlette==0.46.2",
                "httpx[http2]==0.28.1",
                "httpx-ws==0.7.2",
                "anyio==4.9.0",
            ),
            *("asgi-lifespan==2.1.0", "pytest-cov==4.1.0"),
        ),
    ),
    Project(
        "uvicorn-worker",
        "0.4.0",
        (*_PYTEST, "gunicorn==23.0.0", "httpx==0.28.1", "trustme", "cryptography", "httptools", "uvloop"),
    ),
    Project(
        "python-socketio",
        "5.18.1",
        (
            *_PYTEST,
            *("simple-websocket", "requests", "websocket-client", "aiohttp", "msgpack", "redis", "valkey"),
            *("pytest-asyncio==0.26.0", "pytest-cov"),
        ),
        options=("-p", "no:logging"),
    ),
    Project(
        "mcp",
        "1.25.0",
        (
            *_PYTEST,
            *("mcp[cli,ws,rich]==1.25.0", "trio", "pytest-xdist", "pytest-examples", "pytest-flakefinder"),
            *(
                "inline-snapshot",
                "dirty-equals",
                "coverage==7.10.7",
                "websockets==15.0.1",
                "starlette==0.49.3",
            ),
            *("sse-starlette==3.0.3", "pydantic-settings==2.12.0", "requests"),
        ),
        # Those that start a server.
        paths=(
            *("tests/shared/test_sse.py", "tests/shared/test_ws.py", "tests/shared/test_streamable_http.py"),
            *("tests/server/test_sse_security.py", "tests/server/test_streamable_http_security.py"),
            *("tests/server/fastmcp/test_integration.py", "tests/client/test_http_unicode.py"),
            "tests/client/test_notification_response.py",
        ),
        options=("-o", "addopts=", "-o", "log_cli=false"),
    ),
)

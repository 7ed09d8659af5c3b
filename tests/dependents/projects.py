"""Which projects, in which version, with what beside them. The sdist of each contains tests that start uvicorn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Project:
    """One project on the package index.

    Attributes:
        name: Its name there.
        version: Pinned, so that two runs compare the same tests.
        needs: What its tests import beside the project itself and uvicorn; versions are pinned where a newer one
            breaks the project's tests with any server.
        paths: The tests, in the sdist.
        options: More for pytest: what the project's own configuration lacks, or takes for granted.
    """

    name: str
    version: str
    needs: tuple[str, ...]
    paths: tuple[str, ...] = ("tests",)
    options: tuple[str, ...] = ()


# Of the time of uvicorn 0.37.0: its "websockets" implementation needs the library's legacy interface.
_STANDARD = ("websockets==15.0.1", "httptools", "uvloop", "python-dotenv", "watchfiles", "wsproto")
_PYTEST = ("pytest==8.4.2", "pytest-timeout")

PROJECTS = (
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
            "sse-starlette==3.0.3",
        ),
        paths=("tests/shared", "tests/server", "tests/client"),
        options=("-o", "addopts=", "-o", "log_cli=false"),
    ),
)

"""The WSGI environment (PEP 3333) of one request, from its ASGI scope."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any

from uvicorn._types import ASGIReceiveEvent, Environ, HTTPScope

_CONTENT_HEADERS = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}


def build_environ(scope: HTTPScope, message: ASGIReceiveEvent, body: IO[bytes]) -> Environ:
    """The WSGI environment (PEP 3333) of one request; texts are the UTF-8 bytes read as latin-1.

    Args:
        scope: The request.
        message: Not looked at; it belongs to the signature.
        body: wsgi.input.
    """
    script_name, path_info = _split_path(scope)
    host, port = scope.get("server") or ("localhost", None)
    client = scope.get("client")
    scheme = scope.get("scheme", "http")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": script_name,
        "PATH_INFO": path_info,
        "QUERY_STRING": scope["query_string"].decode("latin1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        # Texts, and never empty, also behind a UNIX socket (PEP 3333).
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or (443 if scheme == "https" else 80)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": body,
        # It ends where the body does, so that a body without Content-Length can be read, too.
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "asgi.scope": scope,
    }
    if client is not None:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    _add_headers(environ, scope.get("headers", []))
    return environ


def _split_path(scope: HTTPScope) -> tuple[str, str]:
    """SCRIPT_NAME and PATH_INFO: the path has the root path in front."""
    script_name = scope.get("root_path", "").encode("utf8").decode("latin1")
    path = scope["path"].encode("utf8").decode("latin1")
    rest = path.removeprefix(script_name)
    if rest == path or (rest and rest[0] not in "/*" and not script_name.endswith("/")):
        return script_name, path  # not below it: "/api" is no part of "/apis"
    return script_name, rest


def _add_headers(environ: Environ, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """HTTP_* variables; repeated fields are one list (RFC 9110 5.3).

    A name with an underscore would be taken for another one's with a hyphen: a proxy that removes X-Remote-User lets
    X_Remote_User pass. So such fields are left out, as nginx and gunicorn do.
    """
    for name, value in headers:
        if b"_" in name:
            continue
        key = _CONTENT_HEADERS.get(name) or "HTTP_" + name.decode("latin1").upper().replace("-", "_")
        text = value.decode("latin1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text

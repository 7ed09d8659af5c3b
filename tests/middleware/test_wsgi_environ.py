"""What a WSGI application is told of a request: PEP 3333's variables."""

from __future__ import annotations

import io
import sys
import wsgiref.validate
from typing import Any

import pytest

from tests.middleware.scopes import SCOPE
from uvicorn.middleware._wsgi_environ import build_environ


def environ(**scope: Any) -> Any:
    message: Any = {"type": "http.request", "body": b"", "more_body": False}
    return build_environ({**SCOPE, **scope}, message, io.BytesIO())  # type: ignore[typeddict-item]


def test_environment_of_a_plain_request() -> None:
    stream = io.BytesIO()
    message: Any = {"type": "http.request"}
    assert build_environ(SCOPE, message, stream) == {  # type: ignore[arg-type]
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/x",
        "QUERY_STRING": "a=1&b=%20",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "10.0.0.1",
        "SERVER_PORT": "8443",
        "REMOTE_ADDR": "10.0.0.2",
        "REMOTE_PORT": "4321",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": stream,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "asgi.scope": SCOPE,
    }


def test_every_variable_is_what_the_standard_wants() -> None:
    """wsgiref's checker looks at types and presence, also behind a UNIX socket."""
    check_environ = wsgiref.validate.check_environ  # type: ignore[attr-defined]  # not in the stubs
    for scope in ({}, {"server": None, "client": None}, {"server": ("/run/x.sock", None), "client": None}):
        found = environ(headers=[(b"content-type", b"text/plain"), (b"content-length", b"0")], **scope)
        found["wsgi.input"] = io.BytesIO()
        check_environ(found)


@pytest.mark.parametrize(
    ("server", "scheme", "name", "port"),
    [
        (None, "http", "localhost", "80"),
        (None, "https", "localhost", "443"),
        (("/run/http.sock", None), "https", "/run/http.sock", "443"),
        (("::1", 8000), "http", "::1", "8000"),
    ],
)
def test_server_is_text_and_never_empty(server: Any, scheme: str, name: str, port: str) -> None:
    found = environ(server=server, scheme=scheme, client=None)
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == (name, port)
    assert not {"REMOTE_ADDR", "REMOTE_PORT"} & set(found)


@pytest.mark.parametrize(
    ("root_path", "path", "script_name", "path_info"),
    [
        ("", "/文", "", "/文".encode().decode("latin1")),
        ("/文", "/文/x", "/文".encode().decode("latin1"), "/x"),
        ("/api", "/api", "/api", ""),
        ("/api", "/other", "/api", "/other"),
        ("/api", "/apis/x", "/api", "/apis/x"),
        ("/api", "/api*", "/api", "*"),
        ("/api/", "/api/x", "/api/", "x"),
        ("", "/a%2Fb", "", "/a%2Fb"),
    ],
)
def test_path_is_split_at_the_root_path(root_path: str, path: str, script_name: str, path_info: str) -> None:
    found = environ(root_path=root_path, path=path)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == (script_name, path_info)


def test_headers_are_variables_and_repeated_ones_are_joined() -> None:
    found = environ(
        headers=[
            (b"content-type", b"text/plain"),
            (b"content-length", b"5"),
            (b"x-name", b"J\xc3\xa9"),
            (b"accept", b"a"),
            (b"accept", b"b"),
        ]
    )
    assert found["CONTENT_TYPE"] == "text/plain"
    assert found["CONTENT_LENGTH"] == "5"
    assert found["HTTP_X_NAME"] == "J\xc3\xa9"
    assert found["HTTP_ACCEPT"] == "a,b"


def test_fields_with_underscores_are_left_out() -> None:
    """X_Remote_User must not pass for the X-Remote-User that a proxy has removed."""
    found = environ(
        headers=[(b"x_remote_user", b"root"), (b"x-remote-user", b"guest"), (b"content_length", b"9")]
    )
    assert found["HTTP_X_REMOTE_USER"] == "guest"
    assert "HTTP_CONTENT_LENGTH" not in found
    assert "CONTENT_LENGTH" not in found


def test_query_of_any_bytes_is_text() -> None:
    assert environ(query_string=b"q=\xe4")["QUERY_STRING"] == "q=\xe4"

"""The request that the tests of WSGI are about."""

from __future__ import annotations

SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "https",
    "root_path": "",
    "path": "/x",
    "query_string": b"a=1&b=%20",
    "headers": [],
    "server": ("10.0.0.1", 8443),
    "client": ("10.0.0.2", 4321),
}

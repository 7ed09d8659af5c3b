"""Requests that are known by their bytes: what a connection learns of those that came, and takes without a parser.

What can be known, and what for, is in `_repeats.py` and `_varying.py`, which are pure; here stands when a connection looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http._cycle import RequestCycle
from uvicorn.protocols.http._lifetime import ConnectionLifetime
from uvicorn.protocols.http._repeats import MAX_LINE, PATIENCE, RepeatedSection, learn, request_line
from uvicorn.protocols.http._varying import TRIES, VaryingSection, compare

# What of a scope belongs to a connection, or is the application's own: not kept with what is known of a request.
_OF_CONNECTION = dict.fromkeys(("asgi", "server", "client", "scheme", "headers", "state"))


class KnownRequests(ConnectionLifetime):
    """The part of a connection that knows requests again."""

    __slots__ = ()

    if TYPE_CHECKING:  # what the last part, `HTTPConnection`, adds

        def _begin(self, cycle: RequestCycle) -> None: ...
        def expect_body(self) -> None: ...
        def may_go_on(self) -> bool: ...
        def response_complete(self, cycle: RequestCycle) -> None: ...
        def hold_back(self, data: bytes) -> None: ...

    # --- taking them ------------------------------------------------------------------------

    # The three ways end alike, and are written out: a function for all, which gets two kinds of sections, made a POST of
    # 1 KB 2 % dearer in the process.

    def _takes_known(self, data: bytes) -> bool:
        """Take a whole request, if it is one that can be known by what has come before."""
        repeated, varying = self._repeated, self._varying
        if repeated is not None and self._takes_repeated(repeated, data, len(data) - repeated.size):
            return True
        return varying is not None and self._takes_varying(varying, data)

    def _takes_repeated(self, section: RepeatedSection, data: bytes, line_size: int) -> bool:
        """Take a whole request whose header section is known, if it is one."""
        if not 0 < line_size <= section.longest_line or not data.startswith(section.raw, line_size):
            return False
        line = request_line(data[:line_size])
        if line is None:
            return False
        self._unlike = 0
        method, text, path, query, is_head = line
        scope = self._make_scope("1.1", method, text, path, query, list(section.fields))
        app = self.context.app if section.forwarded else self.context.direct_app
        cycle = RequestCycle(self, scope, app, True, is_head, section.keep_alive, False, False)
        if section.length:
            cycle.feed_body(data[-section.length :])
        elif line == section.line:
            section.request = data
            section.scope = {**scope, **_OF_CONNECTION}
        else:
            section.line = line
        if not section.keep_alive:
            self._discard()  # nothing behind this request is looked at
        self._begin(cycle)
        return True

    def _on_same(self, section: RepeatedSection) -> None:
        """A whole request that is, byte for byte, one that has come before."""
        self._unlike = 0
        context = self.context
        scope: Any = section.scope.copy()
        scope["asgi"] = {"version": context.asgi_version, "spec_version": "2.3"}
        scope["server"] = self._server
        scope["client"] = self._client
        scope["scheme"] = self.scheme
        scope["headers"] = list(section.fields)
        scope["state"] = self.app_state.copy()
        app = context.app if section.forwarded else context.direct_app
        is_head = scope["method"] == "HEAD"
        cycle = RequestCycle(self, scope, app, True, is_head, section.keep_alive, False, False)
        if not section.keep_alive:
            self._discard()  # nothing behind this request is looked at
        self._begin(cycle)

    def _takes_varying(self, section: VaryingSection, data: bytes) -> bool:
        """Take a whole request whose header section is known but for lines that decide nothing, if it is one."""
        line_size = data.find(b"\r\n")
        if not 0 < line_size <= MAX_LINE:
            return False
        fields = section.fields(data, line_size)
        if fields is None:
            return False
        line = request_line(data[:line_size])
        if line is None:
            return False
        self._unlike = PATIENCE
        method, text, path, query, is_head = line
        scope = self._make_scope("1.1", method, text, path, query, fields)
        app = self.context.app if section.forwarded else self.context.direct_app
        cycle = RequestCycle(self, scope, app, True, is_head, section.keep_alive, False, False)
        if not section.keep_alive:
            self._discard()  # nothing behind this request is looked at
        self._begin(cycle)
        return True

    def _make_scope(
        self,
        version: str,
        method: str,
        text: str,
        path: bytes,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
    ) -> Any:
        context = self.context
        if context.root_path:
            text = context.root_path + text
            path = context.root_path_bytes + path
        return {
            "type": "http",
            "asgi": {"version": context.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": self.scheme,
            "method": method,
            "root_path": context.root_path,
            "path": text,
            "raw_path": path,
            "query_string": query,
            "headers": headers,
            "state": self.app_state.copy(),
        }

    # --- learning them ----------------------------------------------------------------------

    def _compare_section(self, data: bytes) -> None:
        """A request has come whole: is its header section as long as the last one, or another connection's first?"""
        self._unlike += 1
        if self._unlike > PATIENCE:
            self._find_varying(data)
            return
        size = len(data) - data.find(b"\r\n")
        last, self._last_section = self._last_section, size
        if size == last or (not last and self.context.sections.has_come(data[-size:])):
            self._learn_section(data)

    def _learnt(self, data: bytes) -> RepeatedSection | None:
        """The header section of the request that has come whole, where it can be known by its bytes."""
        cycle = self.current
        if cycle is None or self._receiving is not None or self.pipeline or self.context.starts_eagerly:
            return None  # more has come than one request, or the application has had the fields in its hands
        if not cycle.modern:
            return None
        return learn(data, tuple(cycle.scope["headers"]), self.config.limit_request_head)

    def _learn_section(self, data: bytes) -> None:
        """The last two header sections had the same size, or another connection has begun with this one."""
        self._last_section = -1
        section = self._learnt(data)
        if section is not None:
            self._repeated = section
            self._last_section = 0
            self.context.sections.share(section)

    def _find_varying(self, data: bytes) -> None:
        """Whole sections do not come again: what do the last two have in common?"""
        if self._unlike > PATIENCE + TRIES:
            self._last_section = -1
            self._repeated = self._varying = None
            return
        section = self._learnt(data)
        if section is None:
            return
        last, self._repeated = self._repeated, section
        if last is not None:
            config = self.config
            found = compare(last, section, config.limit_request_head, config.limit_request_fields)
            self._varying = found or self._varying

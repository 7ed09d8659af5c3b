"""Requests whose header section is the connection's last one but for a few lines in one place. Pure.

A client that gives each request an identifier or a token of its own repeats no header section as a whole
(`_repeats.py`), but all that stands in front of that line and behind it. These parts are compared as they are, and mean
what the parser has said that they mean. What stands between them is taken only where there is nothing to decide: whole
lines of a grammar so narrow that both parsers read them alike, whose names occur nowhere else in the section and
are of no meaning to the server. Anything else is left to the parser.

To look each line up in a dictionary was tried, and is no cheaper than the parser: it takes 6.6 us for thirteen lines.
"""

from __future__ import annotations

import re

from uvicorn.middleware.proxy_headers import FORWARDED
from uvicorn.protocols.http._repeats import MAX_LINE, MAX_SECTION, MEANINGFUL, RepeatedSection, lines_of

# A part of what RFC 9112 5 allows, and both parsers take for the same: a token, one space, and visible US-ASCII with
# spaces between, at least one character of it.
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = bytes(range(0x20, 0x7F))
_SPACE = 0x20

# Fields that say what the server does with the request: they do not vary.
_DECISIVE = frozenset((*MEANINGFUL, *FORWARDED, b"host"))

# So many lines between are taken. Each costs about what it costs the parser: what is known has to pay for the rest.
MAX_BETWEEN = 4
# So many of their names are remembered.
_MAX_NAMES = 16
# So often a connection looks for the lines that vary when it has found the wrong ones, or none.
TRIES = 4


class VaryingSection:
    """A header section some lines of which are others with each request.

    Attributes:
        front: Its bytes from the end of the request line to the end of the last line in front of these.
        back: Its bytes from the end of the last of these lines to the end of the head.
        forwarded: Whether a proxy says in it for whom it asks.
        keep_alive: Whether the client lets the connection go on.
    """

    __slots__ = (
        "_back_fields",
        "_fixed",
        "_front_fields",
        "_longest",
        "_lowered",
        "_names",
        "_spare",
        "back",
        "forwarded",
        "front",
        "keep_alive",
    )

    def __init__(
        self, section: RepeatedSection, before: int, behind: int, head_limit: int, fields_limit: int
    ) -> None:
        lines = lines_of(section.raw)
        fields = section.fields
        self.front = b"".join((b"\r\n", *(line + b"\r\n" for line in lines[:before])))
        self.back = b"".join((*(b"\r\n" + line for line in lines[len(lines) - behind :]), b"\r\n\r\n"))
        self.forwarded = section.forwarded
        self.keep_alive = section.keep_alive
        self._front_fields = list(fields[:before])
        self._back_fields = list(fields[len(fields) - behind :])
        self._names = _DECISIVE.union(name for name, _ in (*self._front_fields, *self._back_fields))
        # Names that may stand between, as they were written, and in lower case.
        self._lowered: dict[bytes, bytes] = {}
        self._fixed = len(self.front) + len(self.back)
        self._longest = min(MAX_SECTION + MAX_LINE, head_limit)
        self._spare = fields_limit - before - behind

    def fields(self, data: bytes, line_size: int) -> list[tuple[bytes, bytes]] | None:
        """The fields of a request that has come whole; None where it is left to the parser.

        Args:
            data: All that has come.
            line_size: The size of its request line, without its end.
        """
        size = len(data)
        front = self.front
        back = self.back
        if (
            not line_size + self._fixed < size <= self._longest
            or not data.startswith(front, line_size)
            or not data.endswith(back)
        ):
            return None
        return self._between(data[line_size + len(front) : size - len(back)])

    def _between(self, data: bytes) -> list[tuple[bytes, bytes]] | None:
        fields: dict[bytes, bytes] = {}
        for line in data.split(b"\r\n", MAX_BETWEEN - 1):  # of what is more, the last piece is no line
            written, _, value = line.partition(b": ")
            name = self._lowered.get(written) or self._name(written)
            if (
                not name
                or name in fields
                or not value
                or value[0] == _SPACE
                or value[-1] == _SPACE
                or value.translate(None, _VALUE)
            ):
                return None
            fields[name] = value
        if len(fields) > self._spare:
            return None
        return [*self._front_fields, *fields.items(), *self._back_fields]

    def _name(self, written: bytes) -> bytes:
        """The name in lower case; empty where it is none, or none that may stand between."""
        name = written.lower()
        if _NAME.match(written) is None or name in self._names:
            return b""
        if len(self._lowered) < _MAX_NAMES:
            self._lowered[written] = name
        return name


def compare(
    one: RepeatedSection, other: RepeatedSection, head_limit: int, fields_limit: int
) -> VaryingSection | None:
    """What two header sections have in common; None where that is not all that decides, or they have a body."""
    first, second = lines_of(one.raw), lines_of(other.raw)
    if one.length or other.length:
        return None
    most = min(len(first), len(second))
    before = 0
    while before < most and first[before] == second[before]:
        before += 1
    behind = 0
    while behind < most - before and first[-1 - behind] == second[-1 - behind]:
        behind += 1
    section = VaryingSection(other, before, behind, head_limit, fields_limit)
    # Its own lines between decide nothing, or they decided what is taken for the meaning of the rest.
    return section if section.fields(b" " + other.raw, 1) is not None else None

"""Kinds of values: how each is read from text, checked when it comes as a native value, and described.

A kind is pure: it touches no file and no environment. `parse` takes the text of a command line or an environment
variable; `accept` takes what YAML or Python gave. Both return the value in its documented unit or raise ValueError
with a sentence that fits behind "Invalid value for '--port': ".
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from uvicorn._addresses import parse_bind
from uvicorn._values import value

Schema = dict[str, Any]

_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SIZE_UNITS = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "kib": 2**10}
_SIZE_UNITS |= {"m": 2**20, "mb": 2**20, "mib": 2**20, "g": 2**30, "gb": 2**30, "gib": 2**30}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*\Z")
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110 5.1: a token
_OCTAL = re.compile(r"^0?[0-7]{1,3}\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_IMPORT_STRING = re.compile(r"[^:]+:[^:]+\Z")
_TRUE = {"1", "true", "t", "yes", "y", "on"}
_FALSE = {"0", "false", "f", "no", "n", "off"}


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer that is larger than any float
        return False


def _whole(number: float) -> int | float:
    """An int where the number is whole, so that documented integer defaults stay integers."""
    return int(number) if float(number).is_integer() else number


# Cut while it is made: a value of a few aliases in YAML can stand for more text than there is memory.
_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60


def _shown(value: object) -> str:
    text = _short.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@value
class Kind:
    """Text, and the base of all other kinds."""

    def parse(self, text: str) -> Any:
        return self.accept(text)

    def accept(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"{_shown(value)} is not text.")
        return value

    def metavar(self) -> str:
        return "TEXT"

    def schema(self) -> Schema:
        return {"type": "string"}


@value
class Secret(Kind):
    """Text that no message repeats."""

    def accept(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("the value is not text: put it in quotes.")
        return value


@value
class PathText(Kind):
    """A path; may be asked to be an absolute statement about the file only when the server starts."""

    def accept(self, value: Any) -> Any:
        if isinstance(value, (str, bytes)) or hasattr(value, "__fspath__"):
            return value
        raise ValueError(f"{_shown(value)} is not a path.")

    def metavar(self) -> str:
        return "PATH"


@value
class BindAddress(Kind):
    """An address to listen on, as text."""

    def accept(self, value: Any) -> str:
        text: str = Kind.accept(self, value)
        parse_bind(text)
        return text


@value
class TcpAddress(Kind):
    """HOST:PORT, as text."""

    def accept(self, value: Any) -> str:
        text: str = Kind.accept(self, value)
        try:
            if parse_bind(text).kind == "tcp":
                return text
        except ValueError:
            pass
        raise ValueError(f"{text!r} is not HOST:PORT or [IPV6]:PORT.")


@value
class Boolean(Kind):
    """true or false, and the spellings that command lines use."""

    def parse(self, text: str) -> bool:
        lowered = text.strip().lower()
        if lowered in _TRUE:
            return True
        if lowered in _FALSE:
            return False
        raise ValueError(f"{text!r} is not a valid boolean.")

    def accept(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.parse(value)
        raise ValueError(f"{_shown(value)} is not a valid boolean: write true or false.")

    def metavar(self) -> str:
        return "BOOLEAN"

    def schema(self) -> Schema:
        return {"type": "boolean"}


@value
class Integer(Kind):
    """A whole number within bounds."""

    minimum: int | None = None
    maximum: int | None = None

    def accept(self, value: Any) -> int:
        if isinstance(value, str):
            try:
                value = int(value.strip())
            except ValueError:
                raise ValueError(f"{_shown(value)} is not a valid integer.") from None
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{_shown(value)} is not a valid integer.")
        _check_bounds(value, self.minimum, self.maximum)
        return value

    def metavar(self) -> str:
        return "INTEGER"

    def schema(self) -> Schema:
        return _bounded({"type": "integer"}, self.minimum, self.maximum)


@value
class Duration(Kind):
    """Seconds, or a number with a unit: "250ms", "30s", "5m", "2h", "1d"."""

    minimum: float = 0

    def accept(self, value: Any) -> int | float:
        if isinstance(value, str):
            match = _QUANTITY.match(value)
            unit = match and _DURATION_UNITS.get(match[2].lower() or "s")
            if not match or not unit:
                raise ValueError(
                    f"{_shown(value)} is not a valid duration: give seconds, or a number with ms, s, m, h or d."
                )
            value = float(match[1]) * unit
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
            raise ValueError(f"{_shown(value)} is not a valid duration.")
        _check_bounds(value, self.minimum, None)
        return _whole(value)

    def metavar(self) -> str:
        return "SECONDS"

    def schema(self) -> Schema:
        pattern = r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|min|h|d)?\s*$"
        return {
            "anyOf": [{"type": "number", "minimum": self.minimum}, {"type": "string", "pattern": pattern}]
        }


@value
class Size(Kind):
    """Bytes, or a number with a binary unit: "16K", "512M", "2G"."""

    minimum: int = 0

    def accept(self, value: Any) -> int:
        if isinstance(value, str):
            match = _QUANTITY.match(value)
            unit = match and _SIZE_UNITS.get(match[2].lower())
            if not match or not unit:
                raise ValueError(
                    f"{_shown(value)} is not a valid integer: give bytes, or a number with K, M or G."
                )
            # Without a float, which would round what is larger than 2**53.
            whole, _, part = match[1].partition(".")
            value = int(whole) * unit + int(part or "0") * unit // 10 ** len(part)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{_shown(value)} is not a valid integer.")
        _check_bounds(value, self.minimum, None)
        return value

    def metavar(self) -> str:
        return "BYTES"

    def schema(self) -> Schema:
        pattern = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgG]([iI]?[bB])?|[bB])?\s*$"
        return {
            "anyOf": [{"type": "integer", "minimum": self.minimum}, {"type": "string", "pattern": pattern}]
        }


@value
class Account(Kind):
    """A user or group: a name, or its number."""

    def accept(self, value: Any) -> str | int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        if isinstance(value, str) and value.strip() and not value.startswith("-"):
            return value.strip()
        raise ValueError(f"{_shown(value)} is neither a name nor a number.")

    def metavar(self) -> str:
        return "NAME"

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string", "pattern": "^[^-]"}, {"type": "integer", "minimum": 0}]}


@value
class Umask(Kind):
    """The rights that new files do not get, as octal text. A plain number of YAML is none: 27 there is decimal."""

    def accept(self, value: Any) -> str:
        if isinstance(value, str) and _OCTAL.match(value):
            return value
        raise ValueError(f"{_shown(value)} is not a umask: write it in octal digits, as text, such as '027'.")

    def number(self, text: str) -> int:
        """The number that the text means."""
        return int(self.accept(text), 8)

    def metavar(self) -> str:
        return "OCTAL"

    def schema(self) -> Schema:
        return {"type": "string", "pattern": _OCTAL.pattern.replace("\\Z", "$")}


@value
class Choice(Kind):
    """One of a few names; where `importable`, an import string or an object as well."""

    names: tuple[str, ...] = ()
    importable: bool = False

    def accept(self, value: Any) -> Any:
        if isinstance(value, bool):
            # YAML 1.1 reads a bare on or off as a boolean.
            value = "on" if value else "off"
        if isinstance(value, str):
            if value in self.names or (self.importable and ":" in value):
                return value
        elif self.importable and callable(value):
            return value
        listed = ", ".join(repr(name) for name in self.names)
        more = ", nor an import string of the form 'module:attribute'" if self.importable else ""
        raise ValueError(f"{_shown(value)} is not one of {listed}{more}.")

    def metavar(self) -> str:
        return "[" + "|".join(self.names) + "]"

    def schema(self) -> Schema:
        names: Schema = {"enum": list(self.names)}
        if self.importable:
            return {"anyOf": [names, {"type": "string", "pattern": "^[^:]+:[^:]+$"}]}
        return names


@value
class Importable(Kind):
    """An import string, or from Python the function itself."""

    def accept(self, value: Any) -> Any:
        if callable(value) or (isinstance(value, str) and _IMPORT_STRING.match(value)):
            return value
        raise ValueError(f"{_shown(value)} is not an import string of the form 'module:attribute'.")

    def metavar(self) -> str:
        return "MODULE:ATTRIBUTE"

    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^[^:]+:[^:]+$"}


@value
class WorkerCount(Kind):
    """A number of processes, or "auto". 0 is none: one process without a master."""

    def accept(self, value: Any) -> Any:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return "auto"
        return Integer(minimum=0, maximum=512).accept(value)

    def metavar(self) -> str:
        return "INTEGER"

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 512}, {"const": "auto"}]}


@value
class LogLevel(Kind):
    """A level's name in any case, or from YAML and Python its number."""

    names: tuple[str, ...] = ()

    def accept(self, value: Any) -> str | int:
        if isinstance(value, str) and value.lower() in self.names:
            return value.lower()
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise ValueError(f"{_shown(value)} is not one of {', '.join(repr(name) for name in self.names)}.")

    def metavar(self) -> str:
        return "[" + "|".join(self.names) + "]"

    def schema(self) -> Schema:
        # The names for editors to offer, and the same in any case.
        in_any_case = "|".join("".join(f"[{c.upper()}{c}]" for c in name) for name in self.names)
        pattern = {"type": "string", "pattern": f"^({in_any_case})$"}
        return {"anyOf": [{"enum": list(self.names)}, pattern, {"type": "integer", "minimum": 0}]}


@value
class LogConfig(PathText):
    """A path to a logging configuration, or the configuration itself as a mapping."""

    def accept(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return dict(value)
        try:
            return PathText.accept(self, value)
        except ValueError:
            raise ValueError(f"{_shown(value)} is neither a path nor a mapping.") from None

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string"}, {"type": "object"}]}


@value
class ListOf(Kind):
    """Several values of one kind: a YAML list, a repeated option, or one text with separators.

    Attributes:
        item: The kind of each.
        split_at: What separates them in one environment variable; None means white space.
    """

    item: Kind = Kind()
    split_at: str | None = None

    def parse(self, text: str) -> list[Any]:
        return [self.item.parse(part.strip()) for part in text.split(self.split_at) if part.strip()]

    def accept(self, value: Any) -> list[Any]:
        if isinstance(value, str):
            return [self.item.accept(value)]
        if not isinstance(value, Sequence):
            raise ValueError(f"{_shown(value)} is not a list.")
        return [self.item.accept(each) for each in value]

    def metavar(self) -> str:
        return self.item.metavar()

    def schema(self) -> Schema:
        item = self.item.schema()
        return {"anyOf": [item, {"type": "array", "items": item}]}


@value
class AddressList(Kind):
    """Addresses, networks and literals: a comma-separated text or a list."""

    def accept(self, value: Any) -> Any:
        if isinstance(value, str):
            return value
        return ListOf(item=Kind()).accept(value)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


@value
class HeaderField(Kind):
    """One response header field: a "Name: value" text, a [name, value] pair, or a mapping of one."""

    def accept(self, value: Any) -> list[str]:
        if isinstance(value, str):
            name, colon, content = value.partition(":")
            if not colon:
                raise ValueError(f"{_shown(value)} is not of the form 'Name:Value'.")
            return self._pair(name, content)
        if isinstance(value, Mapping) and len(value) == 1:
            return self._pair(*next(iter(value.items())))
        if isinstance(value, Sequence) and len(value) == 2:
            return self._pair(*value)
        raise ValueError(f"{_shown(value)} is not a header field.")

    def _pair(self, name: Any, content: Any) -> list[str]:
        if (
            not isinstance(name, str)
            or isinstance(content, bool)
            or not isinstance(content, (str, int, float))
        ):
            raise ValueError(f"{_shown([name, content])} is not a header field of two texts.")
        content = str(content).strip(" \t")
        if not _FIELD_NAME.match(name) or _CONTROL.search(content) or not _is_latin1(content):
            raise ValueError(f"{_shown([name, content])} cannot be sent as a header field.")
        return [name, content]

    def schema(self) -> Schema:
        pair = {"type": "array", "items": {"type": _FIELD_TYPES}, "minItems": 2, "maxItems": 2}
        single = {**_FIELD_MAPPING, "minProperties": 1, "maxProperties": 1}
        return {"anyOf": [{"type": "string", "pattern": ":"}, pair, single]}


@value
class HeaderList(ListOf):
    """Response header fields: a list of them, or one mapping for all."""

    item: Kind = HeaderField()

    def accept(self, value: Any) -> list[Any]:
        if isinstance(value, Mapping):
            value = list(value.items())
        return ListOf.accept(self, value)

    def schema(self) -> Schema:
        field = self.item.schema()
        return {
            "anyOf": [{"type": "string", "pattern": ":"}, {"type": "array", "items": field}, _FIELD_MAPPING]
        }


_FIELD_TYPES = ["string", "number"]
_FIELD_MAPPING: Schema = {"type": "object", "additionalProperties": {"type": _FIELD_TYPES}}


def _is_latin1(text: str) -> bool:
    """Whether the text can go out in a header: one byte for each character."""
    return all(ord(char) < 256 for char in text)


def _check_bounds(value: float, minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and value < minimum:
        raise ValueError(f"{value} is too small: at least {minimum}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"{value} is too large: at most {maximum}.")


def _bounded(schema: Schema, minimum: float | None, maximum: float | None) -> Schema:
    if minimum is not None:
        schema["minimum"] = minimum
    if maximum is not None:
        schema["maximum"] = maximum
    return schema

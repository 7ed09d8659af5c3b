"""A validator for the part of JSON Schema that the settings use; a keyword that it does not know is an error."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
ANNOTATIONS = {"$schema", "$defs", "title", "description", "default"}


def satisfies(value: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> bool:
    """Whether the value satisfies the schema."""
    root = schema if root is None else root
    results = [KEYWORDS[keyword](value, schema, root) for keyword in schema if keyword not in ANNOTATIONS]
    return all(results)


def _has_type(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    types = tuple(each for name in names for each in _TYPES[name])
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _has_properties(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    known = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    if not isinstance(value, dict):
        return True
    return all(
        satisfies(each, known[name], root)
        if name in known
        else (satisfies(each, more, root) if isinstance(more, dict) else more)
        for name, each in value.items()
    )


KEYWORDS: dict[str, Any] = {
    "$ref": lambda v, s, root: satisfies(v, root["$defs"][s["$ref"].removeprefix("#/$defs/")], root),
    "type": _has_type,
    "anyOf": lambda v, s, root: any(satisfies(v, each, root) for each in s["anyOf"]),
    "enum": lambda v, s, root: v in s["enum"],
    "const": lambda v, s, root: v == s["const"],
    "minimum": lambda v, s, root: not _is_number(v) or v >= s["minimum"],
    "maximum": lambda v, s, root: not _is_number(v) or v <= s["maximum"],
    "pattern": lambda v, s, root: not isinstance(v, str) or re.search(s["pattern"], v) is not None,
    "items": lambda v, s, root: not isinstance(v, list) or all(satisfies(e, s["items"], root) for e in v),
    "minItems": lambda v, s, root: not isinstance(v, list) or len(v) >= s["minItems"],
    "maxItems": lambda v, s, root: not isinstance(v, list) or len(v) <= s["maxItems"],
    "minProperties": lambda v, s, root: not isinstance(v, dict) or len(v) >= s["minProperties"],
    "maxProperties": lambda v, s, root: not isinstance(v, dict) or len(v) <= s["maxProperties"],
    "properties": _has_properties,
    "additionalProperties": _has_properties,
}

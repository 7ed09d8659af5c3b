"""The raw layer of a YAML file, with line numbers.

What is read here is only located, not checked: layers.py says whether a value will do. A module of its own, imported only
where there is such a file: a master has no use for 2 MB of a parser without one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from uvicorn.settings.layers import Layer, Problem, Raw

# A configuration is a few kilobytes; what is larger was named by mistake.
MAX_FILE_SIZE = 1_048_576
# How many values one setting may hold, aliases written out: a few lines of aliases to aliases would fill the memory.
MAX_VALUES = 100_000

_VARIABLE = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


def from_yaml(path: str | os.PathLike[str], environ: Mapping[str, str]) -> tuple[Layer, list[Problem]]:
    """The layer of a YAML file, read once, and what is wrong with the file.

    Only safe YAML is loaded: no tag makes an object. `${NAME}` and `${NAME:-default}` stand for variables of
    `environ`; `$$` is a plain dollar sign.
    """
    shown = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
    except OSError as exc:
        return {}, [Problem(shown, "", f"cannot be read: {exc.strerror or exc}.")]
    if len(content) > MAX_FILE_SIZE:
        return {}, [Problem(shown, "", f"is larger than {MAX_FILE_SIZE} bytes.")]
    try:
        loader = yaml.SafeLoader(content.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        return {}, [Problem(shown, "", f"is not UTF-8: {exc.reason} at byte {exc.start}.")]
    except yaml.YAMLError as exc:
        return {}, [_yaml_problem(shown, exc)]
    try:
        return _read_document(loader, shown, environ)
    except RecursionError:
        return {}, [Problem(shown, "", "is nested too deeply.")]
    except yaml.YAMLError as exc:
        return {}, [_yaml_problem(shown, exc)]
    finally:
        loader.dispose()


def _read_document(
    loader: yaml.SafeLoader, shown: str, environ: Mapping[str, str]
) -> tuple[Layer, list[Problem]]:
    root = loader.get_single_node()
    if root is None or root.tag == "tag:yaml.org,2002:null":
        return {}, []
    if not isinstance(root, yaml.MappingNode):
        return {}, [Problem(f"{shown}:{root.start_mark.line + 1}", "", "must be a mapping of settings.")]
    layer: dict[str, Raw] = {}
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for key_node, value_node in root.value:
        place = f"{shown}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(Problem(place, "", "a setting's name must be plain text."))
            continue
        key = key_node.value
        if key in seen:
            problems.append(Problem(place, key, f"is given twice; first at {seen[key]}."))
            continue
        seen[key] = place
        problems += _repeated_keys(value_node, shown, set())
        try:
            layer[key] = Raw(_substitute(_constructed(loader, value_node), environ, {}), place)
        except ValueError as exc:
            problems.append(Problem(place, key, str(exc)))
    return layer, problems


def _constructed(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    """The value of a node.

    Raises:
        ValueError: It cannot be made.
    """
    if _count(node, {}) > MAX_VALUES:
        raise ValueError(f"holds more than {MAX_VALUES} values.")
    try:
        return loader.construct_object(node, deep=True)
    except yaml.MarkedYAMLError as exc:
        raise ValueError(f"{exc.problem}.") from None
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        # What PyYAML lets out where a tag, given or guessed, does not fit the text: !!bool 3, 2026-02-30.
        raise ValueError(f"cannot be read as {node.tag.rpartition(':')[2]}.") from exc


def _count(node: yaml.Node, done: dict[int, int]) -> int:
    """How many values a node stands for, each alias counted as what it repeats."""
    if id(node) in done:
        return done[id(node)]
    done[id(node)] = 1  # while it is looked at; a node that holds itself is refused when it is made
    count = 1
    if isinstance(node, yaml.MappingNode):
        count += sum(_count(key, done) + _count(value, done) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_count(item, done) for item in node.value)
    done[id(node)] = count
    return count


def _repeated_keys(node: yaml.Node, shown: str, visited: set[int]) -> list[Problem]:
    """Keys given twice inside a value, such as a logging configuration; an aliased node is looked at once."""
    problems: list[Problem] = []
    if id(node) in visited:
        return problems
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in seen:
                problems.append(Problem(f"{shown}:{key_node.start_mark.line + 1}", key, "is given twice."))
            seen.add(key)
            problems += _repeated_keys(value_node, shown, visited)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            problems += _repeated_keys(item, shown, visited)
    return problems


def _substitute(value: Any, environ: Mapping[str, str], done: dict[int, Any]) -> Any:
    """`value` with the variables in its texts replaced; an aliased part is replaced once."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, environ), value) if "$" in value else value
    if not isinstance(value, (dict, list)):
        return value
    if id(value) not in done:
        done[id(value)] = None
        if isinstance(value, dict):
            done[id(value)] = {key: _substitute(each, environ, done) for key, each in value.items()}
        else:
            done[id(value)] = [_substitute(each, environ, done) for each in value]
    return done[id(value)]


def _variable(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    name, default = match[1], match[2]
    if name is None:
        raise ValueError(
            "'${' needs a variable's name and a closing brace; write '$$' for a plain dollar sign."
        )
    text = environ.get(name)
    if text is not None and (text or default is None):
        return text
    if default is not None:
        return str(default)
    raise ValueError(f"the variable {name} is not set; give it, or a default: ${{{name}:-default}}.")


def _yaml_problem(shown: str, exc: yaml.YAMLError) -> Problem:
    if isinstance(exc, yaml.MarkedYAMLError) and exc.problem_mark is not None:
        message = exc.problem or exc.context or "cannot be parsed"
        return Problem(f"{shown}:{exc.problem_mark.line + 1}", "", f"is not YAML: {message}.")
    return Problem(shown, "", f"is not YAML: {' '.join(str(exc).split())}.")

"""Several layers of raw values into one set of checked values, or all errors at once.

Pure: a layer is data that sources.py has read. The first layer that names an option decides it; every value of
every layer is checked all the same, so that a mistake in the YAML file does not hide behind an environment variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uvicorn.settings.table import APP, BY_NAME, OPTIONS, Option

MASK = "********"
# Names under which programs keep what nobody should read, and passwords within URLs (RFC 3986 3.2.1).
_SECRETIVE = re.compile(
    r"passw|passphrase|pwd|secret|token|credential|api_?key|dsn|authori[sz]ation", re.IGNORECASE
)
_USERINFO = re.compile(r"(://[^/?#@:\s]*:)[^/?#@\s]*@")


@dataclass(frozen=True, slots=True)
class Raw:
    """One value as a source gave it.

    Attributes:
        value: Text, or what YAML made of it.
        place: Where it stands, for a person: "prod.yaml:12", "$UVICORN_PORT", "--port".
        is_text: Whether `value` is text to be parsed, rather than a native value to be checked.
    """

    value: Any
    place: str
    is_text: bool = False


Layer = Mapping[str, Raw]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, with which key, and what to do about it."""

    place: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.message) if part)


class SettingsError(Exception):
    """The settings cannot be used; `problems` has every reason."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Checked values with the place each comes from ("default" where nobody gave one)."""

    values: Mapping[str, Any]
    places: Mapping[str, str]

    def given(self, name: str) -> bool:
        """Whether any layer names the option."""
        return self.places[name] != "default"

    def options_for(self, *takers: str) -> dict[str, Any]:
        """The values of the options that one of `takers` takes, app not among them."""
        return {option.name: self.values[option.name] for option in OPTIONS if option.taker in takers}

    def shown(self, name: str) -> str:
        """The value as it may be shown: secrets are masked."""
        value = self.values[name]
        if value is not None and name != APP.name and BY_NAME[name].secret:
            return MASK
        return repr(_without_secrets(value))


def _without_secrets(value: Any) -> Any:
    """A value whose parts, as far as their names tell, are masked: handlers of `log_config` log in somewhere."""
    if isinstance(value, Mapping):
        return {
            name: MASK if part is not None and _SECRETIVE.search(str(name)) else _without_secrets(part)
            for name, part in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(map(_without_secrets, value))
    return _USERINFO.sub(rf"\1{MASK}@", value) if isinstance(value, str) else value


@dataclass(slots=True)
class _Merge:
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def take(self, option: Option, raw: Raw) -> None:
        try:
            value = _checked(option, raw)
        except ValueError as exc:
            self.problems.append(Problem(raw.place, option.name, str(exc)))
            return
        if option.name not in self.values:
            self.values[option.name] = value
            self.places[option.name] = raw.place


def _checked(option: Option, raw: Raw) -> Any:
    if raw.value is None:
        # An empty YAML value is null, which only some options can be.
        if option.default is None or option.nullable:
            return None
        raise ValueError("needs a value.")
    return option.kind.parse(raw.value) if raw.is_text else option.kind.accept(raw.value)


def merge(
    layers: Sequence[Layer],
    problems: Sequence[Problem] = (),
    checks: Sequence[Callable[[Resolved], Sequence[Problem]]] = (),
) -> Resolved:
    """One set of settings out of `layers`, the most important first.

    Args:
        layers: Raw values by option name.
        problems: What the sources themselves have found wrong.
        checks: More to be asked of the merged values, such as whether files exist.

    Raises:
        SettingsError: With every problem of every layer.
    """
    merged = _Merge(problems=list(problems))
    for layer in layers:
        for name, raw in layer.items():
            option = APP if name == APP.name else BY_NAME.get(name)
            if option is None:
                merged.problems.append(Problem(raw.place, name, "no such setting" + _nearest(name)))
            else:
                merged.take(option, raw)
    for option in (APP, *OPTIONS):
        if option.name not in merged.values:
            merged.values[option.name] = option.default
            merged.places[option.name] = "default"
    resolved = Resolved(merged.values, merged.places)
    for check in (_contradictions, *checks):
        merged.problems += check(resolved)
    if merged.problems:
        raise SettingsError(merged.problems)
    return resolved


def _nearest(name: str) -> str:
    import difflib  # noqa: PLC0415 - for mistakes only

    known = [APP.name, *BY_NAME]
    matches = difflib.get_close_matches(name.replace("-", "_").lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else "."


def _contradictions(resolved: Resolved) -> list[Problem]:
    """What no single value shows: options that do not go together."""
    problems = []

    def refuse(name: str, message: str) -> None:
        problems.append(Problem(resolved.places[name], name, message))

    if resolved.given("bind"):
        for other in ("host", "port", "uds", "fd"):
            if resolved.given(other) and resolved.values[other] is not None:
                refuse("bind", f"cannot be given together with {other!r} ({resolved.places[other]}).")
    for name, base in (
        ("limit_max_requests_jitter", "limit_max_requests"),
        ("limit_worker_lifetime_jitter", "limit_worker_lifetime"),
        ("limit_worker_memory_jitter", "limit_worker_memory"),
    ):
        if resolved.values[name] and resolved.values[base] is None:
            refuse(name, f"has no effect without {base!r}.")
    if resolved.values["ssl_keyfile"] and not resolved.values["ssl_certfile"]:
        refuse("ssl_keyfile", "needs 'ssl_certfile' as well.")
    if resolved.values["preload"] and not resolved.values["workers"] and not resolved.values["reload"]:
        refuse("preload", "needs a master: give 'workers' as well (any number, 1 included).")
    return problems

"""What is made from the table of options: click parameters, JSON Schema, the settings page, the effective listing.

python -m uvicorn.settings           writes docs/settings.md and uvicorn/settings/schema.json
python -m uvicorn.settings --check   says whether they are up to date (exit code 1 where not)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uvicorn.settings.layers import MASK, Layer, Raw, Resolved
from uvicorn.settings.table import APP, OPTIONS, Option

ROOT = Path(__file__).parents[2]


if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    # Generic only in the newest versions of click; the older ones serve as well.
    _ParamType = click.ParamType


class _KindType(_ParamType):
    """A kind as click sees it: its check, its texts."""

    def __init__(self, option: Option) -> None:
        # A list's items come one by one from the command line.
        self._kind = getattr(option.kind, "item", option.kind)
        self.name = self._kind.metavar().strip("[]").lower()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._kind.parse(value) if isinstance(value, str) else value
        except ValueError as exc:
            self.fail(str(exc), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return str(self._kind.metavar())


class GroupedCommand(click.Command):
    """A command whose options are listed under the headings of the table."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {option.group: [] for option in OPTIONS}
        group_of = {option.name: option.group for option in OPTIONS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                groups[group_of.get(param.name or "", "Configuration")].append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records, col_max=24)


def click_options() -> Iterator[click.Option]:
    """One click option for each entry of the table.

    None has a default, so that what the command line gives can be told from what it leaves out.
    """
    for option in OPTIONS:
        flag = option.flag
        if option.negatable:
            flag += "/--no-" + option.flag.removeprefix("--")
        if option.is_switch:
            yield click.Option([option.name, flag], is_flag=True, default=None, help=_help_text(option))
        else:
            yield click.Option(
                [option.name, flag],
                type=_KindType(option),
                multiple=option.many,
                default=None,
                help=_help_text(option),
            )


def from_context(ctx: click.Context) -> Layer:
    """The layer of what stood on the command line."""
    layer: dict[str, Raw] = {}
    for option in (APP, *OPTIONS):
        source = ctx.get_parameter_source(option.name)
        if source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[option.name]
        layer[option.name] = Raw(list(value) if option.many else value, option.flag or "APP")
    return layer


def _default_text(option: Option) -> str:
    if option.default_text:
        return option.default_text
    if option.default in (None, "") or (option.default is False and not option.negatable):
        return ""
    if option.default is True or option.default is False:
        return "on" if option.default else "off"
    return str(option.default)


def _help_text(option: Option) -> str:
    default = _default_text(option)
    return f"{option.help} [default: {default}]" if default else option.help


def masked(argv: Sequence[str]) -> list[str]:
    """A command line as it may be shown."""
    flags = [option.flag for option in OPTIONS if option.secret]
    shown: list[str] = []
    for argument in argv:
        if shown and shown[-1] in flags:
            argument = MASK
        flag, equals, _ = argument.partition("=")
        shown.append(f"{flag}={MASK}" if equals and flag in flags else argument)
    return shown


def effective_listing(resolved: Resolved) -> str:
    """Every effective value with its source, one a line, secrets masked."""
    names = [APP.name, *(option.name for option in OPTIONS)]
    width = max(len(name) for name in names)
    return "\n".join(f"{name:<{width}} = {resolved.shown(name)}  # {resolved.places[name]}" for name in names)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the YAML file, for editors."""
    properties: dict[str, Any] = {}
    for option in (APP, *OPTIONS):
        if option.taker == "command":
            continue
        kinds = [option.kind.schema(), {"$ref": "#/$defs/variable"}]
        if option.default is None or option.nullable:
            kinds.append({"type": "null"})
        schema: dict[str, Any] = {"anyOf": kinds}
        schema["description"] = _help_text(option)
        if option.default is not None:
            schema["default"] = option.default
        properties[option.name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "uvicorn configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": {
            "variable": {
                "description": "A text with an environment variable in it: what it will hold is not known yet.",
                "type": "string",
                "pattern": r"\$\{",
            }
        },
    }


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2) + "\n"


_ON_RELOAD_TEXT = {
    "workers": "new workers have it",
    "binds": "sockets open and close",
    "master": "at once",
    "restart": "needs a restart",
}

_PAGE_HEAD = """\
<!-- Generated from uvicorn/settings/table.py by `python -m uvicorn.settings`. Do not edit. -->

# Settings

Every setting can be given on the command line, in the environment, in a YAML file (`--config FILE` or
`$UVICORN_CONFIG`), and as an argument of `uvicorn.run()` and `uvicorn.Config()`. The command line goes before the
environment, the environment before the file, the file before the default. `uvicorn --check-config` prints every
effective value with its source. A variable whose name is nearly that of a setting is warned of, and ignored.

Times are in seconds, or texts such as `250ms`, `30s`, `5m`, `2h`. Sizes are in bytes, or texts such as `16K`,
`512M`, `2G`. In YAML, `${NAME}` and `${NAME:-default}` stand for environment variables.

The last column says what a reload (SIGHUP) does with a change of the setting.
"""


def settings_page() -> str:
    """docs/settings.md."""
    parts = [_PAGE_HEAD]
    groups = dict.fromkeys(option.group for option in OPTIONS)
    for group in groups:
        parts.append(
            f"\n## {group}\n\n| setting | command line | environment | default | what it does | reload |"
        )
        parts.append("\n|---|---|---|---|---|---|\n")
        parts.extend(_page_row(option) for option in _with_app(group))
    return "".join(parts)


def _with_app(group: str) -> Iterable[Option]:
    if group == APP.group:
        yield APP
    yield from (option for option in OPTIONS if option.group == group)


def _page_row(option: Option) -> str:
    flag = f"`{option.flag}`" if option.flag else "`APP`"
    if option.negatable:
        flag += f"<br>`--no-{option.flag.removeprefix('--')}`"
    variables = "<br>".join(f"`{name}`" for name in (option.env_name, *option.env))
    help_text = option.help.replace("|", "\\|")
    if option.since != "0.37.0":
        help_text += f" *New in {option.since}.*"
    default = _default_text(option)
    reload_text = _ON_RELOAD_TEXT[option.on_reload]
    return f"| `{option.name}` | {flag} | {variables} | {default} | {help_text} | {reload_text} |\n"


def _generated_files(root: Path) -> dict[Path, str]:
    return {
        root / "docs" / "settings.md": settings_page(),
        root / "uvicorn" / "settings" / "schema.json": schema_text(),
    }


def write_or_check(arguments: list[str], root: Path = ROOT) -> int:
    stale = [
        path
        for path, text in _generated_files(root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in arguments:
        for path in stale:
            print(f"{path} is out of date: run python -m uvicorn.settings")  # noqa: T201 - a tool's output
        return 1 if stale else 0
    for path, text in _generated_files(root).items():
        path.write_text(text, encoding="utf-8")
    return 0

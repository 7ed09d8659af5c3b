"""What is made from the table: click options, grouped help, JSON Schema, the settings page, the listing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from tests.settings.schema_check import ANNOTATIONS, KEYWORDS, satisfies
from uvicorn.settings import derived
from uvicorn.settings.derived import (
    GroupedCommand,
    click_options,
    effective_listing,
    from_context,
    json_schema,
    masked,
    schema_text,
    settings_page,
)
from uvicorn.settings.layers import Layer, Raw, merge
from uvicorn.settings.table import APP, BY_NAME, OPTIONS, Option

REPOSITORY = Path(__file__).parents[2]


def parsed(*arguments: str) -> Layer:
    """The layer of a command line."""
    layers = []
    command = GroupedCommand(
        name="serve",
        params=[click.Argument(["app"], required=False), *click_options()],
        callback=click.pass_context(lambda ctx, **_: layers.append(from_context(ctx))),
    )
    command.main(list(arguments), standalone_mode=False)
    return layers[0]


def help_text(columns: str = "200") -> str:
    command = GroupedCommand(
        name="serve",
        params=[click.Argument(["app"]), *click_options(), click.Option(["--extra"], help="More.")],
        context_settings={"max_content_width": 80},
    )
    result = CliRunner(env={"COLUMNS": columns}).invoke(command, ["--help"])
    assert result.exit_code == 0
    return result.output


def sections(text: str) -> dict[str, str]:
    """The help's sections by heading, with the lines of each joined."""
    found: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        if line and not line.startswith(" ") and line.endswith(":"):
            heading = line.removesuffix(":")
            found[heading] = ""
        elif heading:
            found[heading] += " " + " ".join(line.split())
    return found


# --- click options ---------------------------------------------------------------------------------


def test_each_option_of_the_table_is_a_click_option() -> None:
    made = list(click_options())
    assert [option.name for option in made] == [option.name for option in OPTIONS]
    for option, entry in zip(made, OPTIONS, strict=True):
        assert option.opts == [entry.flag]
        negative = f"--no-{entry.flag.removeprefix('--')}"
        assert option.secondary_opts == ([negative] if entry.negatable else [])
        assert option.multiple is entry.many
        assert option.is_flag is entry.is_switch


def test_flags_are_those_of_old() -> None:
    negatable = {entry.name for entry in OPTIONS if entry.negatable}
    assert negatable == {
        "access_log",
        "use_colors",
        "proxy_headers",
        "server_header",
        "date_header",
        "tune_gc",
    }
    singular = {
        entry.name: entry.flag for entry in OPTIONS if entry.flag != "--" + entry.name.replace("_", "-")
    }
    assert singular == {
        "headers": "--header",
        "reload_dirs": "--reload-dir",
        "reload_includes": "--reload-include",
        "reload_excludes": "--reload-exclude",
    }


def test_layer_holds_only_what_stands_on_the_command_line() -> None:
    assert parsed() == {}
    assert parsed("a:b", "--port", "0", "--no-access-log") == {
        "app": Raw("a:b", "APP"),
        "port": Raw(0, "--port"),
        "access_log": Raw(False, "--access-log"),
    }


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--reload"], "reload", True),
        (["--factory"], "factory", True),
        (["--use-colors"], "use_colors", True),
        (["--no-use-colors"], "use_colors", False),
        (["--ws-per-message-deflate", "no"], "ws_per_message_deflate", False),
        (["--timeout-keep-alive", "2m"], "timeout_keep_alive", 120),
        (["--ws-max-size", "1M"], "ws_max_size", 1048576),
        (["--workers", "auto"], "workers", "auto"),
        (["--log-level", "trace"], "log_level", "trace"),
        (["--log-level", "TRACE"], "log_level", "trace"),
        (["--loop", "mod:loop"], "loop", "mod:loop"),
        (["--bind", ":1", "--bind", "unix:a,b"], "bind", [":1", "unix:a,b"]),
        (["--reload-include", "*.a *.b", "--reload-include", "c"], "reload_includes", ["*.a *.b", "c"]),
        (["--reload-dir", "a:b"], "reload_dirs", ["a:b"]),
        (["--header", "A: b: c  d", "--header", "E:"], "headers", [["A", "b: c  d"], ["E", ""]]),
    ],
)
def test_argument_is_read_as_its_kind_says(arguments: list[str], name: str, value: object) -> None:
    layer = parsed(*arguments)
    assert layer == {name: Raw(value, BY_NAME[name].flag)}
    assert merge([layer]).values[name] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "x"], "'x' is not a valid integer."),
        (["--port", "70000"], "70000 is too large: at most 65535."),
        (
            ["--log-level", "LOUD"],
            "'LOUD' is not one of 'critical', 'error', 'warning', 'info', 'debug', 'trace'.",
        ),
        (["--header", "x"], "'x' is not of the form 'Name:Value'."),
        (["--bind", "x"], "'x' is not HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N or systemd:NAME."),
        (["--ws-per-message-deflate", "maybe"], "'maybe' is not a valid boolean."),
    ],
)
def test_argument_that_will_not_do_is_a_bad_parameter(arguments: list[str], message: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        parsed(*arguments)
    assert caught.value.format_message() == f"Invalid value for '{arguments[0]}': {message}"


@pytest.mark.parametrize("flag", ["--no-reload", "--no-factory", "--no-reuse-port"])
def test_plain_switch_has_no_negative_form(flag: str) -> None:
    with pytest.raises(click.NoSuchOption):
        parsed(flag)


def test_value_that_is_no_text_is_left_to_the_layers() -> None:
    port = next(option for option in click_options() if option.name == "port")
    assert port.type_cast_value(click.Context(click.Command("x")), 5) == 5


# --- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_fits_80_columns(columns: str) -> None:
    assert max(map(len, help_text(columns).splitlines())) <= 80


def test_help_is_grouped_as_the_table_is() -> None:
    found = sections(help_text())
    assert list(found) == list(dict.fromkeys(option.group for option in OPTIONS))
    for option in OPTIONS:
        assert f" {option.flag} " in found[option.group]


def test_help_leaves_what_is_not_in_the_table_to_the_last_group() -> None:
    found = sections(help_text())
    assert "--extra TEXT More." in found["Configuration"]
    assert "--help" in found["Configuration"]


def test_help_does_not_list_the_argument() -> None:
    assert "APP" not in sections(help_text())["Configuration"]


@pytest.mark.parametrize(
    ("flag", "default"),
    [
        ("--port", "8000"),
        ("--host", "127.0.0.1"),
        ("--access-log / --no-access-log", "on"),
        ("--ws-per-message-deflate", "on"),
        ("--app-dir", "the current directory"),
        ("--timeout-keep-alive", "5"),
        ("--shutdown-delay", "0"),
        ("--limit-concurrency", "no limit"),
    ],
)
def test_help_shows_the_default(flag: str, default: str) -> None:
    text = " ".join(help_text().split())
    entry = text[text.index(f" {flag} ") :]
    assert entry[entry.index("[default: ") :].startswith(f"[default: {default}]")


@pytest.mark.parametrize("name", ["reload", "uds", "root_path", "env_file", "ssl_keyfile"])
def test_help_shows_no_default_where_there_is_none(name: str) -> None:
    option = next(option for option in click_options() if option.name == name)
    assert "default" not in (option.help or "")


def test_default_that_is_off_is_shown_where_the_switch_has_two_forms() -> None:
    option = Option(
        name="x", default=False, kind=BY_NAME["reload"].kind, group="", help="X.", flag="--x", negatable=True
    )
    assert derived._default_text(option) == "off"


# --- JSON Schema -----------------------------------------------------------------------------------


def subschemas(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema and every schema in it."""
    inner = list(schema.get("anyOf", ())) + list(schema.get("properties", {}).values())
    inner += schema.get("$defs", {}).values()
    inner += [
        schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)
    ]
    return [schema, *(found for each in inner for found in subschemas(each))]


def test_schema_uses_only_known_keywords_and_no_dead_reference() -> None:
    schema = json_schema()
    for each in subschemas(schema):
        assert set(each) <= ANNOTATIONS | set(KEYWORDS)
        assert "$ref" not in each or each["$ref"].removeprefix("#/$defs/") in schema["$defs"]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_schema_has_every_setting_a_file_may_have() -> None:
    names = [APP.name, *(option.name for option in OPTIONS if option.name != "config")]
    schema = json_schema()
    assert list(schema["properties"]) == names
    assert not satisfies({"prot": 1}, schema)
    assert not satisfies({"config": "x.yaml"}, schema)
    assert not satisfies([], schema)


@pytest.mark.parametrize("option", [APP, *OPTIONS], ids=lambda option: option.name)
def test_default_satisfies_the_schema_and_its_own_kind(option: Option) -> None:
    schema = json_schema()
    if option.taker != "command":
        assert satisfies({option.name: option.default}, schema)
        assert schema["properties"][option.name].get("default") == option.default
    if option.default is not None:
        assert option.kind.accept(option.default) == option.default


def test_all_defaults_together_satisfy_the_schema() -> None:
    defaults = {option.name: option.default for option in OPTIONS if option.taker != "command"}
    assert satisfies(defaults, json_schema())


@pytest.mark.parametrize(
    "name", ["port", "access_log", "workers", "headers", "lifespan", "timeout_keep_alive"]
)
def test_any_setting_may_be_an_environment_variable(name: str) -> None:
    assert satisfies({name: "${SOMETHING:-1}"}, json_schema())


@pytest.mark.parametrize(
    "settings", [{"port": "x"}, {"port": None}, {"lifespan": "maybe"}, {"headers": 3}, {"access_log": "on"}]
)
def test_schema_marks_what_the_server_would_refuse_or_only_tolerates(settings: dict[str, Any]) -> None:
    assert not satisfies(settings, json_schema())


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("examples/*.yaml")), ids=lambda path: path.name)
def test_example_satisfies_the_schema(path: Path) -> None:
    assert satisfies(yaml.safe_load(path.read_text(encoding="utf-8")), json_schema())


def test_schema_text_is_the_schema() -> None:
    assert json.loads(schema_text()) == json_schema()
    assert schema_text().endswith("}\n")


# --- listing and page ------------------------------------------------------------------------------


def test_listing_has_a_line_for_each_setting_with_its_source() -> None:
    layer = {"port": Raw(9000, "a.yaml:3"), "ssl_keyfile_password": Raw("hunter2", "$SECRET")}
    lines = effective_listing(merge([layer])).splitlines()
    assert [line.split()[0] for line in lines] == ["app", *BY_NAME]
    shown = {line.split()[0]: line.split(" = ", 1)[1] for line in lines}
    assert shown["port"] == "9000  # a.yaml:3"
    assert shown["ssl_keyfile_password"] == "********  # $SECRET"
    assert shown["host"] == "'127.0.0.1'  # default"
    assert "hunter2" not in "".join(lines)


def test_listing_is_aligned() -> None:
    assert len({line.index(" = ") for line in effective_listing(merge([])).splitlines()}) == 1


def test_page_has_a_row_for_each_setting_under_its_group() -> None:
    page = settings_page()
    groups = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert groups == list(dict.fromkeys(option.group for option in OPTIONS))
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [row[0].strip("| `") for row in rows] == ["app", *BY_NAME]
    assert all(len(row) == 6 for row in rows)


def test_page_tells_spellings_versions_and_what_a_reload_does() -> None:
    page = settings_page()
    assert "| `app` | `APP` | `UVICORN_APP` |" in page
    assert "| `workers` | `--workers` | `UVICORN_WORKERS`<br>`WEB_CONCURRENCY` |" in page
    assert "`--access-log`<br>`--no-access-log`" in page
    row = next(line for line in page.splitlines() if line.startswith("| `reuse_port` |"))
    assert row.endswith("*New in 0.37.0+.* | sockets open and close |")


# --- generated files -------------------------------------------------------------------------------


def test_generated_files_are_up_to_date() -> None:
    assert derived.write_or_check(["--check"]) == 0


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "uvicorn" / "settings").mkdir(parents=True)
    return tmp_path


def test_check_names_each_file_that_is_missing_or_stale(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = checkout / "uvicorn" / "settings" / "schema.json"
    schema.write_text("{}")
    assert derived.write_or_check(["--check"], checkout) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{path} is out of date: run python -m uvicorn.settings"
        for path in (checkout / "docs" / "settings.md", schema)
    ]
    assert schema.read_text() == "{}"


def test_files_are_written(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert derived.write_or_check([], checkout) == 0
    assert (checkout / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page()
    assert derived.write_or_check(["--check"], checkout) == 0
    assert capsys.readouterr().out == ""


# --- command line ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["uvicorn", "app:app", "--port", "80"], ["uvicorn", "app:app", "--port", "80"]),
        (["--ssl-keyfile-password", "hunter2", "app:app"], ["--ssl-keyfile-password", "********", "app:app"]),
        (["--ssl-keyfile-password=hunter2", "x=y"], ["--ssl-keyfile-password=********", "x=y"]),
    ],
)
def test_command_line_is_shown_without_its_secrets(given: list[str], shown: list[str]) -> None:
    assert masked(given) == shown

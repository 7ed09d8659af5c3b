"""Kinds of values: what each reads from text, what it accepts as it comes, what it refuses and how it says so."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.settings.schema_check import satisfies
from uvicorn.settings.kinds import (
    AddressList,
    BindAddress,
    Boolean,
    Choice,
    Duration,
    HeaderField,
    HeaderList,
    Importable,
    Integer,
    Kind,
    ListOf,
    LogConfig,
    LogLevel,
    PathText,
    Secret,
    Size,
    TcpAddress,
    WorkerCount,
)
from uvicorn.settings.table import OPTIONS

KINDS = [option.kind for option in OPTIONS]
LOOPS = Choice(names=("none", "auto"), importable=True)
LEVELS = LogLevel(names=("info", "debug"))


class Implementation:
    """Something that can be called, as a protocol class can."""


def refusal(kind: Kind, value: Any) -> str:
    with pytest.raises(ValueError, match=r"\.\Z") as caught:
        kind.accept(value)
    return str(caught.value)


def outcome(read: Callable[[Any], Any], value: Any) -> tuple[Any, str]:
    """The value that is read and "", or None and why it is refused."""
    try:
        return read(value), ""
    except ValueError as exc:
        return None, str(exc)


# --- text ------------------------------------------------------------------------------------------


def test_text_stays_as_it_is() -> None:
    assert Kind().parse(" a b ") == " a b "


@pytest.mark.parametrize("value", [1, None, True, ["a"], {"a": 1}])
def test_text_that_is_none_is_refused(value: object) -> None:
    assert refusal(Kind(), value) == f"{value!r} is not text."


def test_secret_keeps_text() -> None:
    assert Secret().parse("hunter2") == "hunter2"


def test_secret_refusal_does_not_repeat_the_value() -> None:
    assert refusal(Secret(), 12345) == "the value is not text: put it in quotes."


@pytest.mark.parametrize("value", ["/a", b"/a", pathlib.Path("/a")])
def test_path_accepts_text_bytes_and_path_objects(value: object) -> None:
    assert PathText().accept(value) is value


def test_path_refuses_a_number() -> None:
    assert refusal(PathText(), 7) == "7 is not a path."


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", ":0", "unix:/run/x", "fd://3", "systemd:web"])
def test_bind_address_keeps_the_text(text: str) -> None:
    assert BindAddress().parse(text) == text


@pytest.mark.parametrize("text", ["host", "host:99x", "fd://x", ""])
def test_bind_address_that_means_nothing_is_refused(text: str) -> None:
    message = f"{text!r} is not HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N or systemd:NAME."
    assert refusal(BindAddress(), text) == message


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", ":0"])
def test_tcp_address_keeps_the_text(text: str) -> None:
    assert TcpAddress().parse(text) == text


@pytest.mark.parametrize("text", ["host", "host:99x", "unix:/run/x", "fd://3", "systemd:web", ""])
def test_what_is_no_tcp_address_is_refused(text: str) -> None:
    assert refusal(TcpAddress(), text) == f"{text!r} is not HOST:PORT or [IPV6]:PORT."


def test_bind_address_that_is_a_number_is_refused() -> None:
    assert refusal(BindAddress(), 8000) == "8000 is not text."


# --- booleans and numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1", "true", "T", "yes", "Y", " on "])
def test_boolean_text_for_true(text: str) -> None:
    assert Boolean().parse(text) is True
    assert Boolean().accept(text) is True


@pytest.mark.parametrize("text", ["0", "false", "F", "no", "N", "OFF"])
def test_boolean_text_for_false(text: str) -> None:
    assert Boolean().parse(text) is False


def test_boolean_text_for_neither_is_refused() -> None:
    assert refusal(Boolean(), "maybe") == "'maybe' is not a valid boolean."


@pytest.mark.parametrize("value", [1, 0, None, []])
def test_boolean_of_another_type_is_refused(value: object) -> None:
    assert refusal(Boolean(), value) == f"{value!r} is not a valid boolean: write true or false."


@pytest.mark.parametrize("value", [True, False])
def test_boolean_stays(value: bool) -> None:
    assert Boolean().accept(value) is value


@pytest.mark.parametrize(("value", "number"), [(7, 7), ("7", 7), (" -7 ", -7)])
def test_integer_is_read(value: object, number: int) -> None:
    assert Integer().accept(value) == number


@pytest.mark.parametrize("value", ["x", "", "1.5", True, 1.0, None])
def test_integer_that_is_none_is_refused(value: object) -> None:
    assert refusal(Integer(), value) == f"{value!r} is not a valid integer."


@pytest.mark.parametrize(
    ("value", "message"),
    [(-1, "-1 is too small: at least 0."), ("65536", "65536 is too large: at most 65535.")],
)
def test_integer_out_of_bounds_is_refused(value: object, message: str) -> None:
    assert refusal(Integer(0, 65535), value) == message


@pytest.mark.parametrize("value", [0, 65535])
def test_integer_at_its_bounds_is_accepted(value: int) -> None:
    assert Integer(0, 65535).accept(value) == value


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (5, 5),
        (2.5, 2.5),
        ("5", 5),
        ("250ms", 0.25),
        ("30s", 30),
        ("30 S", 30),
        ("5m", 300),
        ("5min", 300),
        ("1.5h", 5400),
        ("1d", 86400),
    ],
)
def test_duration_is_read_in_seconds(value: object, seconds: float) -> None:
    assert Duration().accept(value) == seconds


@pytest.mark.parametrize("value", ["5", "30s", 5.0])
def test_duration_that_is_whole_is_an_integer(value: object) -> None:
    assert type(Duration().accept(value)) is int


@pytest.mark.parametrize("text", ["x", "5 weeks", "-1s", "1e3", "", "s", "5K"])
def test_duration_text_that_is_none_is_refused(text: str) -> None:
    message = f"{text!r} is not a valid duration: give seconds, or a number with ms, s, m, h or d."
    assert refusal(Duration(), text) == message


@pytest.mark.parametrize("value", [True, None, float("inf"), float("nan"), [1]])
def test_duration_of_another_type_is_refused(value: object) -> None:
    assert refusal(Duration(), value) == f"{value!r} is not a valid duration."


@pytest.mark.parametrize("value", ["9" * 400, "9" * 400 + "h", 10**400])
def test_duration_beyond_all_numbers_is_refused(value: object) -> None:
    assert refusal(Duration(), value).endswith("is not a valid duration.")


def test_duration_below_its_minimum_is_refused() -> None:
    assert refusal(Duration(0.1), "50ms") == "0.05 is too small: at least 0.1."


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (100, 100),
        ("100", 100),
        ("100b", 100),
        ("16K", 16384),
        ("16kb", 16384),
        ("16 KiB", 16384),
        ("1.5m", 1572864),
        ("2G", 2147483648),
        ("9007199254740993", 9007199254740993),
        ("9" * 400, int("9" * 400)),
    ],
)
def test_size_is_read_in_bytes(value: object, size: int) -> None:
    assert Size().accept(value) == size


@pytest.mark.parametrize("text", ["x", "1T", "-5", "", "30s"])
def test_size_text_that_is_none_is_refused(text: str) -> None:
    assert (
        refusal(Size(), text) == f"{text!r} is not a valid integer: give bytes, or a number with K, M or G."
    )


@pytest.mark.parametrize("value", [1.5, True, None])
def test_size_of_another_type_is_refused(value: object) -> None:
    assert refusal(Size(), value) == f"{value!r} is not a valid integer."


def test_size_below_its_minimum_is_refused() -> None:
    assert refusal(Size(1024), "1000") == "1000 is too small: at least 1024."


# --- names -----------------------------------------------------------------------------------------


def test_choice_accepts_its_names_alone() -> None:
    kind = Choice(names=("auto", "on"))
    assert kind.accept("auto") == "auto"
    assert refusal(kind, "AUTO") == "'AUTO' is not one of 'auto', 'on'."
    assert refusal(kind, "mod:attr") == "'mod:attr' is not one of 'auto', 'on'."
    assert refusal(kind, len) == "<built-in function len> is not one of 'auto', 'on'."
    assert refusal(kind, 3) == "3 is not one of 'auto', 'on'."


@pytest.mark.parametrize("value", ["none", "module:attribute", Implementation])
def test_importable_choice_accepts_import_strings_and_objects(value: object) -> None:
    assert LOOPS.accept(value) is value


@pytest.mark.parametrize("value", ["uvlop", 3])
def test_importable_choice_that_is_neither_is_refused(value: object) -> None:
    message = f"{value!r} is not one of 'none', 'auto', nor an import string of the form 'module:attribute'."
    assert refusal(LOOPS, value) == message


@pytest.mark.parametrize(("value", "name"), [(True, "on"), (False, "off")])
def test_choice_takes_a_boolean_of_yaml_for_on_and_off(value: bool, name: str) -> None:
    assert Choice(names=("auto", "on", "off")).accept(value) == name


def test_choice_without_on_and_off_refuses_a_boolean() -> None:
    assert refusal(Choice(names=("auto",)), True) == "'on' is not one of 'auto'."


@pytest.mark.parametrize(("value", "count"), [("auto", "auto"), (" AUTO ", "auto"), ("4", 4), (1, 1), (0, 0)])
def test_worker_count_is_a_number_or_auto(value: object, count: object) -> None:
    assert WorkerCount().accept(value) == count


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "-1 is too small: at least 0."),
        (513, "513 is too large: at most 512."),
        ("many", "'many' is not a valid integer."),
    ],
)
def test_worker_count_out_of_bounds_is_refused(value: object, message: str) -> None:
    assert refusal(WorkerCount(), value) == message


def test_importable_may_be_the_function_itself() -> None:
    assert Importable().accept(len) is len


@pytest.mark.parametrize("value", ["info", 0, 5])
def test_log_level_is_a_name_or_a_number(value: object) -> None:
    assert LEVELS.accept(value) == value


@pytest.mark.parametrize("value", ["INFO", "Info", "iNFO"])
def test_log_level_is_a_name_in_any_case(value: str) -> None:
    assert LEVELS.accept(value) == "info"


@pytest.mark.parametrize("value", ["LOUD", "info ", "5", -1, True, None])
def test_log_level_that_is_neither_is_refused(value: object) -> None:
    assert refusal(LEVELS, value) == f"{value!r} is not one of 'info', 'debug'."


def test_log_config_copies_a_mapping() -> None:
    given = {"version": 1}
    taken = LogConfig().accept(given)
    assert taken == given
    assert taken is not given


def test_log_config_keeps_a_path() -> None:
    assert LogConfig().parse("log.yaml") == "log.yaml"


def test_log_config_that_is_neither_is_refused() -> None:
    assert refusal(LogConfig(), 3) == "3 is neither a path nor a mapping."


# --- lists -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split_at", "text", "parts"),
    [
        (None, " a  b\tc ", ["a", "b", "c"]),
        (",", "a, b,,c", ["a", "b", "c"]),
        (":", "/a b:/c", ["/a b", "/c"]),
        (None, "", []),
    ],
)
def test_list_in_one_text_is_split(split_at: str | None, text: str, parts: list[str]) -> None:
    assert ListOf(split_at=split_at).parse(text) == parts


def test_list_accepts_one_value_for_a_list_of_one() -> None:
    assert ListOf(split_at=",").accept("a,b") == ["a,b"]


def test_list_checks_each_item() -> None:
    assert ListOf(item=Integer()).accept(["1", 2]) == [1, 2]
    assert refusal(ListOf(item=Integer()), ["1", "x"]) == "'x' is not a valid integer."


@pytest.mark.parametrize("value", [3, {"a": 1}, None])
def test_list_that_is_none_is_refused(value: object) -> None:
    assert refusal(ListOf(), value) == f"{value!r} is not a list."


@pytest.mark.parametrize("value", ["127.0.0.1,10.0.0.0/8", "*", ["a", "b"]])
def test_address_list_is_text_or_a_list(value: object) -> None:
    assert AddressList().accept(value) == value


@pytest.mark.parametrize("value", [3, [3]])
def test_address_list_that_is_neither_is_refused(value: object) -> None:
    assert refusal(AddressList(), value) in ("3 is not a list.", "3 is not text.")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("Name:value", ["Name", "value"]),
        ("Name:  a: b \t", ["Name", "a: b"]),
        ("Name:", ["Name", ""]),
        ("A: tab\tinside", ["A", "tab\tinside"]),
        ("A: \xe9", ["A", "\xe9"]),
        (["Name", "value"], ["Name", "value"]),
        (("Name", 5), ["Name", "5"]),
        ({"Name": 1.5}, ["Name", "1.5"]),
    ],
)
def test_header_field_is_a_pair_of_texts(value: object, field: list[str]) -> None:
    assert HeaderField().accept(value) == field


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no colon", "'no colon' is not of the form 'Name:Value'."),
        (3, "3 is not a header field."),
        (["a"], "['a'] is not a header field."),
        ({"a": 1, "b": 2}, "{'a': 1, 'b': 2} is not a header field."),
        (["a", None], "['a', None] is not a header field of two texts."),
        (["a", True], "['a', True] is not a header field of two texts."),
        ([3, "a"], "[3, 'a'] is not a header field of two texts."),
        (":x", "['', 'x'] cannot be sent as a header field."),
        ("a b:x", "['a b', 'x'] cannot be sent as a header field."),
        ("a\n:x", "['a\\n', 'x'] cannot be sent as a header field."),
        ("a:x\r\ny", "['a', 'x\\r\\ny'] cannot be sent as a header field."),
        ("a:\x00", "['a', '\\x00'] cannot be sent as a header field."),
        ("a:\u20ac", "['a', '\u20ac'] cannot be sent as a header field."),
    ],
)
def test_header_field_that_cannot_be_sent_is_refused(value: object, message: str) -> None:
    assert refusal(HeaderField(), value) == message


@pytest.mark.parametrize(
    "value", [{"a": "1", "b": 2}, ["a: 1", "b: 2"], [["a", "1"], {"b": 2}], (("a", "1"), ("b", "2"))]
)
def test_header_list_may_be_written_in_several_ways(value: object) -> None:
    assert HeaderList().accept(value) == [["a", "1"], ["b", "2"]]


def test_header_list_of_one_text_is_one_field() -> None:
    assert HeaderList().accept("a: b c: d") == [["a", "b c: d"]]


def test_header_list_in_the_environment_is_split_at_white_space() -> None:
    assert HeaderList().parse("a:b c:d") == [["a", "b"], ["c", "d"]]


def test_header_list_that_is_none_is_refused() -> None:
    assert refusal(HeaderList(), 3) == "3 is not a list."


# --- all kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*dict.fromkeys(KINDS)], ids=repr)
@given(text=st.text())
def test_any_text_is_a_value_or_a_value_error(kind: Kind, text: str) -> None:
    for read in (kind.parse, kind.accept):
        taken, reason = outcome(read, text)
        assert reason.endswith(".") if taken is None else not reason


@pytest.mark.parametrize("kind", [*dict.fromkeys(KINDS)], ids=repr)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        ),
        max_leaves=5,
    )
)
def test_any_yaml_value_is_a_value_or_a_value_error(kind: Kind, value: object) -> None:
    taken, reason = outcome(kind.accept, value)
    if taken is None:
        assert reason.endswith(".")
    else:
        # What was accepted once is accepted again, as the same: values pass through more than one layer.
        assert kind.accept(taken) == taken


@given(number=st.integers(0, 10**12), unit=st.sampled_from(["", "ms", "s", "m", "min", "h", "d"]))
def test_duration_grows_with_its_unit(number: int, unit: str) -> None:
    factor = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[unit]
    assert Duration().parse(f"{number}{unit}") == pytest.approx(number * factor)


@given(number=st.integers(0, 10**30), unit=st.sampled_from(["", "K", "M", "G"]))
def test_size_is_exact(number: int, unit: str) -> None:
    assert Size().parse(f"{number}{unit}") == number * 1024 ** ["", "K", "M", "G"].index(unit)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind(), ["x" * 1000] * 1000),
        (Boolean(), {"x" * 1000: "y" * 1000}),
        (LOOPS, ["x" * 1000]),
        (ListOf(), {"x": ["y"] * 1000}),
        (HeaderField(), "x" * 1000),
        (Integer(), "x" * 1000),
        (Integer(), "9" * 10_000),
        (Duration(), "x" * 1000),
        (Duration(), 10**1000),
        (Size(), "x" * 1000),
    ],
    ids=lambda each: type(each).__name__,
)
def test_refusal_of_a_long_value_is_short(kind: Kind, value: object) -> None:
    assert len(refusal(kind, value)) < 200


def test_refusal_of_nested_aliases_is_made_at_once() -> None:
    value: list[Any] = ["x"]
    for _ in range(60):
        value = [value] * 10
    assert len(refusal(Integer(), value)) < 100


@pytest.mark.parametrize(
    ("kind", "metavar"),
    [
        (Kind(), "TEXT"),
        (Secret(), "TEXT"),
        (PathText(), "PATH"),
        (LogConfig(), "PATH"),
        (BindAddress(), "TEXT"),
        (Boolean(), "BOOLEAN"),
        (Integer(), "INTEGER"),
        (Duration(), "SECONDS"),
        (Size(), "BYTES"),
        (LOOPS, "[none|auto]"),
        (LEVELS, "[info|debug]"),
        (Importable(), "MODULE:ATTRIBUTE"),
        (WorkerCount(), "INTEGER"),
        (ListOf(item=PathText()), "PATH"),
        (HeaderList(), "TEXT"),
        (AddressList(), "TEXT"),
    ],
    ids=repr,
)
def test_metavar_says_what_is_expected(kind: Kind, metavar: str) -> None:
    assert kind.metavar() == metavar


# What an editor accepts of a YAML file, the server accepts, and what the server refuses the editor marks.
@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Kind(), ["", "x"], [1, None, True]),
        (Secret(), ["x"], [1]),
        (PathText(), ["/a"], [1]),
        (BindAddress(), [":1", "unix:/a", "fd://3", "systemd:x", "[::1]:80"], [1]),
        (Boolean(), [True, False], [1, None]),
        (Integer(0, 9), [0, 9], [-1, 10, 1.5, True]),
        (Integer(), [-5], [None]),
        (Duration(1), [1, 1.5, "30s", "2 h", "250", "1.5m"], [0, "x", "5K", True, None]),
        (Size(1024), [1024, "16K", "1.5 GiB", "2048"], [1, 1.5, "x", "30s", True]),
        (LOOPS, ["none", "a.b:c"], ["x", 3]),
        (Choice(names=("on", "off")), ["on"], ["x", "a:b"]),
        (LEVELS, ["info", "INFO", "Debug", 0, 50], ["LOUD", "infos", -1, True]),
        (Importable(), ["a.b:c", "a:b.c"], ["a", "a:", ":a", "a:b:c", 3, None]),
        (WorkerCount(), [0, 4, "auto"], [-1, 513, True]),
        (LogConfig(), ["a.yaml", {"version": 1}], [3, ["x"]]),
        (ListOf(item=PathText()), ["a", [], ["a", "b"]], [3, [3], {"a": "b"}]),
        (AddressList(), ["*", ["a", "b"]], [3, [3]]),
        (HeaderField(), ["a: b", ["a", "b"], {"a": 1}], ["a", ["a"], ["a", True], {}, {"a": 1, "b": 2}, 3]),
        (HeaderList(), ["a: b", [], [["a", 1.5]], [{"a": "b"}], {"a": 1, "b": "c"}], [3, ["a"], {"a": True}]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_schema_agrees_with_what_is_accepted(kind: Kind, good: list[Any], bad: list[Any]) -> None:
    schema = kind.schema()
    for value in good:
        assert satisfies(value, schema), value
        assert outcome(kind.accept, value)[1] == "", value
    for value in bad:
        assert not satisfies(value, schema), value
        assert outcome(kind.accept, value)[0] is None, value

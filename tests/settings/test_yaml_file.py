"""The YAML file: values with line numbers, variables, and everything that can be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn.settings.layers import Raw
from uvicorn.settings.yaml_file import MAX_FILE_SIZE, MAX_VALUES, from_yaml

ENVIRON = {"PORT": "9000", "EMPTY": "", "NAME": "web"}


def read(tmp_path: Path, text: str | bytes, environ: dict[str, str] | None = None) -> Any:
    """The values and the problems of a file with this content; its path is shown as FILE."""
    path = tmp_path / "uvicorn.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    layer, problems = from_yaml(path, ENVIRON if environ is None else environ)
    return layer, [str(problem).replace(str(path), "FILE") for problem in problems]


def values(tmp_path: Path, text: str) -> dict[str, Any]:
    layer, problems = read(tmp_path, text)
    assert problems == []
    return {name: raw.value for name, raw in layer.items()}


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    return list(read(tmp_path, text)[1])


def value_of(tmp_path: Path, text: str) -> Any:
    return values(tmp_path, f"key: {text}\n")["key"]


def test_values_carry_the_line_they_stand_on(tmp_path: Path) -> None:
    layer, found = read(tmp_path, "# a comment\nport: 8000\n\nheaders:\n  - 'a: b'\napp: main:app\n")
    path = tmp_path / "uvicorn.yaml"
    assert found == []
    assert layer == {
        "port": Raw(8000, f"{path}:2"),
        "headers": Raw(["a: b"], f"{path}:4"),
        "app": Raw("main:app", f"{path}:6"),
    }


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_file_is_an_empty_layer(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == ({}, [])


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert values(tmp_path, "\ufeffport: 1\n") == {"port": 1}


def test_native_types_of_yaml_are_kept(tmp_path: Path) -> None:
    text = "a: 1\nb: 1.5\nc: true\nd: null\ne: [1, x]\nf: {g: 2}\nh: 'x'\n"
    assert values(tmp_path, text) == {
        "a": 1,
        "b": 1.5,
        "c": True,
        "d": None,
        "e": [1, "x"],
        "f": {"g": 2},
        "h": "x",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- port\n", "FILE:1: must be a mapping of settings."),
        ("\njust text\n", "FILE:2: must be a mapping of settings."),
        ("port: 1\n? [a, b]\n: 2\n", "FILE:2: a setting's name must be plain text."),
        ("port: 1\nhost: x\nport: 2\n", "FILE:3: port: is given twice; first at FILE:1."),
        ("log_config:\n  version: 1\n  version: 1\n", "FILE:3: version: is given twice."),
        ("headers:\n  - a: 1\n    a: 2\n", "FILE:3: a: is given twice."),
        ("port: 1\nhost: [x\n", "FILE:3: is not YAML: expected ',' or ']', but got '<stream end>'."),
        ("a: 1\n---\nb: 2\n", "FILE:2: is not YAML: but found another document."),
        ("port: *p\n", "FILE:1: is not YAML: found undefined alias 'p'."),
        ("a: &a 1\nb: &b\n  - *b\n", "FILE:2: b: found unconstructable recursive node."),
        ("a:\n  ? [x]\n  : 1\n", "FILE:1: a: found unhashable key."),
        (
            "a: !!python/object/apply:os.system [exit]\n",
            "FILE:1: a: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'.",
        ),
        ("a: !x 1\n", "FILE:1: a: could not determine a constructor for the tag '!x'."),
        ("a: !!bool 3\n", "FILE:1: a: cannot be read as bool."),
        ("a: !!int ''\n", "FILE:1: a: cannot be read as int."),
        ("a: !!timestamp x\n", "FILE:1: a: cannot be read as timestamp."),
        ("a: 2026-02-30\n", "FILE:1: a: cannot be read as timestamp."),
    ],
)
def test_mistake_is_a_problem_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(tmp_path, text) == [problem]


def test_file_with_a_control_character_is_no_yaml(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, b"port: 1\nhost: \x07\n")
    assert problem.startswith(
        "FILE: is not YAML: unacceptable character #x0007: special characters are not allowed"
    )


def test_every_mistake_of_a_file_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    layer, found = read(
        tmp_path, "a: !!bool 3\nport: 1\na: 1\nb: ${NOPE}\nport: 2\nc: [{x: 1, x: 2}]\nd: 1\n"
    )
    assert set(layer) == {"port", "c", "d"}
    assert found == [
        "FILE:1: a: cannot be read as bool.",
        "FILE:3: a: is given twice; first at FILE:1.",
        "FILE:4: b: the variable NOPE is not set; give it, or a default: ${NOPE:-default}.",
        "FILE:5: port: is given twice; first at FILE:2.",
        "FILE:6: x: is given twice.",
    ]


def test_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    layer, found = from_yaml(tmp_path / "none.yaml", {})
    assert layer == {}
    assert [str(each) for each in found] == [
        f"{tmp_path}/none.yaml: cannot be read: No such file or directory."
    ]


def test_directory_in_place_of_a_file_is_a_problem(tmp_path: Path) -> None:
    _, found = from_yaml(tmp_path, {})
    assert [str(each) for each in found] == [f"{tmp_path}: cannot be read: Is a directory."]


def test_file_that_is_not_utf_8_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, b"host: \xff\n") == ["FILE: is not UTF-8: invalid start byte at byte 6."]


def test_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    text = "port: 1\n#"
    assert values(tmp_path, text + "x" * (MAX_FILE_SIZE - len(text))) == {"port": 1}


def test_file_beyond_the_largest_size_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, b"#" * (MAX_FILE_SIZE + 1)) == ["FILE: is larger than 1048576 bytes."]


def test_nesting_without_end_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, "a: " + "[" * 5000 + "]" * 5000) == ["FILE: is nested too deeply."]


def test_aliases_of_aliases_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 40)]
    layer, found = read(tmp_path, "\n".join(lines))
    assert set(layer) == {"a0", "a1", "a2", "a3", "a4"}
    assert found == [f"FILE:{i + 1}: a{i}: holds more than {MAX_VALUES} values." for i in range(5, 40)]


def test_merged_aliases_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 30)]
    layer, found = read(tmp_path, "\n".join(lines))
    if found:
        assert found[-1] == f"FILE:30: a29: holds more than {MAX_VALUES} values."
    else:  # newer PyYAML merges the same pair once
        assert layer["a29"].value == {"x": 1}


def test_aliases_in_reason_are_the_same_value_again(tmp_path: Path) -> None:
    text = "a: &a {x: '${NAME}'}\nb: [*a, *a]\nc: {<<: *a, y: 1}\n"
    assert values(tmp_path, text) == {
        "a": {"x": "web"},
        "b": [{"x": "web"}, {"x": "web"}],
        "c": {"x": "web", "y": 1},
    }


# --- variables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${PORT}", "9000"),
        ("a-${NAME}-${PORT}-b", "a-web-9000-b"),
        ("${NOPE:-8000}", "8000"),
        ("${NOPE:-}", ""),
        ("${EMPTY:-full}", "full"),
        ("${EMPTY}", ""),
        ("${PORT:-8000}", "9000"),
        ("${NOPE:-a:-b}", "a:-b"),
        ("$PORT", "$PORT"),
        ("$$", "$"),
        ("$${PORT}", "${PORT}"),
        ("cost: 5$", "cost: 5$"),
    ],
)
def test_variable_is_replaced(tmp_path: Path, text: str, value: str) -> None:
    assert value_of(tmp_path, f"'{text}'") == value


def test_variables_are_replaced_in_lists_and_mappings(tmp_path: Path) -> None:
    assert value_of(tmp_path, "[1, '${NAME}', {a: ['${PORT}'], '${NAME}': 2}]") == [
        1,
        "web",
        {"a": ["9000"], "${NAME}": 2},
    ]


def test_what_a_variable_holds_is_not_looked_through_again(tmp_path: Path) -> None:
    layer, _ = read(tmp_path, "key: ${A}\n", {"A": "${B}", "B": "x"})
    assert layer["key"].value == "${B}"


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A B}", "${PORT", "${PORT:8000}", "a ${ b"])
def test_broken_variable_is_a_problem(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, f"key: '{text}'\n") == [
        "FILE:1: key: '${' needs a variable's name and a closing brace; write '$$' for a plain dollar sign."
    ]


def test_variable_that_is_not_set_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, "\nkey: ['${NOPE}']\n") == [
        "FILE:2: key: the variable NOPE is not set; give it, or a default: ${NOPE:-default}."
    ]


@given(text=st.text(st.characters(exclude_characters="$", exclude_categories=["Cs", "Cc"])))
def test_doubled_dollar_signs_protect_any_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    quoted = ("${" + text + "}$").replace("$", "$$").replace("'", "''")
    path = tmp_path_factory.getbasetemp() / "quoted.yaml"
    path.write_text(f"key: '{quoted}'\n", encoding="utf-8")
    layer, found = from_yaml(path, {})
    assert (layer["key"].value if layer else None, found) == ("${" + text + "}$", [])


@given(content=st.binary(max_size=200))
def test_any_file_is_a_layer_or_problems(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    layer, found = from_yaml(path, {})
    assert all(raw.place.startswith(f"{path}:") for raw in layer.values())
    assert all(problem.message.endswith(".") for problem in found)

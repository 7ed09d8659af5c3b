"""Which directories the reloader watches."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvicorn._reload_paths import as_list, fold, matched_directories, watched_directories, without


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """app/sub/deep/, app_extra/, .hidden/ and the file main.py."""
    for name in ("app/sub/deep", "app_extra", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "main.py").touch()
    return tmp_path


def relative(paths: list[Path], tree: Path) -> list[str]:
    return [str(path.relative_to(tree)) for path in paths]


@pytest.mark.parametrize(
    ("value", "values"),
    [
        (None, []),
        ("a", ["a"]),
        ("", [""]),
        (["b", "a", "b"], ["b", "a"]),
        (("a",), ["a"]),
        ([], []),
    ],
)
def test_one_or_several_become_a_list_without_repetitions(
    value: list[str] | str | None, values: list[str]
) -> None:
    assert as_list(value) == values


@pytest.mark.parametrize(
    ("named", "watched"),
    [
        (["app"], ["app"]),
        (["app", "app/sub", "app/sub/deep"], ["app"]),
        (["app/sub/deep", "app"], ["app"]),
        (["app", "app_extra"], ["app", "app_extra"]),
        (["app", "app/../app", "./app"], ["app"]),
        (["none", "main.py"], []),
        ([".", "app"], ["."]),
        ([], []),
    ],
)
def test_existing_directories_are_watched_folded(named: list[str], watched: list[str], tree: Path) -> None:
    assert relative(watched_directories(named, tree), tree) == watched


def test_absolute_directory_is_watched_wherever_it_is(tree: Path) -> None:
    assert watched_directories([str(tree / "app")], Path("/")) == [tree / "app"]


def test_link_is_the_directory_behind_it(tree: Path) -> None:
    (tree / "link").symlink_to(tree / "app")
    assert watched_directories(["link", "app"], tree) == [tree / "app"]


@pytest.mark.parametrize(
    ("patterns", "matched"),
    [
        (["app"], ["app"]),
        (["app*"], ["app", "app_extra"]),
        (["app/*"], ["app/sub"]),
        (["**/deep"], ["app/sub/deep"]),
        (["app", "app/sub"], ["app"]),
        (["*.py"], []),
        (["main.py"], []),
        (["none"], []),
        ([".*"], []),
        ([".hidden"], [".hidden"]),
        (["x" * 300, "app"], ["app"]),
        (["x" * 5000], []),
        ([], []),
    ],
)
def test_patterns_name_or_match_directories(patterns: list[str], matched: list[str], tree: Path) -> None:
    assert sorted(relative(matched_directories(patterns, tree), tree)) == matched


def test_absolute_pattern_only_names(tree: Path) -> None:
    assert matched_directories([str(tree / "app"), str(tree / "*")], Path("/")) == [tree / "app"]


@pytest.mark.parametrize(
    ("directories", "excluded", "rest"),
    [
        (["/a", "/b"], ["/a"], ["/b"]),
        (["/a/b"], ["/a"], []),
        (["/a"], ["/a/b"], ["/a"]),
        (["/ab"], ["/a"], ["/ab"]),
        (["/a"], [], ["/a"]),
    ],
)
def test_excluded_directories_are_taken_out_with_what_is_below(
    directories: list[str], excluded: list[str], rest: list[str]
) -> None:
    assert without(map(Path, directories), list(map(Path, excluded))) == list(map(Path, rest))


@pytest.mark.parametrize(
    ("paths", "folded"),
    [
        (["/a/b", "/a", "/c", "/a"], ["/a", "/c"]),
        (["/a", "/ab"], ["/a", "/ab"]),
        (["/a/../b", "/b/c"], ["/b"]),
        ([], []),
    ],
)
def test_folding_keeps_the_outermost(paths: list[str], folded: list[str]) -> None:
    assert fold(map(Path, paths)) == list(map(Path, folded))

"""The log lines of docs/operating.md are those of the source: all warnings and errors, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.harness import ROOT

PACKAGE = ROOT / "uvicorn"
PAGE = (ROOT / "docs" / "operating.md").read_text()
LOGGING_METHODS = ("warning", "error", "critical", "exception")
LEVELS = ("WARNING", "ERROR", "CRITICAL")
# A piece of a line that is shorter is found anywhere: such lines are handed on, and made elsewhere.
LEAST = 8
CONVERSION = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[sdrgfx]")


@dataclass(frozen=True)
class Line:
    """What is logged at WARNING or above, in one place of the source.

    Attributes:
        pieces: The parts of its text that are always the same.
    """

    where: str
    pieces: tuple[str, ...]

    def __str__(self) -> str:
        return self.where

    @property
    def longest(self) -> str:
        return max((piece.strip() for piece in self.pieces), key=len, default="")


def texts(node: ast.expr) -> Iterator[tuple[str, ...]]:
    """The constant pieces of each text that an expression can be."""
    match node:
        case ast.Constant(value=str(text)):
            yield tuple(CONVERSION.split(text))
        case ast.JoinedStr(values):
            yield tuple(str(each.value) for each in values if isinstance(each, ast.Constant))
        case ast.IfExp(body=body, orelse=orelse):
            yield from texts(body)
            yield from texts(orelse)


def logged(call: ast.Call) -> ast.expr | None:
    """The text, where the call logs one at WARNING or above."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    levels = [each for each in call.args if isinstance(each, ast.Attribute) and each.attr in LEVELS]
    if name in LOGGING_METHODS:
        return call.args[0] if call.args else None
    if name in ("log", "Log", "say", "_say") and (levels or name == "_say"):
        return next((each for each in call.args if isinstance(each, ast.Constant | ast.JoinedStr)), None)
    return None


def lines() -> Iterator[Line]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            text = logged(node) if isinstance(node, ast.Call) else None
            if text is not None:
                where = f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]
                yield from (Line(where, pieces) for pieces in texts(text))


def constants() -> str:
    """All texts of the source, one below the other, continued ones joined."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(" ".join(node.value.split()))
    return "\n".join(found)


CORPUS = constants()
SAID = [line for line in lines() if len(line.longest) >= LEAST]
# First cells of the tables of log lines.
WRITTEN = [
    span
    for row in re.findall(r"^\| (`.*?`) \| ", PAGE.partition("## Log lines of the master")[2], re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", row)
]


def written_pieces(span: str) -> list[str]:
    """The parts of a line in the document that are no example: numbers, names in capitals and … are."""
    pieces = re.split(r"…|\d[\d.]*|\b[A-Z][A-Z:=]+\b|worker=|[:.,] |[()]", span)
    return [piece.strip() for piece in pieces]


def test_there_are_lines() -> None:
    assert len(SAID) > 60
    assert len(WRITTEN) > 60


@pytest.mark.parametrize("line", SAID, ids=str)
def test_a_warning_or_error_is_in_the_document(line: Line) -> None:
    words = " ".join(line.longest.split())
    assert any(words in span for span in WRITTEN), f"docs/operating.md, Warnings and errors: {words!r}"


@pytest.mark.parametrize("span", WRITTEN)
def test_a_line_of_the_document_is_in_the_source(span: str) -> None:
    longest = max(written_pieces(span), key=len)
    assert longest in CORPUS, f"nothing says {longest!r}"

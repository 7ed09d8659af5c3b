"""Code on a page, and the commands in it. Standard library alone: it is also read inside of containers."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHELL = "sh"
_FENCE = re.compile(r"^\s*(```+)\s*(\w*)\s*$")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: What stands behind the fence, "" for nothing.
        line: The number of its first line of code.
        heading: The heading above it, without its marks.
        text: The code.
    """

    language: str
    line: int
    heading: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command, continued lines joined.

    Attributes:
        line: Its line on the page.
        text: What a shell is given.
    """

    line: int
    text: str


def blocks(page: str) -> list[Block]:
    found: list[Block] = []
    heading = fence = language = ""
    code: list[str] = []
    start = 0
    for number, line in enumerate(page.splitlines(), 1):
        mark = _FENCE.match(line)
        if fence and mark and mark[1] == fence:
            found.append(Block(language, start, heading, "\n".join(code)))
            fence = ""
        elif fence:
            code.append(line)
        elif mark:
            fence, language, start, code = mark[1], mark[2], number + 1, []
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    if fence:
        raise ValueError(f"the block that begins in line {start} has no end")
    return found


def commands(block: Block) -> list[Command]:
    """What a shell would run: each line but comments, with those that a backslash continues."""
    found: list[Command] = []
    pending: Command | None = None
    for number, line in enumerate(block.text.splitlines(), block.line):
        if pending is not None:
            pending = Command(pending.line, f"{pending.text}\n{line}")
        elif line.strip() and not line.lstrip().startswith("#"):
            pending = Command(number, line)
        if pending is not None and not pending.text.endswith("\\"):
            found.append(pending)
            pending = None
    return found


def prose(page: str) -> list[tuple[int, str]]:
    """The lines outside of blocks, with their numbers."""
    inside: set[int] = set()
    for block in blocks(page):
        inside.update(range(block.line - 1, block.line + block.text.count("\n") + 2))
    return [(n, line) for n, line in enumerate(page.splitlines(), 1) if n not in inside]


def spans(page: str) -> list[Command]:
    """The code within sentences and tables; one may go over the end of a line, not of a paragraph."""
    lines = dict(prose(page))
    text = "\n".join(lines.get(n, "") for n in range(1, page.count("\n") + 2))
    found: list[Command] = []
    for paragraph in re.finditer(r"(?:^.*\S.*$\n?)+", text, re.MULTILINE):
        for span in _SPAN.finditer(paragraph[0]):
            line = text.count("\n", 0, paragraph.start() + span.start(1)) + 1
            found.append(Command(line, " ".join(span[1].split())))
    return found


def indented(page: str) -> list[int]:
    """Lines of blocks without a fence, which have no language: indented by four, behind an empty line."""
    lines = dict(prose(page))
    return [n for n, line in lines.items() if line.startswith("    ") and not lines.get(n - 1, "").strip()]

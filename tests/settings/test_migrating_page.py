"""docs/migrating.md: what it names as ours is ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from uvicorn.settings.table import OPTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
FLAGS = {option.flag: option for option in OPTIONS}
# Of the command itself, see main.py.
COMMAND = {"--config", "--check-config"}
NEGATED = {"--no-" + option.flag.removeprefix("--") for option in OPTIONS if option.negatable}

# Its second column is ours, in the tables of options; the third one, in those of behaviours.
ROWS = [
    [cell.strip() for cell in line.strip("| \n").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| theirs ")
]


def ours() -> list[str]:
    return [cells[-1] for cells in ROWS if len(cells) in (2, 3)] + [
        cells[2] for cells in ROWS if len(cells) == 4
    ]


def test_the_options_of_our_column_exist() -> None:
    # `--http2` is named as missing.
    named = {flag for cell in ours() for flag in re.findall(r"`(--[a-z0-9-]+)", cell)} - {"--http2"}
    assert len(named) > 50
    assert named <= FLAGS.keys() | COMMAND | NEGATED


def test_the_defaults_of_our_column_are_those_of_the_table() -> None:
    said = [found for cell in ours() for found in re.findall(r"`(--[a-z0-9-]+)` \(([0-9.]+)", cell)]
    checked = {
        flag: (float(value), FLAGS[flag].default)
        for flag, value in said
        # Where it depends, the table has a text.
        if FLAGS[flag].default is not None
    }
    assert len(checked) >= 8
    assert {flag: said for flag, (said, default) in checked.items() if said != default} == {}


@pytest.mark.parametrize("anchor", re.findall(r"\]\(#([^)]*)\)", PAGE))
def test_its_anchors_lead_somewhere(anchor: str) -> None:
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}

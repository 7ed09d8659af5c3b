"""README.md names a test for every fault, and the test is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = [
    line for line in (HERE / "README.md").read_text().splitlines() if re.match(r"\| (?!fault \|)[^-]", line)
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_row_names_tests_that_are_there(row: str) -> None:
    named = re.findall(r"`([\w./]+\.py)(?:::(\w+))?`", row)
    assert named
    for file, function in named:
        path = HERE / file if (HERE / file).exists() else HERE.parent / file
        assert path.exists(), file
        assert not function or f"def {function}(" in path.read_text(), f"{file} has no {function}"

"""What the pages name is there: files and headings that they link to, settings, and metrics."""

from __future__ import annotations

import re

import pytest

from tests.documents.test_commands import PAGES
from tests.e2e.harness import ROOT
from tests.markdown import prose, spans
from uvicorn.settings.table import OPTIONS

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
# How the names of settings begin, where a word could be something else.
SETTING = re.compile(r"(?:timeout|limit|ssl|ws|worker|log|pid|shutdown|forwarded|reuse|control)_[a-z_]+")
# Pages that have the settings of other servers as well.
OTHER_SERVERS = ("docs/migrating.md",)
# What the benchmark writes, with each series of figures.
RECORDED = (ROOT / "bench" / "results", ROOT / "docs" / "performance")


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_what_is_linked_to_is_there(page: str) -> None:
    for number, line in prose((ROOT / page).read_text()):
        for target in LINK.findall(line):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
            assert file.exists() or file.parent in RECORDED, f"line {number}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                assert anchor in map(slug, headings), f"line {number}: {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in OTHER_SERVERS])
def test_settings_that_are_named_exist(page: str) -> None:
    names = {option.name for option in OPTIONS}
    for span in spans((ROOT / page).read_text()):
        found = SETTING.fullmatch(span.text.partition(":")[0])
        assert found is None or found[0] in names, f"line {span.line}: there is no setting {span.text}"

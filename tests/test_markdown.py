"""The reader of pages that the tests of the documents rest on."""

from __future__ import annotations

import pytest

from tests.markdown import Block, Command, blocks, commands, indented, spans

PAGE = """\
# One

Say `uvicorn app:app`, or `kill
-HUP PID`.

```sh
# a comment
first --option \\
    more
second | third  # behind
```

## Two

```yaml
app: x
```

| `a b` | ``c`` |

    not fenced
"""


def test_blocks_have_language_heading_and_line() -> None:
    first, second = blocks(PAGE)
    assert (first.language, first.heading, first.line) == ("sh", "One", 7)
    assert second == Block("yaml", 16, "Two", "app: x")


def test_commands_are_joined_and_comments_left_out() -> None:
    assert commands(blocks(PAGE)[0]) == [
        Command(8, "first --option \\\n    more"),
        Command(10, "second | third  # behind"),
    ]


def test_spans_go_over_the_end_of_a_line() -> None:
    assert spans(PAGE) == [Command(3, "uvicorn app:app"), Command(3, "kill -HUP PID"), Command(19, "a b")]


def test_a_block_without_a_fence_is_seen() -> None:
    assert indented(PAGE) == [21]


def test_a_fence_that_is_never_closed_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2 has no end"):
        blocks("```sh\ntrue\n")

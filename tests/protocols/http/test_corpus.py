"""Every case of the corpus, on both implementations, in four ways: `corpus/README.md` says what they are."""

from __future__ import annotations

import asyncio
import functools

import pytest

from tests.protocols.http.cases import CORPUS, RUNS, Answer, Application, Case, fields_of, load, play
from tests.protocols.http.count import counted
from tests.protocols.http.harness import IMPLEMENTATIONS

CASES = {f"{path.parent.name}/{path.stem}": path for path in sorted(CORPUS.glob("*/*.http"))}
ALIKE = [name for name, path in CASES.items() if "\ndiffers: " not in path.read_text("ascii")]


def required(case: Case, implementation: str, run: str) -> Answer:
    """The answer in the file, turned into that of the run."""
    answer = case.answers[implementation]
    responses, app = list(answer.responses), list(answer.app)
    if run == "pipelined":
        responses.insert(0, 200)
        app.insert(0, 'GET /first ""')
    if run != "answered in between":
        responses = [status for status in responses if status != 100]
        if len(responses) > 1 and responses[-1] >= 400:
            responses.pop()
            if app[-1].endswith(" cut"):
                app.pop()
    return Answer(responses, app, answer.closed)


@functools.cache
def played(name: str, implementation: str) -> dict[str, tuple[Answer, Application, bytes]]:
    """What came of each run of a case."""
    case = load(CASES[name])

    async def main() -> dict[str, tuple[Answer, Application, bytes]]:
        return {run: await play(IMPLEMENTATIONS[implementation], case, run) for run in RUNS}

    return asyncio.run(main())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", CASES)
def test_case_gets_its_required_answer(name: str, implementation: str) -> None:
    case = load(CASES[name])
    for run, (answer, app, written) in played(name, implementation).items():
        assert (run, answer) == (run, required(case, implementation, run))
        if answer.closed and answer.responses and not (case.eof or case.reset):
            last = written[written.rindex(b"HTTP/1.1 ") :].lower()
            assert b"\r\nconnection: close\r\n" in last
        if case.headers is not None:
            assert (run, fields_of(app.scopes[-1])) == (run, case.headers)


@pytest.mark.parametrize("name", ALIKE)
def test_both_implementations_show_the_application_the_same(name: str) -> None:
    first, second = (played(name, implementation) for implementation in IMPLEMENTATIONS)
    for run in RUNS:
        assert (run, first[run][1].scopes) == (run, second[run][1].scopes)


def test_corpus_is_as_large_as_it_has_to_be() -> None:
    assert len(CASES) >= 570
    # Whoever counts them counts every one, in a group that somebody has thought of.
    assert sum(group.total() for group in counted().values()) == len(CASES)
    assert all(group.total() for group in counted().values())

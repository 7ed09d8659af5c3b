"""The cases that take no time, and a few of the others, against every implementation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.autobahn.case import Case
from tests.autobahn.suite import IMPLEMENTATIONS, all_cases, echo_server, run
from tests.autobahn.verdict import Verdict
from tests.e2e.harness import Service

pytestmark = pytest.mark.e2e

# `auto` is one of the others here. Which one, tests/protocols/websockets/test_connection.py says.
CHOSEN = [name for name in IMPLEMENTATIONS if name != "auto"]
SMALL = (1, 2, 3, 4, 5, 6, 7, 10)
# One of each kind: the largest messages, the smallest fragments and pieces.
LARGE = ("9.1.6", "9.2.4", "9.3.1", "9.4.4", "9.5.1")
MESSAGES = 3
# Two of them are one engine, for which the large cases need not be played twice.
each_engine = pytest.mark.parametrize("server", ["websockets", "wsproto"], indirect=True, scope="module")

# Where there is no more than non-strict. An answer may be overtaken by a mistake that came right behind its message; the
# text of a message in one frame is looked at as a whole (not by wsproto); and wsproto knows the codes of the RFC only.
NON_STRICT = {
    "3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15", "6.4.3", "6.4.4", "7.14.3",
}  # fmt: skip


@pytest.fixture(scope="module", params=CHOSEN)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with echo_server(tmp_path_factory.mktemp("autobahn"), request.param) as running:
        yield running


def check(server: Service, cases: list[Case]) -> None:
    assert cases
    results = run(cases, server.port, MESSAGES, at_once=4)
    failed = {result.case.number: result.why for result in results if result.verdict is Verdict.FAILED}
    assert failed == {}
    weak = {result.case.number: result.why for result in results if result.verdict is Verdict.NON_STRICT}
    assert {number: why for number, why in weak.items() if number not in NON_STRICT} == {}


@pytest.mark.parametrize("group", SMALL)
def test_small_cases(server: Service, group: int) -> None:
    check(server, [case for case in all_cases() if case.group == group])


@each_engine
def test_large_messages(server: Service) -> None:
    check(
        server,
        [case for case in all_cases() if case.number in LARGE or case.number.startswith(("9.7", "9.8"))],
    )


@each_engine
def test_compressed_messages(server: Service) -> None:
    check(server, [case for case in all_cases() if case.group in (12, 13)])

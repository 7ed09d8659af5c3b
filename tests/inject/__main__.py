"""Let system calls of the master fail: `python -m tests.inject`, or `make inject`; needs strace.

For every phase of a master's life (a start, a reload, the death of a worker, log files reopened, one worker more, an
upgrade, the first steps of the program that has taken over, a stop) its system calls are recorded. Then each kind of call
that can fail in practice fails: each of its first calls in the phase in turn, and as many more of the others, once with
each error that fits. The service
must serve on, or refuse to start in order; nothing may hang and nothing may be left. What breaks that is listed with the
service's log, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.inject.faults import ERRORS
from tests.inject.lives import PHASES, SETUPS, Injection, Result, live, record, usable


@dataclass(frozen=True)
class Options:
    """What is to be done, from the command line."""

    phases: list[str]
    setups: list[str]
    calls: list[str]
    first: int
    most: int
    seed: int
    jobs: int


def plan(options: Options) -> list[Injection]:
    """Every injection; at most so many, chosen by the seed."""
    found = []
    for setup in options.setups:
        for phase in options.phases:
            calls = record(setup, phase)
            print(
                f"{setup} {phase}: " + " ".join(f"{name}={len(at)}" for name, at in sorted(calls.items())),
                flush=True,
            )
            for call, ordinals in sorted(calls.items()):
                if options.calls and call not in options.calls:
                    continue
                for nth in chosen(ordinals, options.first):
                    found += [Injection(setup, phase, call, error, nth) for error in ERRORS[call]]
    random.Random(options.seed).shuffle(found)
    return found[: options.most] if options.most else found


def chosen(ordinals: list[int], first: int) -> list[int]:
    """The first calls, and as many again, spread over the rest."""
    rest = ordinals[first:]
    spread = rest[:: max(1, -(-len(rest) // first))] if first else []
    return [*ordinals[:first], *spread]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.inject", description=__doc__)
    parser.add_argument("--phase", action="append", choices=PHASES, default=[])
    parser.add_argument("--setup", action="append", choices=SETUPS, default=[])
    parser.add_argument("--call", action="append", default=[], help="only this system call")
    parser.add_argument("--first", type=int, default=4, help="how many calls of each kind in a phase")
    parser.add_argument("--most", type=int, default=0, help="at most so many injections, 0 for all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin none after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    why = usable()
    if why:
        print(why)
        return 2
    options = Options(
        given.phase or list(PHASES), given.setup or list(SETUPS), given.call, given.first, given.most,
        given.seed, given.jobs,
    )  # fmt: skip
    began = time.monotonic()
    injections = plan(options)
    print(f"{len(injections)} injections", flush=True)
    results = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(lambda each: in_time(each, began + given.minutes * 60), injections):
            if result is not None:
                results.append(result)
                show(result)
    summarise(results)
    print(f"{len(results)} of {len(injections)} injections in {time.monotonic() - began:.0f} s")
    return int(any(result.outcome == "FAILED" for result in results))


def in_time(injection: Injection, deadline: float) -> Result | None:
    return live(injection) if time.monotonic() < deadline else None


def show(result: Result) -> None:
    print(f"{result.outcome:12} {result.injection}  {result.text}", flush=True)
    if result.outcome == "FAILED":
        print(f"    {result.trace}")
        print("".join(f"    | {line}\n" for line in result.log.splitlines()[-40:]), flush=True)


def summarise(results: list[Result]) -> None:
    outcomes = ("served on", "refused", "ended", "not reached", "not possible", "FAILED")
    counts = Counter((result.injection.setup, result.injection.phase, result.outcome) for result in results)
    print(f"\n{'':18}" + "".join(f"{outcome:>13}" for outcome in outcomes))
    for setup, phase in dict.fromkeys((r.injection.setup, r.injection.phase) for r in results):
        row = "".join(f"{counts[setup, phase, outcome]:13}" for outcome in outcomes)
        print(f"{setup + ' ' + phase:18}{row}")
    total = Counter(result.outcome for result in results)
    print(f"{'all':18}" + "".join(f"{total[outcome]:13}" for outcome in outcomes))
    for text, count in Counter(r.text for r in results if r.outcome == "refused").most_common():
        print(f"refused {count} times: {text}")


if __name__ == "__main__":
    sys.exit(main())

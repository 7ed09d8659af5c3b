"""Rounds in turns: every contender's server is up, and each gets the load for a moment, again and again."""

from __future__ import annotations

import sys
from typing import Any

from bench.contenders import Contender
from bench.loading import run_load
from bench.probes import Probe
from bench.running import CannotRun, Server, servers
from bench.scenarios import Scenario
from bench.tls import certificate

Sample = dict[str, Any]


def measure(
    scenario: Scenario, contenders: list[Contender], rounds: int, seconds: int
) -> tuple[list[Sample], dict[str, str]]:
    """The samples of one scenario, and why who is missing is missing."""
    able = [each for each in contenders if scenario.possible(each.cannot)]
    options = dict(scenario.server)
    if options.get("tls"):
        options["tls"] = certificate()
    seconds = max(seconds, least_seconds(scenario))
    failures: dict[str, str] = {}
    samples: list[Sample] = []
    with servers(able, scenario.app, failures, **options) as running:
        for server in running:
            if scenario.server.get("workers", 1) != 1:
                server.wait_workers(server.launch.workers)
            run_load(scenario.load, server.port, least_seconds(scenario), server.launch.tls is not None)
        for number in range(rounds):
            for server in turns(running, number):
                if server.contender.name in failures:
                    continue
                try:
                    samples.append({"round": number, **sample(scenario, server, seconds)})
                except (CannotRun, ZeroDivisionError) as exc:
                    failures[server.contender.name] = str(exc)
            print(".", end="", file=sys.stderr, flush=True)
    return samples, failures


def probe(look: Probe, contenders: list[Contender], rounds: int) -> tuple[list[Sample], dict[str, str]]:
    """The same for what is no load: one contender at a time, all of them in each round."""
    failures: dict[str, str] = {}
    samples: list[Sample] = []
    for number in range(rounds):
        for contender in contenders:
            if contender.name in failures or not look.possible(contender.cannot):
                continue
            try:
                figures = look.take(contender)
            except (CannotRun, OSError) as exc:
                failures[contender.name] = str(exc) or type(exc).__name__
                continue
            samples.append(
                {"scenario": look.name, "contender": contender.name, "round": number, "figures": figures}
            )
        print(".", end="", file=sys.stderr, flush=True)
    return samples, failures


def least_seconds(scenario: Scenario) -> int:
    """Thousands of connections at once take a while: what does not fit into the backlog is tried again a second later."""
    return max(scenario.seconds, 1 + scenario.load.connections // 1000)


def turns(running: list[Server], number: int) -> list[Server]:
    """Another one begins in each round: nobody always comes after the same other."""
    start = number % max(1, len(running))
    return running[start:] + running[:start]


def sample(scenario: Scenario, server: Server, seconds: int) -> Sample:
    before = server.usage()
    result = run_load(scenario.load, server.port, seconds, server.launch.tls is not None)
    used = server.usage() - before
    requests = result.pop("requests")
    if not requests:
        raise CannotRun(f"{server.contender.title}: no request was answered; failures: {result['failures']}")
    return {
        "scenario": scenario.name,
        "contender": server.contender.name,
        "requests": requests,
        "cpu": used.cpu / requests * 1e6,
        "user": used.user / requests * 1e6,
        "system": used.system / requests * 1e6,
        "rate": requests / result["seconds"],
        "pss": server.pss(),
        **result,
    }

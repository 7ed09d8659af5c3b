"""The table of options by itself: each entry is complete, and no two of them claim the same name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import get_args

import pytest

from uvicorn.settings.kinds import Boolean, Choice, ListOf, Secret
from uvicorn.settings.table import APP, BY_NAME, OPTIONS, OnReload, Option, Taker

ALL = (APP, *OPTIONS)

# May be given many times, each time for one: their flag is in the singular.
REPEATED = {"headers", "reload_dirs", "reload_includes", "reload_excludes"}


def broken(rule: Callable[[Option], object], options: Iterable[Option] = ALL) -> list[str]:
    """The options that do not hold to a rule."""
    return [option.name for option in options if not rule(option)]


def with_effect(effect: str) -> set[str]:
    return {option.name for option in OPTIONS if option.on_reload == effect}


# --- names -------------------------------------------------------------------------------------


def test_no_two_options_have_a_spelling_in_common() -> None:
    flags = [option.flag for option in OPTIONS]
    negated = ["--no-" + option.flag.removeprefix("--") for option in OPTIONS if option.negatable]
    variables = [name for option in (APP, *OPTIONS) for name in (option.env_name, *option.env)]
    for spellings in ([*flags, *negated], variables, [APP.name, *(option.name for option in OPTIONS)]):
        assert len(set(spellings)) == len(spellings)


def test_every_option_is_found_by_its_name() -> None:
    assert list(BY_NAME.values()) == list(OPTIONS)
    assert all(BY_NAME[option.name] is option for option in OPTIONS)


def test_a_flag_is_the_name_of_its_option() -> None:
    def flag(option: Option) -> str:
        plain = "--" + option.name.replace("_", "-")
        return plain.removesuffix("s") if option.name in REPEATED else plain

    assert broken(lambda option: option.flag == flag(option), OPTIONS) == []


def test_a_variable_is_our_prefix_and_the_name() -> None:
    assert broken(lambda option: option.env_name == f"UVICORN_{option.name.upper()}") == []
    assert broken(lambda option: re.fullmatch(r"[A-Z][A-Z0-9_]*", option.env_name)) == []


def test_the_variables_of_others_are_the_two_that_are_documented() -> None:
    assert {name: option.name for option in OPTIONS for name in option.env} == {
        "WEB_CONCURRENCY": "workers",
        "FORWARDED_ALLOW_IPS": "forwarded_allow_ips",
    }


# --- texts -------------------------------------------------------------------------------------


def test_help_is_made_of_sentences() -> None:
    assert broken(lambda option: option.help.endswith(".") and option.help[0].isupper()) == []
    assert broken(lambda option: "  " not in option.help) == []


def test_every_option_stands_under_a_heading() -> None:
    assert broken(lambda option: option.group[:1].isupper()) == []


def test_the_options_of_a_heading_stand_together() -> None:
    headings = [group for group, _ in itertools.groupby(OPTIONS, lambda option: option.group)]
    assert len(set(headings)) == len(headings)


def test_an_option_says_since_when_it_exists() -> None:
    assert broken(lambda option: option.since in ("0.37.0", "0.37.0+")) == []


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option", [option for option in ALL if option.default is not None], ids=lambda option: option.name
)
def test_a_default_is_what_its_kind_makes_of_it(option: Option) -> None:
    accepted = option.kind.accept(option.default)
    assert accepted == option.default
    assert isinstance(accepted, bool) == isinstance(option.default, bool)


def test_every_option_is_described_for_people_and_for_editors() -> None:
    assert broken(lambda option: option.kind.metavar() and option.kind.schema()) == []


def test_a_choice_has_its_default_among_its_names() -> None:
    choices = [option for option in OPTIONS if isinstance(option.kind, Choice)]
    assert len(choices) == 6
    assert broken(lambda option: option.default in option.kind.names, choices) == []


def test_only_switches_can_be_negated_and_all_that_are_not_off_by_default_can() -> None:
    assert broken(lambda option: option.negatable == (option.is_switch and option.default is not False)) == []


def test_the_one_boolean_that_takes_a_value_is_as_documented() -> None:
    valued = {option.name for option in OPTIONS if isinstance(option.kind, Boolean) and not option.is_switch}
    assert valued == {"ws_per_message_deflate"}


def test_an_option_that_can_be_given_many_times_is_a_list() -> None:
    assert {option.name for option in OPTIONS if option.many} == {*REPEATED, "bind"}
    assert all(isinstance(option.kind, ListOf) == option.many for option in OPTIONS)


def test_null_is_said_to_be_possible_only_where_it_is_not_the_default() -> None:
    assert broken(lambda option: not (option.nullable and option.default is None)) == []


def test_what_must_not_be_shown_is_secret_by_kind_and_by_mark() -> None:
    assert {option.name for option in OPTIONS if option.secret} == {"ssl_keyfile_password"}
    assert all(isinstance(option.kind, Secret) == option.secret for option in OPTIONS)


# --- who takes it, and what a reload does -------------------------------------------------------


def test_who_takes_an_option_is_one_of_the_possibilities() -> None:
    assert broken(lambda option: option.taker in get_args(Taker)) == []


def test_options_that_are_not_for_everybody_are_these() -> None:
    assert {option.name: option.taker for option in OPTIONS if option.taker != "both"} == {
        "app_dir": "run",
        "config": "command",
    }


def test_what_a_reload_does_is_one_of_the_possibilities() -> None:
    assert broken(lambda option: option.on_reload in get_args(OnReload)) == []


def test_what_the_sockets_are_made_of_takes_effect_with_the_sockets() -> None:
    assert with_effect("binds") == {"bind", "host", "port", "uds", "fd", "backlog", "reuse_port"}


def test_what_concerns_the_reloader_the_file_itself_and_control_needs_a_restart() -> None:
    assert with_effect("restart") == {
        "reload",
        "reload_dirs",
        "reload_includes",
        "reload_excludes",
        "reload_delay",
        "config",
        # The pid file and the control process are the master's own.
        "pid_file",
        "control_socket",
        "control_read_only",
        "admin",
    }


def test_what_only_the_master_uses_takes_effect_at_once() -> None:
    assert with_effect("master") == {"workers", "limit_restarts"}

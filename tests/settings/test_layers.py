"""Layers: which value counts, where it comes from, and every problem at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn.settings.layers import MASK, Layer, Problem, Raw, Resolved, SettingsError, merge
from uvicorn.settings.table import BY_NAME, OPTIONS

PORTS = st.integers(0, 65535)


def layer(place: str = "file.yaml:1", is_text: bool = False, **values: Any) -> Layer:
    return {name: Raw(value, place, is_text) for name, value in values.items()}


def problems_of(*layers: Layer, **more: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        merge(layers, **more)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


def problems_in(*layers: Layer) -> Sequence[Problem]:
    """The problems, none where there are none."""
    try:
        merge(layers)
    except SettingsError as exc:
        return exc.problems
    return ()


def test_no_layer_gives_every_default() -> None:
    resolved = merge([])
    assert resolved.values == {"app": None, **{option.name: option.default for option in OPTIONS}}
    assert set(resolved.places.values()) == {"default"}


@pytest.mark.parametrize(
    ("layers", "port", "place"),
    [
        ([layer("--port", port=1), layer("$UVICORN_PORT", port=2), layer("a.yaml:3", port=3)], 1, "--port"),
        ([layer("--port"), layer("$UVICORN_PORT", port=2), layer("a.yaml:3", port=3)], 2, "$UVICORN_PORT"),
        ([layer("--port"), layer("$UVICORN_PORT"), layer("a.yaml:3", port=3)], 3, "a.yaml:3"),
        ([layer("--port"), layer("$UVICORN_PORT"), layer("a.yaml:3")], 8000, "default"),
    ],
)
def test_first_layer_that_names_an_option_decides(layers: list[Layer], port: int, place: str) -> None:
    resolved = merge(layers)
    assert (resolved.values["port"], resolved.places["port"]) == (port, place)
    assert resolved.given("port") is (place != "default")


@given(ports=st.lists(st.none() | PORTS, max_size=5))
def test_merge_is_the_first_that_is_given(ports: list[int | None]) -> None:
    layers = [layer(str(i)) if port is None else layer(str(i), port=port) for i, port in enumerate(ports)]
    expected = next(((port, str(i)) for i, port in enumerate(ports) if port is not None), (8000, "default"))
    resolved = merge(layers)
    assert (resolved.values["port"], resolved.places["port"]) == expected


@given(
    values=st.dictionaries(
        st.sampled_from(["host", "port", "access_log", "backlog", "root_path", "nothing"]),
        st.integers() | st.text() | st.booleans() | st.none(),
    )
)
def test_each_value_is_taken_or_a_problem_of_its_own(values: dict[str, Any]) -> None:
    whole = layer("f:1", **values)
    wrong = [problem.key for problem in problems_in(whole)]
    assert len(wrong) == len(set(wrong))
    good = {name: raw for name, raw in whole.items() if name not in wrong}
    assert {name for name in BY_NAME if merge([good]).given(name)} == set(values) - set(wrong)


def test_text_is_parsed_and_a_native_value_is_only_checked() -> None:
    parsed = merge([layer("$UVICORN_RELOAD_INCLUDES", is_text=True, reload_includes="*.a *.b")])
    assert parsed.values["reload_includes"] == ["*.a", "*.b"]
    checked = merge([layer(reload_includes="*.a *.b")])
    assert checked.values["reload_includes"] == ["*.a *.b"]


@pytest.mark.parametrize("name", ["uds", "workers", "log_level", "ws_ping_interval", "ws_ping_timeout"])
def test_null_is_the_value_of_an_option_that_may_be_null(name: str) -> None:
    resolved = merge([layer("f:9", **{name: None})])
    assert (resolved.values[name], resolved.places[name]) == (None, "f:9")


def test_null_for_any_other_option_is_a_problem() -> None:
    assert problems_of(layer("f:9", port=None)) == ["f:9: port: needs a value."]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("prot", "; did you mean 'port'?"),
        ("reload-dirs", "; did you mean 'reload_dirs'?"),
        ("WORKERS", "; did you mean 'workers'?"),
        ("ap", "; did you mean 'app'?"),
        ("colour_of_the_sky", "."),
    ],
)
def test_unknown_name_is_a_problem_with_the_nearest_name(name: str, hint: str) -> None:
    assert problems_of(layer("f:2", **{name: 1})) == [f"f:2: {name}: no such setting{hint}"]


def test_app_is_a_setting_too() -> None:
    resolved = merge([layer("f:1", app="main:app")])
    assert (resolved.values["app"], resolved.places["app"]) == ("main:app", "f:1")


def test_every_problem_of_every_layer_is_told() -> None:
    found = problems_of(
        layer("--port", is_text=True, port="x"),
        layer("$UVICORN_PORT", is_text=True, port="70000"),
        layer("f:1", port=-1, prot=1, log_level="loud"),
        problems=[Problem("f:9", "", "is not YAML.")],
    )
    assert found == [
        "f:9: is not YAML.",
        "--port: port: 'x' is not a valid integer.",
        "$UVICORN_PORT: port: 70000 is too large: at most 65535.",
        "f:1: port: -1 is too small: at least 0.",
        "f:1: prot: no such setting; did you mean 'port'?",
        "f:1: log_level: 'loud' is not one of 'critical', 'error', 'warning', 'info', 'debug', 'trace'.",
    ]


def test_mistake_behind_a_better_layer_is_a_problem_all_the_same() -> None:
    assert problems_of(layer("--port", port=1), layer("f:1", port="x")) == [
        "f:1: port: 'x' is not a valid integer."
    ]


def test_problem_of_a_source_alone_refuses_the_settings() -> None:
    assert problems_of(problems=[Problem("f.yaml", "", "cannot be read.")]) == ["f.yaml: cannot be read."]


def test_checks_see_the_merged_values_and_add_problems() -> None:
    def check(resolved: Resolved) -> list[Problem]:
        return [Problem("here", "port", f"is {resolved.values['port']}.")]

    assert problems_of(layer(port=9), checks=[check, check]) == ["here: port: is 9."] * 2


@pytest.mark.parametrize("other", ["host", "port", "uds", "fd"])
def test_bind_together_with_another_address_is_refused(other: str) -> None:
    value = {"host": "::", "port": 1, "uds": "/x", "fd": 3}[other]
    found = problems_of(layer("--bind", bind=[":1"]), layer("f:2", **{other: value}))
    assert found == [f"--bind: bind: cannot be given together with '{other}' (f:2)."]


def test_bind_together_with_an_address_that_is_null_is_accepted() -> None:
    assert merge([layer(bind=[":1"], uds=None)]).values["bind"] == [":1"]


@pytest.mark.parametrize("base", ["limit_max_requests", "limit_worker_lifetime"])
def test_jitter_without_its_limit_is_refused(base: str) -> None:
    jitter = f"{base}_jitter"
    assert problems_of(layer("f:1", **{jitter: 5})) == [f"f:1: {jitter}: has no effect without '{base}'."]
    assert merge([layer(**{jitter: 5, base: 100})]).values[jitter] == 5
    assert merge([layer(**{jitter: 0})]).values[jitter] == 0


def test_key_without_a_certificate_is_refused() -> None:
    assert problems_of(layer("f:1", ssl_keyfile="k")) == ["f:1: ssl_keyfile: needs 'ssl_certfile' as well."]
    assert merge([layer(ssl_certfile="c")]).values["ssl_certfile"] == "c"


def test_preload_needs_a_master() -> None:
    refused = ["f:1: preload: needs a master: give 'workers' as well (any number, 1 included)."]
    assert problems_of(layer("f:1", preload=True)) == refused
    assert problems_of(layer("f:1", preload=True, workers=0)) == refused
    assert merge([layer("f:1", preload=True, workers=1)]).values["preload"] is True
    # As 'workers' is, it is ignored by the reloader.
    assert merge([layer("f:1", preload=True, reload=True)]).values["preload"] is True


def test_secret_is_masked_where_it_is_shown() -> None:
    resolved = merge([layer(ssl_keyfile_password="hunter2", app="hunter2:app")])
    assert resolved.shown("ssl_keyfile_password") == MASK
    assert resolved.shown("app") == "'hunter2:app'"
    assert resolved.shown("port") == "8000"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"credentials": ["user", "hunter2"], "port": 25}, {"credentials": MASK, "port": 25}),
        ({"a": [{"API_KEY": "hunter2"}, ("x", 1)]}, {"a": [{"API_KEY": MASK}, ("x", 1)]}),
        ({"Password": None, "tokens": 5, "author": "me"}, {"Password": None, "tokens": MASK, "author": "me"}),
        ({"url": "amqp://user:hunter2@mq/a"}, {"url": f"amqp://user:{MASK}@mq/a"}),
        ({"url": "http://mq:5672/a@b", 3: "x"}, {"url": "http://mq:5672/a@b", 3: "x"}),
    ],
)
def test_secrets_within_a_value_are_masked_where_it_is_shown(value: Any, shown: Any) -> None:
    resolved = merge([{"log_config": Raw({"version": 1, "handlers": value}, "a.yaml:1")}])
    assert resolved.shown("log_config") == repr({"version": 1, "handlers": shown})
    # Masked for whoever looks, not for whoever uses it.
    assert resolved.values["log_config"]["handlers"] == value


def test_secret_that_nobody_gave_is_shown_as_none() -> None:
    assert merge([]).shown("ssl_keyfile_password") == "None"


def test_secret_is_not_in_the_text_of_its_problem() -> None:
    assert "12345" not in "".join(problems_of(layer("f:1", ssl_keyfile_password=12345)))


def test_options_are_given_to_those_who_take_them() -> None:
    resolved = merge([layer(app="a:b")])
    assert set(resolved.options_for("both", "run", "command")) == set(BY_NAME)
    assert set(resolved.options_for("run")) == {"app_dir"}
    assert set(resolved.options_for("command")) == {"config"}


def test_problem_leaves_out_what_is_empty() -> None:
    assert str(Problem("", "", "m")) == "m"
    assert str(Problem("p", "", "m")) == "p: m"
    assert str(Problem("", "k", "m")) == "k: m"

"""Values: what they promise, which is what a frozen dataclass with slots does."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest

from uvicorn._values import value


@value
class Place:
    """Where it is."""

    name: str
    port: int = 80

    def text(self) -> str:
        return f"{self.name}:{self.port}"


@value
class Hidden(Place):
    reason: str = "none"

    def text(self) -> str:
        return self.reason


@value
class Web(Place):
    port: int = 443


@value
class Nothing:
    """Has no field."""


@value
class Other:
    name: str
    port: int = 80


@dataclass(frozen=True, slots=True)
class Reference:
    name: str
    port: int = 80


def test_fields_are_given_in_order_by_name_or_by_default() -> None:
    for made in (Place("a", 80), Place("a"), Place(name="a"), Place("a", port=80), Place(port=80, name="a")):
        assert (made.name, made.port, made.text()) == ("a", 80, "a:80")


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, "Place wants 'name'"),
        (("a", 1, 2), {}, "Place takes 2 values, not 3"),
        (("a",), {"name": "b"}, "Place was given 'name' twice"),
        (("a",), {"part": 1}, "Place has no 'part'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(args: Any, kwargs: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Place(*args, **kwargs)
    with pytest.raises(TypeError):
        Reference(*args, **kwargs)


def test_values_never_change() -> None:
    place = Place("a")
    for name in ("name", "other"):
        with pytest.raises(AttributeError, match="Place never changes"):
            setattr(place, name, "b")
    with pytest.raises(AttributeError, match="Place never changes"):
        del place.name
    assert place == Place("a")
    assert not hasattr(place, "__dict__")


def test_values_of_one_class_are_equal_where_their_fields_are() -> None:
    assert Place("a") == Place("a", 80)
    assert Place("a") != Place("b")
    assert Place("a") != Other("a")
    assert Place("a") != Hidden("a")
    assert Place("a") != ("a", 80)
    assert Nothing() == Nothing()
    assert len({Place("a"), Place("a"), Place("a", 81), Other("a"), Nothing(), Nothing()}) == 4


def test_they_are_shown_as_a_dataclass_is() -> None:
    assert repr(Place("a")) == repr(Reference("a")).replace("Reference", "Place")
    assert repr(Nothing()) == "Nothing()"


def test_fields_of_a_base_come_first() -> None:
    hidden = Hidden("a", 81, "secret")
    assert (hidden.name, hidden.port, hidden.reason, hidden.text()) == ("a", 81, "secret", "secret")
    assert isinstance(hidden, Place)
    assert Hidden("a").reason == "none"
    assert (Web("a").port, Web("a", 1).port, Place("a").port) == (443, 1, 80)
    assert Hidden.__match_args__ == ("name", "port", "reason")


def test_they_are_told_apart_by_match() -> None:
    found = []
    for each in (Nothing(), Other("x"), Place("a", 1)):
        match each:
            case Place(name, port=port):
                found.append((name, port))
            case Other():
                found.append("other")
            case Nothing():
                found.append("nothing")
    assert found == ["nothing", "other", ("a", 1)]


@pytest.mark.parametrize("made", [Place("a", 1), Hidden("a", 2, "b"), Nothing()])
def test_they_can_be_copied_and_sent(made: object) -> None:
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert again == made
        assert type(again) is type(made)


def test_the_class_is_what_it_was_written_as() -> None:
    assert (Place.__doc__, Place.__module__, Place.__qualname__) == ("Where it is.", __name__, "Place")

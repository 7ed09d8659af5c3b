"""Small immutable values by the dozen: to the reader frozen dataclasses with slots, but made without compiling anything.

`dataclasses` writes five functions for each class as text and compiles them, which takes 0.3 ms on Python 3.11. For the
master's vocabulary and the kinds of settings that was 20 of the 120 ms in which the program is imported. To make a value
takes longer instead, 0.6 us more: for what is made some times a second.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, dataclass_transform

_T = TypeVar("_T")

_set = object.__setattr__


@dataclass_transform(frozen_default=True)
def value(cls: type[_T]) -> type[_T]:
    """Make a class of its annotated fields, like `dataclass(frozen=True, slots=True)`.

    Values of one class are equal where their fields are; they can be told apart by `match`, kept in sets where their
    fields can, copied and pickled. Defaults are shared by all values. Fields of a base class come first, and may get
    another default; that class is one of values itself, or has no fields.
    """
    body = dict(cls.__dict__)
    inherited: tuple[str, ...] = getattr(cls, "__match_args__", ())
    annotated = inspect.get_annotations(cls)
    own = tuple(name for name in annotated if name not in inherited)
    defaults = {
        **getattr(cls, "_defaults", {}),
        **{name: body.pop(name) for name in annotated if name in body},
    }
    for name in ("__dict__", "__weakref__"):
        body.pop(name, None)
    body |= {
        "__slots__": own,
        "__match_args__": (*inherited, *own),
        "_defaults": defaults,
        "__init__": _init,
        "__eq__": _is_equal,
        "__hash__": _hash,
        "__repr__": _show,
        "__setattr__": _refuse,
        "__delattr__": _refuse,
        "__reduce__": _reduce,
    }
    made: type[_T] = type(cls.__name__, cls.__bases__, body)
    return made


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    names = self.__match_args__
    if len(args) > len(names):
        raise TypeError(f"{type(self).__name__} takes {len(names)} values, not {len(args)}")
    for name, given in zip(names, args, strict=False):
        _set(self, name, given)
        if name in kwargs:
            raise TypeError(f"{type(self).__name__} was given {name!r} twice")
    for name in names[len(args) :]:
        if name in kwargs:
            _set(self, name, kwargs.pop(name))
        elif name in self._defaults:
            _set(self, name, self._defaults[name])
        else:
            raise TypeError(f"{type(self).__name__} wants {name!r}")
    if kwargs:
        raise TypeError(f"{type(self).__name__} has no {', '.join(map(repr, kwargs))}")


def _fields(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self.__match_args__])


def _is_equal(self: Any, other: object) -> bool:
    return type(other) is type(self) and bool(_fields(self) == _fields(other))


def _hash(self: Any) -> int:
    return hash((type(self), _fields(self)))


def _show(self: Any) -> str:
    fields = zip(self.__match_args__, _fields(self), strict=True)
    return f"{type(self).__qualname__}({', '.join(f'{name}={each!r}' for name, each in fields)})"


def _refuse(self: Any, name: str, *new: Any) -> None:
    raise AttributeError(f"{type(self).__name__} never changes: {name!r} cannot be set")


def _reduce(self: Any) -> tuple[Any, ...]:
    return type(self), _fields(self)

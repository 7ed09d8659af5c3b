"""Two calls become one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from uvicorn.middleware.asgi2 import ASGI2Middleware


def test_application_gets_the_scope_first_and_the_callables_then() -> None:
    calls: list[Any] = []

    class App:
        def __init__(self, scope: Any) -> None:
            calls.append(scope)

        async def __call__(self, receive: Any, send: Any) -> None:
            calls.extend((receive, send))

    given: Any = ({"type": "http"}, object(), object())
    assert asyncio.run(ASGI2Middleware(App)(*given)) is None  # type: ignore[arg-type]
    assert tuple(calls) == given


@pytest.mark.parametrize("first", [True, False])
def test_error_of_either_call_passes(first: bool) -> None:
    def app(scope: Any) -> Any:
        if first:
            raise ValueError("no")

        async def instance(receive: Any, send: Any) -> None:
            raise ValueError("no")

        return instance

    with pytest.raises(ValueError, match="no"):
        asyncio.run(ASGI2Middleware(app)({}, None, None))  # type: ignore[arg-type,typeddict-item]

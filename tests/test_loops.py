"""What makes event loops."""

from __future__ import annotations

import asyncio
import sys

import pytest
import uvloop

from uvicorn.loops.asyncio import asyncio_loop_factory
from uvicorn.loops.auto import auto_loop_factory
from uvicorn.loops.uvloop import uvloop_loop_factory


@pytest.mark.skipif(sys.platform == "win32", reason="loops of POSIX systems")
@pytest.mark.parametrize(
    ("factory", "loop_class"),
    [
        (asyncio_loop_factory, asyncio.SelectorEventLoop),
        (uvloop_loop_factory, uvloop.Loop),
        (auto_loop_factory, uvloop.Loop),
    ],
)
@pytest.mark.parametrize("use_subprocess", [False, True])
def test_factory_returns_what_makes_a_loop(factory, loop_class, use_subprocess: bool) -> None:
    for made in (factory(use_subprocess=use_subprocess), factory(use_subprocess), factory()):
        loop = made()
        try:
            assert isinstance(loop, loop_class)
            assert loop.run_until_complete(asyncio.sleep(0, "ran")) == "ran"
        finally:
            loop.close()


@pytest.mark.parametrize("use_subprocess", [False, True])
def test_auto_is_asyncio_where_uvloop_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, use_subprocess: bool
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert auto_loop_factory(use_subprocess) is asyncio_loop_factory(use_subprocess)

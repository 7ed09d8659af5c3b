"""uvloop where it is installed, else asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def auto_loop_factory(use_subprocess: bool = False) -> Callable[[], asyncio.AbstractEventLoop]:
    """A callable that makes a loop of the fastest installed implementation."""
    try:
        import uvloop  # noqa: F401, PLC0415 - asked at the call: the package is optional
    except ImportError:
        from uvicorn.loops.asyncio import asyncio_loop_factory  # noqa: PLC0415 - only one of the two is needed

        return asyncio_loop_factory(use_subprocess=use_subprocess)
    from uvicorn.loops.uvloop import uvloop_loop_factory  # noqa: PLC0415 - only one of the two is needed

    return uvloop_loop_factory(use_subprocess=use_subprocess)

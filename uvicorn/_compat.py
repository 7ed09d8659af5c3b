"""What differs between systems and versions of Python, asked in one place."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import math
import mmap
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import psutil

_T = TypeVar("_T")

HAS_FORK = hasattr(os, "fork")

# <sys/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Whether a process can be given to a grandparent: what `--preload` needs.
HAS_SUBREAPER = sys.platform.startswith("linux")

_PAGE = mmap.PAGESIZE

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = _CGROUP) -> int:
    """How many CPUs this process may use: its affinity, cut by the cgroup's quota, at least one."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _cgroup_cpus(cgroup)
    if quota is not None:
        count = min(count, max(1, math.ceil(quota)))
    return max(1, count)


def _cgroup_cpus(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()  # version 1
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None  # "max": no quota


def signal_at_parents_death(number: int) -> None:
    """Have the kernel send this signal when the parent dies, where it can (Linux). Whoever asks looks at the parent
    once more afterwards: it may be dead already."""
    _prctl(_PR_SET_PDEATHSIG, int(number))


def wait_while_child_of(pid: int) -> None:
    """Wait until the parent is another process than this one, which is about to end. All signals are blocked meanwhile.

    The kernel sends the signal for a parent's death when the child has its new one already.
    """
    if sys.platform.startswith("linux"):
        signal_at_parents_death(signal.SIGUSR2)
        while os.getppid() == pid:
            signal.sigtimedwait({signal.SIGUSR2}, 1.0)
        signal.sigtimedwait({signal.SIGUSR2}, 0)  # it may have come after the look at the parent


def adopt_orphans() -> bool:
    """Have the kernel give this process the descendants whose parent has ended, as process 1 gets all others. It stays so
    over an exec. False where the system cannot do that."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        return bool(_libc().prctl(option, value, 0, 0, 0) == 0)
    return False


@functools.cache
def _libc() -> ctypes.CDLL:
    # Made once: a new one is a new class, and in a worker of a mold that alone is 0.3 MB that it shares with nobody.
    return ctypes.CDLL(None)


def resident_memory() -> int:
    """How much memory this process has in RAM, in bytes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # proc(5). By psutil it would be 0.4 MB in each worker of a mold, and ten times the work at every tick.
        fd = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            return int(os.read(fd, 100).split()[1]) * _PAGE
        finally:
            os.close(fd)
    return int(psutil.Process().memory_info().rss)


def asyncio_run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T:
    """asyncio.run() as Python 3.12 has it, with a loop factory. The package uvicorn-worker imports it from here."""
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)

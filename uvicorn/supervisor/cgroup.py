"""The memory of our cgroup: whether there is room for one more worker, and whom the kernel has killed for want of it.

Version 2 and version 1 of cgroups(7). A limit may be set at any level above us, so all of them are looked at, as far up
as they can be seen from here: in a container the mount point is our own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

# With less than this share of the limit free there is no room for one more worker, however small the others are.
HEADROOM = 0.1
# Version 1 says "no limit" by a number that no machine has.
UNLIMITED = 2**60

MOUNTED = Path("/sys/fs/cgroup")
TABLE = Path("/proc/self/cgroup")


class MemoryGroup:
    """The files of the cgroup that counts our memory.

    Args:
        mounted: Where the cgroup file systems are.
        table: Which cgroups this process is in.
    """

    def __init__(self, mounted: Path = MOUNTED, table: Path = TABLE) -> None:
        self._unified, self._root, own = _find(mounted, table)
        self._own = own

    def oom_kills(self) -> int:
        """How many processes the kernel has killed in it so far."""
        name = "memory.events" if self._unified else "memory.oom_control"
        return _count(self._own / name, "oom_kill")

    def has_room(self, need: int) -> bool:
        """Whether so many bytes, and a share of the limit, are free at every level."""
        return all(self._free(level) >= need for level in self._levels())

    def _levels(self) -> Iterator[Path]:
        level = self._own
        while True:
            yield level
            if level in (self._root, level.parent):
                return
            level = level.parent

    def _free(self, level: Path) -> float:
        """How much may still be used at this level, less the share that stays free."""
        if self._unified:
            # Above memory.high everything is slowed down until it is below it again: no place for a successor either.
            limits = [_number(level / "memory.max"), _number(level / "memory.high")]
            used, stat = _number(level / "memory.current"), "inactive_file"
        else:
            limits = [_number(level / "memory.limit_in_bytes")]
            used, stat = _number(level / "memory.usage_in_bytes"), "total_inactive_file"
        limit = min((each for each in limits if each is not None), default=UNLIMITED)
        if used is None or limit >= UNLIMITED:
            return float("inf")
        # Files that were read once fill the memory up to the limit; the kernel drops them when it wants room.
        in_use = used - _count(level / "memory.stat", stat)
        return limit * (1 - HEADROOM) - in_use


def _find(mounted: Path, table: Path) -> tuple[bool, Path, Path]:
    """Whether it is version 2, its mount point, and our own directory below."""
    paths = {}
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            paths[controllers] = path.lstrip("/")
    old = next((path for names, path in paths.items() if "memory" in names.split(",")), None)
    if old is not None or not (mounted / "cgroup.controllers").exists():
        root = mounted / "memory"
        own = root / (old or "")
        if (own / "memory.usage_in_bytes").exists():
            return False, root, own
        if (root / "memory.usage_in_bytes").exists():
            return False, root, root  # in a container the path is the host's
    own = mounted / paths.get("", "")
    return True, mounted, own if (own / "memory.current").exists() else mounted


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none: no such file, or "max"."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _count(path: Path, wanted: str) -> int:
    """A number out of a file with a name and a number in each line; 0 where it is not there."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == wanted and count.isdecimal():
                return int(count)
    return 0

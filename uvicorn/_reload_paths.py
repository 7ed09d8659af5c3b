"""Which directories the reloader watches: what the settings name, folded and made absolute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def as_list(value: Sequence[str] | str | None) -> list[str]:
    """One text or several, without repetitions, in order."""
    if value is None:
        return []
    values = [value] if isinstance(value, str) else value
    return list(dict.fromkeys(values))


def watched_directories(paths: Iterable[str], current: Path) -> list[Path]:
    """The existing directories among `paths`, absolute, without those that lie below another one."""
    return fold(path for path in (current / path for path in paths) if path.is_dir())


def matched_directories(patterns: Iterable[str], current: Path) -> list[Path]:
    """The directories that glob patterns name or match, folded."""
    found: list[Path] = []
    for pattern in patterns:
        # Every hidden directory there is: meant for files, and a home of thousands of directories.
        if pattern == ".*":
            continue
        named = current / pattern
        try:
            if named.is_dir():
                found.append(named)
        except OSError:  # the pattern is longer than a path may be
            continue
        if not Path(pattern).is_absolute():
            found.extend(path for path in current.glob(pattern) if path.is_dir())
    return fold(found)


def without(directories: Iterable[Path], excluded: Sequence[Path]) -> list[Path]:
    """`directories` less those that are, or lie below, an excluded one."""
    return [each for each in directories if not any(_is_at_or_below(each, other) for other in excluded)]


def fold(paths: Iterable[Path]) -> list[Path]:
    """Absolute, without repetitions, without directories below other ones."""
    resolved = list(dict.fromkeys(path.resolve() for path in paths))
    return [path for path in resolved if not any(other in path.parents for other in resolved)]


def _is_at_or_below(path: Path, other: Path) -> bool:
    return path == other or other in path.parents

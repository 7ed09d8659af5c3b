"""`python -m tests.protocols.http.count`, or `make corpus-count`: how many cases the corpus has, by their subject."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.protocols.http.cases import CORPUS, RUNS
from tests.protocols.http.harness import IMPLEMENTATIONS

# The subjects, as file names begin; the longest that fits counts.
GROUPS = (
    "chunked", "connection", "content-encoding", "content-length", "cut", "expect", "header-name", "header-section",
    "header-value", "host", "pipelining", "request-line", "reset", "size", "target", "trailer", "transfer-encoding",
    "upgrade", "version",
)  # fmt: skip


def counted(corpus: Path = CORPUS) -> dict[str, Counter[str]]:
    """Cases by subject, and by whether they are valid.

    Raises:
        ValueError: A file belongs to no group.
    """
    found: dict[str, Counter[str]] = {group: Counter() for group in GROUPS}
    for path in corpus.glob("*/*.http"):
        fitting = [group for group in GROUPS if path.stem.startswith(group + "-")]
        if not fitting:
            raise ValueError(f"{path.name}: of no group; they are {', '.join(GROUPS)}")
        found[max(fitting, key=len)][path.parent.name] += 1
    return found


def main() -> None:
    found = counted()
    print(f"{'':20}{'valid':>9}{'invalid':>9}{'all':>9}")
    for group, counts in found.items():
        print(f"{group:20}{counts['valid']:9}{counts['invalid']:9}{counts.total():9}")
    valid, invalid = (sum(counts[kind] for counts in found.values()) for kind in ("valid", "invalid"))
    print(f"{'all':20}{valid:9}{invalid:9}{valid + invalid:9}")
    print(f"each on {' and '.join(IMPLEMENTATIONS)}, in {len(RUNS)} ways: {', '.join(RUNS)}")
    print(f"together {(valid + invalid) * len(IMPLEMENTATIONS) * len(RUNS)} runs")


if __name__ == "__main__":
    main()

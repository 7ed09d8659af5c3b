"""What the kernel has left for connections."""

from __future__ import annotations

import sys

import pytest

from uvicorn._kernel import connections_at_most

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="systemd, and its descriptors, are elsewhere")


@on_posix
@pytest.mark.parametrize(("descriptors", "connections"), [(1024, 921), (1, 1), (-1, sys.maxsize)])
def test_application_keeps_descriptors_of_its_own(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    resource = pytest.importorskip("resource")
    limit = resource.RLIM_INFINITY if descriptors < 0 else descriptors
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert connections_at_most() == connections

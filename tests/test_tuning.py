"""Memory after start-up: the garbage collector, and what the C library keeps."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from uvicorn._tuning import THRESHOLD, freeze_heap


def test_heap_is_frozen_and_collected_less_often() -> None:
    before = gc.get_threshold()
    frozen = gc.get_freeze_count()  # on some interpreters never 0 again once it was not
    try:
        freeze_heap()
        assert gc.get_freeze_count() > frozen
        assert gc.get_threshold() == (THRESHOLD, *before[1:])
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


FAULTS = """
import resource, sys
from uvicorn._tuning import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
before = 0
for turn in range(60):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"x" * 65536 for _ in range(20)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], check=True, stdout=subprocess.PIPE, text=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives memory back at once")
def test_memory_that_is_freed_and_wanted_again_does_not_come_from_the_kernel_each_time() -> None:
    assert faults("given back") > 1000
    assert faults("kept") < 100

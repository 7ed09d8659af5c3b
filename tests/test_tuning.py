"""The garbage collector after start-up."""

from __future__ import annotations

import gc

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

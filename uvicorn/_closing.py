"""Closing what has been given up.

close(2) tells of trouble with what was written before, and leaves the descriptor closed all the same. Where nobody waits for
that, it is no failure of what goes on: a worker has been forked although the copy of its channel that is left over here
told an error in its last moment.
"""

from __future__ import annotations

import contextlib
import os
import socket


def close_quietly(*given_up: socket.socket | int) -> None:
    """Close sockets and descriptors, each of them, whatever the system says to it."""
    for each in given_up:
        with contextlib.suppress(OSError):
            if isinstance(each, int):
                os.close(each)
            else:
                each.close()

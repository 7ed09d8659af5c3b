"""The uvicorn command, stopped once at the place from which on its system calls are to fail.

What it imports is there by then: a program whose own modules cannot be read does not start, and nothing can be learned
from that. With INJECT_PHASE=start it stops itself (SIGSTOP) before it reads its command line, with INJECT_PHASE=takeover
in the program that an upgrade has put in the place of the first one; whoever has attached to it lets it go on.
"""

from __future__ import annotations

import ctypes
import os
import signal

import uvicorn.compose
import uvicorn.settings.yaml_file  # noqa: F401 - read where a configuration file is given
from uvicorn.main import main
from uvicorn.supervisor import upgrade

PR_SET_PTRACER = 0x59616D61


def phase() -> str:
    if upgrade.TRIAL in os.environ:
        return "trial"
    return "takeover" if upgrade.HANDOVER_FD in os.environ else "start"


if __name__ == "__main__":
    # Where only descendants may be traced (Yama), anybody may trace this one.
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1 & 0xFFFFFFFFFFFFFFFF), 0, 0, 0)
    if phase() == os.environ.get("INJECT_PHASE"):
        del os.environ["INJECT_PHASE"]
        os.kill(os.getpid(), signal.SIGSTOP)
    main(prog_name="uvicorn")

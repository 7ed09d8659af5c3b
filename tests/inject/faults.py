"""Which system calls of the master can fail in practice, and with what."""

from __future__ import annotations

import re

# Errors of the system's own making, not of a wrong argument: no descriptors, no memory, no room, interrupted, broken. What
# the kernel never refuses for such a reason (lseek, getsockopt, signal handlers) is left out. Closing tells of a write that
# has failed late, and which descriptor that was for is not decided here: whoever closes has given it up either way.
ERRORS: dict[str, tuple[str, ...]] = {
    "accept4": ("EMFILE",),
    "bind": ("EADDRINUSE", "ENOMEM"),
    "chmod": ("EIO",),
    "clone": ("EAGAIN", "ENOMEM"),
    "clone3": ("EAGAIN",),
    "close": ("EIO",),
    "connect": ("EAGAIN",),
    "dup": ("EMFILE",),
    "epoll_create1": ("EMFILE",),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "epoll_wait": ("EINTR",),
    "eventfd2": ("EMFILE",),
    "execve": ("ENOMEM", "EAGAIN"),
    "fchmod": ("EIO",),
    "fcntl": ("EMFILE",),
    "flock": ("EINTR", "ENOLCK"),
    "fstat": ("ENOMEM",),
    "ftruncate": ("ENOSPC",),
    "getdents64": ("EIO",),
    "getsockname": ("ENOBUFS",),
    "kill": ("EPERM",),
    "link": ("ENOSPC",),
    "listen": ("EADDRINUSE",),
    "memfd_create": ("EMFILE", "ENOMEM"),
    "mmap": ("ENOMEM",),
    "newfstatat": ("ENOMEM", "EIO"),
    "openat": ("EMFILE", "ENOMEM", "EIO"),
    "pipe2": ("EMFILE",),
    "poll": ("EINTR", "ENOMEM"),
    "ppoll": ("EINTR", "ENOMEM"),
    "pread64": ("EIO",),
    "read": ("EINTR", "EIO"),
    "readlink": ("EIO",),
    "recvfrom": ("EINTR", "ECONNRESET", "ENOMEM"),
    "recvmsg": ("EINTR", "ECONNRESET", "ENOMEM"),
    "rename": ("ENOSPC",),
    "sendmsg": ("EAGAIN", "ENOBUFS", "EPIPE"),
    "sendto": ("EAGAIN", "ENOBUFS", "ECONNREFUSED"),
    "setpgid": ("EPERM",),
    "setsockopt": ("ENOMEM",),
    "socket": ("EMFILE", "ENOBUFS"),
    "socketpair": ("EMFILE", "ENOMEM"),
    "statfs": ("EIO",),
    "unlink": ("EIO",),
    "vfork": ("EAGAIN",),
    "wait4": ("EINTR",),
    "write": ("ENOSPC", "EAGAIN", "EINTR"),
}

# Calls that do several things, of which only one can fail so: how that one looks in a trace.
ONLY: dict[str, re.Pattern[str]] = {
    # Reading and setting flags needs nothing; a copy needs a descriptor (fcntl(2)).
    "fcntl": re.compile(r"fcntl\(\d+, F_DUPFD"),
}


def can_fail(line: str) -> bool:
    """Whether the call in this line of a trace is one that can fail with the errors of its name."""
    call = line.partition("(")[0]
    return call in ERRORS and (call not in ONLY or bool(ONLY[call].match(line)))


def places(lines: list[str]) -> dict[str, list[int]]:
    """Which calls of each name can fail, out of a trace: their ordinals among all calls of that name."""
    seen: dict[str, int] = {}
    found: dict[str, list[int]] = {}
    for line in lines:
        if (named := re.match(r"(\w+)\(", line)) is None:
            continue
        call = named[1]
        seen[call] = seen.get(call, 0) + 1
        if can_fail(line):
            found.setdefault(call, []).append(seen[call])
    return found

"""Process 1 of a PID namespace: runs a command, and gives its numbers to strangers.

`python -m tests.e2e.init FD COMMAND ...`. A line `take N` on the socket FD makes a process of that number, in a group of its
own. It answers `taken N`, and from then on tells every signal that it gets (`N got 15`), and process 1 tells its end (`N ended
-9`). When the command has ended, `left CODE` is said, and process 1 waits for the end of the socket.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys

LAST = "/proc/sys/kernel/ns_last_pid"
# Somebody else may be faster: the number is the next one, but for whoever asks next.
TRIES = 100
UNCAUGHT = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD)


def take(number: int, channel: socket.socket) -> None:
    """Make the process of that number."""
    for _ in range(TRIES):
        with open(LAST, "w") as file:
            file.write(str(number - 1))
        pid = os.fork()
        if pid == 0:
            if os.getpid() == number:
                be_stranger(channel)
            os._exit(0)
        if pid == number:
            return
        os.waitpid(pid, 0)
    raise AssertionError(f"the number {number} cannot be had")


def be_stranger(channel: socket.socket) -> None:
    os.setpgid(0, 0)

    def tell(number: int, frame: object) -> None:
        channel.send(f"{os.getpid()} got {number}\n".encode())

    for number in signal.valid_signals() - set(UNCAUGHT):
        signal.signal(number, tell)
    channel.send(f"taken {os.getpid()}\n".encode())
    while True:
        signal.pause()


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    service = subprocess.Popen(sys.argv[2:])
    left = False
    while True:
        readable, _, _ = select.select([channel], [], [], 0.02)
        if readable:
            words = channel.recv(100).split()
            if not words:
                break
            take(int(words[1]), channel)
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            continue
        if pid:
            code = os.waitstatus_to_exitcode(status)
            left = left or pid == service.pid
            channel.send((f"left {code}\n" if pid == service.pid else f"{pid} ended {code}\n").encode())


if __name__ == "__main__":
    main()

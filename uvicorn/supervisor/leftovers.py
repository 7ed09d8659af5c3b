"""What workers have left behind in their process groups: told to end, then ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from uvicorn.supervisor.host import Host

# What a worker has left behind in its process group gets this long between SIGTERM and SIGKILL.
LEFTOVER_GRACE = 2.0
# At the end of the service nothing tells that such processes have gone: then it is looked this often.
LEFTOVER_POLL = 0.1

SIGTERM, SIGKILL = 15, 9

logger = logging.getLogger("uvicorn.error")


class Leftovers:
    """Process groups whose leader is gone.

    Args:
        host: The operating system.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._groups: list[tuple[float, int]] = []

    def deadlines(self) -> list[float]:
        return [at for at, _ in self._groups]

    def look(self, pid: int) -> None:
        """A worker is gone: tell what is left of its group to end."""
        if self._signal(pid, SIGTERM):
            logger.warning("Child process [%d] has left processes behind: terminated.", pid)
            self._groups.append((self._host.now() + LEFTOVER_GRACE, pid))

    def end_overdue(self) -> None:
        now = self._host.now()
        for at, pid in self._groups:
            if now >= at:
                self._signal(pid, SIGKILL)
        self._groups = [each for each in self._groups if now < each[0]]

    def wait(self, fds: Sequence[int], interrupted: Callable[[], bool]) -> None:
        """The service has ended, and what its workers have left behind is to end with it.

        Args:
            fds: What to listen to meanwhile.
            interrupted: Asked when one of them is readable: whether the wait is to be over.
        """
        while True:
            self._host.reap()  # as process 1 they are our children
            self._groups = [each for each in self._groups if self._signal(each[1], 0)]
            if not self._groups:
                return
            if self._host.wait(fds, LEFTOVER_POLL) and interrupted():
                self._groups = [(0.0, pid) for _, pid in self._groups]
            self.end_overdue()

    def _signal(self, pid: int, number: int) -> bool:
        """Signal what is left of a group; whether there is anybody.

        As long as there is, the system gives its number to no new process, and its leader has gone. So a process of that
        number says that the group has gone as well, and that another one may have its number.
        """
        return not self._host.has_process(pid) and self._host.signal_group(pid, number)

"""A file with the process id in it, locked as long as the process lives.

The lock (flock(2)) says whether the file is somebody's: it ends with the process that holds it, however that ends. A file
without one is stale, whoever has the number in it by now. The file appears whole, by a rename, and is removed in the end
if it is still ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile

from uvicorn._closing import close_quietly

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows only
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

# Two that start at the same moment come across each other once or twice.
TRIES = 20


class PidFileError(Exception):
    """The file cannot be had; the text says why."""


class PidFile:
    """The pid file of this process.

    Args:
        path: Where it is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._fd = -1

    def fileno(self) -> int:
        """The descriptor that holds the lock; -1 where there is none."""
        return self._fd

    def acquire(self) -> None:
        """Write our process id, where no living process has its own there.

        Raises:
            PidFileError: One has, or the file cannot be written.
        """
        if not HAS_LOCKS:  # pragma: no cover - Windows only
            raise PidFileError(f"pid file {self.path}: this system has no locks for it.")
        try:
            for _ in range(TRIES):
                if self._try():
                    return
        except OSError as exc:
            raise PidFileError(f"pid file {self.path}: cannot be written: {exc.strerror or exc}.") from exc
        raise PidFileError(f"pid file {self.path}: others keep writing it.")

    def _try(self) -> bool:
        """Whether it is ours now; else somebody else was faster, and it is to be looked at again."""
        stale = self._lock_stale()
        fd, temporary = -1, ""
        try:
            directory, name = os.path.split(self.path)
            fd, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(fd, 0o644)
            os.write(fd, b"%d\n" % os.getpid())
            if stale >= 0:
                # Under its lock: nobody else replaces it meanwhile.
                if _identity(os.fstat(stale)) != self._identity_there():
                    return False
                os.rename(temporary, self.path)
            else:
                os.link(temporary, self.path)
                os.unlink(temporary)
            temporary, self._fd, fd = "", fd, -1
            return True
        except FileExistsError:
            return False
        finally:
            close_quietly(*(each for each in (stale, fd) if each >= 0))
            if temporary:
                os.unlink(temporary)

    def _lock_stale(self) -> int:
        """The locked descriptor of a file that is nobody's; -1 where there is no file.

        Raises:
            PidFileError: It is somebody's, or is no file of this kind.
        """
        try:
            # Not waited for, where it is a FIFO; not followed, since others may own the directory.
            fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise PidFileError(f"pid file {self.path}: is a symbolic link.") from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise PidFileError(f"pid file {self.path}: is no regular file.")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            close_quietly(fd)
            raise PidFileError(
                f"pid file {self.path}: in use by process {text or '?'}: stop that one, or take another path."
            ) from None
        except BaseException:
            close_quietly(fd)
            raise
        return fd

    def _identity_there(self) -> tuple[int, int] | None:
        try:
            return _identity(os.lstat(self.path))
        except FileNotFoundError:
            return None

    def adopt(self, fd: int) -> None:
        """The program before has held it, with this descriptor; it is the same process."""
        os.set_inheritable(fd, False)
        self._fd = fd

    def release(self) -> None:
        """Remove the file, if it is still ours."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            if _identity(os.fstat(self._fd)) == self._identity_there():
                os.unlink(self.path)
        self.close_in_child()

    def close_in_child(self) -> None:
        """In a new process: with a copy of the descriptor left open the lock would outlive its owner."""
        if self._fd >= 0:
            close_quietly(self._fd)
            self._fd = -1


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino

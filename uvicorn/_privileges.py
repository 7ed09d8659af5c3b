"""Whom the processes run as that serve: user, groups and umask, taken after the sockets are open.

The master stays what it was started as, so that it can bind a port below 1024 and read a key again; its workers and its
control process step down, and cannot step up again. See docs/decisions/privileges.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

try:
    import grp
    import pwd
except ImportError:  # pragma: no cover - Windows only
    HAS_USERS = False
else:
    HAS_USERS = True

# <sys/prctl.h>
_PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a process is to become; whatever is None stays as it is.

    Attributes:
        uid, gid: User and group.
        groups: The supplementary groups, as initgroups(3) finds them.
        environ: What the environment is to say of the user.
        umask: Which rights new files do not get.
    """

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    environ: tuple[tuple[str, str], ...] = ()
    umask: int | None = None

    def take(self) -> None:
        """Become it, for good.

        Raises:
            OSError: The system refuses.
        """
        if self.umask is not None:
            os.umask(self.umask)
        if self.groups is not None:
            os.setgroups(self.groups)
        # Of root these change real, effective and saved one: with the saved one left there would be a way back.
        if self.gid is not None:
            os.setgid(self.gid)
        if self.uid is not None:
            os.setuid(self.uid)
            os.environ.update(self.environ)
        if self.uid is not None or self.gid is not None:
            _keep_looks()

    @property
    def changes_user(self) -> bool:
        """Whether anything but the umask changes."""
        return self.uid is not None or self.gid is not None


class IdentityError(ValueError):
    """There is no such identity, or it cannot be had.

    Attributes:
        setting: Whose value is wrong: "user" or "group".
        text: What is wrong with it.
    """

    def __init__(self, setting: str, text: str) -> None:
        super().__init__(f"{setting}: {text}")
        self.setting = setting
        self.text = text


UNCHANGED = Identity()


def identity_of(user: str | int | None, group: str | int | None, umask: int | None = None) -> Identity:
    """What the settings mean on this system.

    A user comes with its groups of the group database; `group` takes the place of its primary one. Who is it already
    changes nothing.

    Raises:
        IdentityError: There is no such user or group, or only root could become it.
    """
    if user is None and group is None:
        return Identity(umask=umask)
    if not HAS_USERS:  # pragma: no cover - Windows only
        raise IdentityError(
            "user" if user is not None else "group", "this system has no such users and groups."
        )
    account = _account(user) if user is not None else _own_account()
    uid = int(user) if account is None and user is not None else (account.pw_uid if account else os.geteuid())
    if user is not None and group is None and uid == os.geteuid():
        return Identity(umask=umask)
    if group is not None:
        gid = _gid(group)
    elif account is not None:
        gid = account.pw_gid
    else:
        raise IdentityError("user", f"{user} is not in the user database: give 'group' as well.")
    groups = tuple(os.getgrouplist(account.pw_name, gid)) if account is not None else (gid,)
    if os.geteuid() != 0:
        return _unchanged(user, group, uid, gid, umask)
    environ: tuple[tuple[str, str], ...] = ()
    if account is not None and user is not None and uid != os.geteuid():
        # As systemd does for User=: what looks for its files at home would look at root's.
        environ = (("HOME", account.pw_dir), ("USER", account.pw_name), ("LOGNAME", account.pw_name))
    changed = uid if user is not None and uid != os.geteuid() else None
    if changed is None and (group is None or gid == os.getegid()):
        return Identity(umask=umask)
    return Identity(changed, gid, groups, environ, umask)


def _unchanged(
    user: str | int | None, group: str | int | None, uid: int, gid: int, umask: int | None
) -> Identity:
    """For somebody who is not root: only what is so already can be asked for."""
    if uid != os.geteuid():
        raise IdentityError(
            "user", f"only root can become {user!r}: start the server as root, or as that user."
        )
    if group is not None and gid != os.getegid():
        raise IdentityError(
            "group", f"only root can change to {group!r}: start the server as root, or with it."
        )
    return Identity(umask=umask)


def _account(user: str | int) -> pwd.struct_passwd | None:
    """The user's entry; None for a number that has none."""
    if isinstance(user, int) or user.isdecimal():
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(int(user))
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise IdentityError("user", f"there is no user {user!r}.") from None


def _own_account() -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid())
    return None


def _gid(group: str | int) -> int:
    if isinstance(group, int) or group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise IdentityError("group", f"there is no group {group!r}.") from None


def is_root(uid_map: Path = Path("/proc/self/uid_map")) -> bool:
    """Whether this process is root of the machine. The root of a user namespace (a rootless container) is not."""
    if not HAS_USERS or os.geteuid() != 0:
        return False
    try:
        lines = uid_map.read_text().splitlines()
    except OSError:
        return True
    return len(lines) == 1 and lines[0].split()[:2] == ["0", "0"]


def _keep_looks() -> None:
    """Who changes its user gives its files in /proc to root and leaves no core (proc(5)): a worker could not measure
    its own memory any more, nor be looked at by those who may look at any process of its user."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)

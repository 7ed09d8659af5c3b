"""Whom a process becomes: what the settings mean on this system, and that there is no way back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from uvicorn._privileges import UNCHANGED, Identity, IdentityError, identity_of, is_root

if sys.platform == "win32":
    pytest.skip("needs users and groups", allow_module_level=True)

import grp
import pwd

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root can become anybody")

NOBODY = pwd.getpwnam("nobody")


def in_child(code: Callable[[], str]) -> str:
    """What a forked process finds out."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, code().encode())
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the parent compares it
            os.write(writer, repr(exc).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def test_nothing_given_changes_nothing() -> None:
    assert identity_of(None, None) == UNCHANGED
    assert identity_of(None, None, 0o27) == Identity(umask=0o27)
    assert not identity_of(None, None, 0o27).changes_user


def test_who_one_is_already_changes_nothing() -> None:
    own = pwd.getpwuid(os.geteuid())
    assert identity_of(own.pw_name, None) == UNCHANGED
    assert identity_of(own.pw_uid, os.getegid()) == UNCHANGED
    assert identity_of(str(own.pw_uid), None) == UNCHANGED


def test_who_one_is_already_needs_no_entry_in_the_user_database(monkeypatch: pytest.MonkeyPatch) -> None:
    # A container whose USER is a number.
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert identity_of("54321", None) == identity_of(54321, None) == UNCHANGED


@pytest.mark.parametrize(
    ("user", "group", "text"),
    [
        ("no-such-user", None, "user: there is no user 'no-such-user'."),
        (None, "no-such-group", "group: there is no group 'no-such-group'."),
        ("54321", None, "user: 54321 is not in the user database: give 'group' as well."),
        (54321, None, "user: 54321 is not in the user database: give 'group' as well."),
    ],
)
def test_what_there_is_not_is_told(user: str | None, group: str | None, text: str) -> None:
    with pytest.raises(IdentityError) as caught:
        identity_of(user, group)
    assert str(caught.value) == text


@as_user
def test_only_root_can_become_somebody_else() -> None:
    with pytest.raises(IdentityError, match=r"^user: only root can become 'root'"):
        identity_of("root", None)
    with pytest.raises(IdentityError, match=r"^group: only root can change to 54321"):
        identity_of(None, 54321)


@as_root
def test_a_user_comes_with_its_groups_and_its_home() -> None:
    identity = identity_of("nobody", None)
    assert (identity.uid, identity.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert identity.groups == tuple(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert dict(identity.environ) == {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
    assert identity == identity_of(NOBODY.pw_uid, None) == identity_of(str(NOBODY.pw_uid), None)


@as_root
def test_supplementary_groups_are_those_of_the_group_database(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def found(name: str, gid: int) -> list[int]:
        asked.append((name, gid))
        return [gid, 4, 20]

    monkeypatch.setattr(os, "getgrouplist", found)
    other = next(each for each in grp.getgrall() if each.gr_gid not in (0, NOBODY.pw_gid))
    identity = identity_of("nobody", other.gr_name)
    assert asked == [("nobody", other.gr_gid)]
    assert (identity.gid, identity.groups) == (other.gr_gid, (other.gr_gid, 4, 20))


@as_root
def test_a_number_that_nobody_has_needs_a_group_and_has_no_home() -> None:
    assert identity_of(54321, 54322) == Identity(54321, 54322, (54322,))
    assert identity_of(None, 54322).uid is None
    assert identity_of(None, 54322).changes_user


@as_root
def test_there_is_no_way_back() -> None:
    def code() -> str:
        os.environ["HOME"] = "/root"
        Identity(54321, 54322, (54322, 54323), (("HOME", "/nowhere"),), 0o27).take()
        refused = 0
        for attempt in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
            try:
                attempt()
            except PermissionError:
                refused += 1
        status = Path("/proc/self/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        capabilities = {fields[name].strip("0\n") for name in ("CapPrm", "CapEff", "CapAmb")}
        return (
            f"{fields['Uid'].split()} {fields['Gid'].split()} {fields['Groups'].split()} {fields['Umask'].strip()} "
            f"{refused} {capabilities} {os.environ['HOME']} {os.stat('/proc/self/fd').st_uid}"
        )

    if not sys.platform.startswith("linux"):
        pytest.skip("looks into /proc")
    assert in_child(code) == (
        "['54321', '54321', '54321', '54321'] ['54322', '54322', '54322', '54322'] ['54322', '54323'] 0027 "
        "3 {''} /nowhere 54321"
    )


@as_root
def test_the_group_alone_can_change() -> None:
    identity = identity_of(None, 54322)

    def code() -> str:
        identity.take()
        return f"{os.getresuid()} {os.getresgid()}"

    assert in_child(code) == "(0, 0, 0) (54322, 54322, 54322)"


@pytest.mark.parametrize(
    ("table", "root"),
    [
        ("         0          0 4294967295\n", True),
        ("         0     100000      65536\n", False),
        ("         0       1000          1\n         1     100000      65536\n", False),
    ],
)
@as_root
def test_root_of_a_user_namespace_is_not_root(table: str, root: bool, tmp_path: Path) -> None:
    file = tmp_path / "uid_map"
    file.write_text(table)
    assert is_root(file) is root
    assert is_root(tmp_path / "missing")


@as_user
def test_a_user_is_not_root() -> None:
    assert not is_root()

"""The pid file: whose it is, how it appears, when it goes."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from uvicorn._pidfile import PidFile, PidFileError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "uvicorn.pid"


def test_it_holds_the_process_id_and_goes_with_its_owner(path: Path) -> None:
    file = PidFile(path)
    file.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert not os.get_inheritable(file.fileno())
    assert list(path.parent.iterdir()) == [path]
    file.release()
    assert list(path.parent.iterdir()) == []
    file.release()


def test_one_that_a_living_process_holds_is_refused_and_left_alone(path: Path) -> None:
    file = PidFile(path)
    file.acquire()
    other = PidFile(path)
    with pytest.raises(PidFileError) as caught:
        other.acquire()
    assert str(caught.value) == (
        f"pid file {path}: in use by process {os.getpid()}: stop that one, or take another path."
    )
    other.release()
    assert path.exists()
    assert list(path.parent.iterdir()) == [path]
    file.release()


@pytest.mark.parametrize("content", ["1\n", "", "what?"])
def test_one_that_nobody_holds_is_replaced_whoever_has_its_number(path: Path, content: str) -> None:
    path.write_text(content)
    before = path.stat().st_ino
    file = PidFile(path)
    file.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_ino != before  # by a rename: no reader has seen half of it
    file.release()


def test_one_that_is_not_ours_any_more_stays(path: Path) -> None:
    file = PidFile(path)
    file.acquire()
    path.unlink()
    path.write_text("somebody else's\n")
    file.release()
    assert path.read_text() == "somebody else's\n"


def test_the_lock_ends_with_its_owner_and_not_with_a_child(path: Path) -> None:
    file = PidFile(path)
    file.acquire()
    file.close_in_child()  # as if the process had been killed
    assert path.exists()
    again = PidFile(path)
    again.acquire()
    again.release()


def test_a_symbolic_link_is_not_followed(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(PidFileError, match=r"is a symbolic link\.$"):
        PidFile(path).acquire()
    assert target.read_text() == "precious"


def test_what_is_no_file_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(PidFileError, match=r"is no regular file\.$"):
        PidFile(path).acquire()
    with pytest.raises(PidFileError, match=r"cannot be written: (Is a directory|Permission denied)\.$"):
        PidFile(path.parent).acquire()


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PidFileError, match=r"cannot be written: No such file or directory\.$"):
        PidFile(tmp_path / "missing" / "pid").acquire()
    descriptors = len(os.listdir("/dev/fd"))
    with pytest.raises(PidFileError):
        PidFile(tmp_path / "missing" / "pid").acquire()
    assert len(os.listdir("/dev/fd")) == descriptors


@pytest.mark.parametrize("stale", [True, False])
def test_of_many_that_start_at_the_same_moment_one_has_it(path: Path, stale: bool) -> None:
    if stale:
        path.write_text("1\n")
    files = [PidFile(path) for _ in range(8)]
    refused: list[PidFile] = []
    barrier = threading.Barrier(len(files))

    def start(file: PidFile) -> None:
        barrier.wait()
        try:
            file.acquire()
        except PidFileError:
            refused.append(file)

    threads = [threading.Thread(target=start, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (owner,) = [file for file in files if file not in refused]
    assert path.stat().st_ino == os.fstat(owner.fileno()).st_ino
    assert list(path.parent.iterdir()) == [path]
    owner.release()


def test_the_next_program_of_the_same_process_has_the_lock(path: Path) -> None:
    file = PidFile(path)
    file.acquire()
    adopted = PidFile(path)
    adopted.adopt(file.fileno())
    with pytest.raises(PidFileError):
        PidFile(path).acquire()
    adopted.release()
    assert not path.exists()

"""The memory of the cgroup, in both versions, at every level."""

from __future__ import annotations

from pathlib import Path

import pytest

from uvicorn.supervisor.cgroup import MemoryGroup

MIB = 2**20


class World:
    """A cgroup file system that is made up."""

    def __init__(self, path: Path) -> None:
        self.mounted = path / "cgroup"
        self.mounted.mkdir()
        self.table = path / "table"

    def group(self, table: str) -> MemoryGroup:
        self.table.write_text(table)
        return MemoryGroup(self.mounted, self.table)

    def write(self, directory: str, **files: object) -> None:
        (self.mounted / directory).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (self.mounted / directory / name.replace("_", ".", 1)).write_text(f"{content}\n")

    def second(self, directory: str = "", **files: object) -> None:
        """A directory of version 2."""
        (self.mounted / "cgroup.controllers").touch()
        self.write(directory, **files)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_a_cgroup_nothing_was_killed_and_there_is_room(world: World) -> None:
    group = world.group("")
    assert group.oom_kills() == 0
    assert group.has_room(2**50)
    world.table.unlink()
    assert MemoryGroup(world.mounted, world.table).has_room(2**50)


# --- version 2 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "used", "files", "need", "room"),
    [
        ("1000", "900", 0, 0, True),
        ("1000", "901", 0, 0, False),
        ("1000", "1000", 100, 0, True),  # the kernel drops files when it wants the room
        ("1000", "1000", 99, 0, False),
        ("1000", "500", 0, 400, True),  # a worker's size, and a tenth besides
        ("1000", "500", 0, 401, False),
        ("max", "1000000", 0, 2**40, True),
        ("", "900", 0, 0, True),
        ("1000", "", 0, 0, True),
    ],
)
def test_there_is_room_for_a_worker_with_a_tenth_of_the_limit_left(
    limit: str, used: str, files: int, need: int, room: bool, world: World
) -> None:
    stat = f"anon 5\nfile 6\ninactive_file {files}\nactive_file 900"
    world.second(memory_max=limit, memory_current=used, memory_stat=stat)
    assert world.group("0::/\n").has_room(need) is room


def test_a_limit_above_ours_counts(world: World) -> None:
    world.second(memory_current=5000)  # the root has no limit
    world.second("pod", memory_max=1000, memory_current=950, memory_stat="inactive_file 0")
    world.second("pod/web", memory_max="max", memory_current=10, memory_stat="inactive_file 0")
    world.second("other", memory_max=1000, memory_current=10, memory_stat="inactive_file 0")
    assert not world.group("0::/pod/web\n").has_room(0)
    assert world.group("0::/other\n").has_room(0)


def test_a_limit_that_slows_down_counts_as_well(world: World) -> None:
    world.second(memory_max=10_000, memory_high=1000, memory_current=950, memory_stat="")
    assert not world.group("0::/\n").has_room(0)


@pytest.mark.parametrize(
    ("content", "count"),
    [("low 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 9", 2), ("oom_kill x", 0), ("", 0)],
)
def test_kills_for_lack_of_memory_are_counted(content: str, count: int, world: World) -> None:
    world.second("web", memory_events=content, memory_current=1)
    assert world.group("0::/web\n").oom_kills() == count


@pytest.mark.parametrize("table", ["0::/\n", "0::/not/mounted/here\n", "1:name=systemd:/x\n0::/\n", ""])
def test_in_a_container_the_mount_point_is_ours(table: str, world: World) -> None:
    world.second(memory_events="oom_kill 4", memory_current=1)
    assert world.group(table).oom_kills() == 4


# --- version 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directory", "table"),
    [
        ("memory/web", "8:pids:/\n4:memory:/web\n0::/\n"),
        ("memory", "4:memory:/docker/0123\n0::/\n"),  # in a container the path is the host's
        ("memory/web", "3:cpu,memory:/web\n"),
    ],
)
def test_the_old_layout_is_read_too(directory: str, table: str, world: World) -> None:
    world.write("memory", memory_usage_in_bytes=1)
    world.write(
        directory,
        memory_limit_in_bytes=1000,
        memory_usage_in_bytes=950,
        memory_stat="inactive_file 900\ntotal_inactive_file 49",
        memory_oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 7",
    )
    group = world.group(table)
    assert not group.has_room(0)
    assert group.oom_kills() == 7
    world.write(directory, memory_stat="total_inactive_file 50")
    assert group.has_room(0)


def test_the_old_layouts_number_for_no_limit_is_none(world: World) -> None:
    world.write("memory", memory_limit_in_bytes=2**63 - 4096, memory_usage_in_bytes=2**50)
    assert world.group("4:memory:/\n").has_room(2**50)


def test_that_of_this_process_can_be_read() -> None:
    assert MemoryGroup().has_room(0) in (True, False)
    assert MemoryGroup().oom_kills() >= 0

"""Steering: the program, and what the kernel makes of it."""

from __future__ import annotations

import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvicorn.supervisor import steering
from uvicorn.supervisor.steering import program, steer

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="SO_ATTACH_REUSEPORT_CBPF is Linux only"
)

# <linux/bpf_common.h>
LOAD_WORD_ABSOLUTE = 0x00 | 0x00 | 0x20
MODULO_CONSTANT = 0x04 | 0x90 | 0x00
JUMP_IF_EQUAL = 0x05 | 0x10 | 0x00
RETURN_CONSTANT = 0x06 | 0x00
# <linux/filter.h>: SKF_AD_OFF + SKF_AD_RANDOM
RANDOM = 2**32 - 0x1000 + 56


def run(code: bytes, random: int) -> int:
    """Interpret a classic BPF program."""
    instructions = list(struct.iter_unpack("=HBBI", code))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, constant = instructions[at]
        at += 1
        if operation == LOAD_WORD_ABSOLUTE:
            assert constant == RANDOM
            accumulator = random
        elif operation == MODULO_CONSTANT:
            accumulator %= constant
        elif operation == JUMP_IF_EQUAL:
            at += if_true if accumulator == constant else if_false
        else:
            assert operation == RETURN_CONSTANT
            return int(constant)


@given(st.lists(st.integers(0, 511), min_size=1, max_size=64, unique=True), st.integers(0, 2**32 - 1))
def test_the_program_picks_the_index_that_chance_points_at(indexes: list[int], random: int) -> None:
    assert run(program(indexes), random) == indexes[random % len(indexes)]


def test_the_program_is_eight_bytes_for_each_instruction() -> None:
    assert program([5]) == struct.pack("=HBBIHBBIHBBI", 0x20, 0, 0, 0xFFFFF038, 0x94, 0, 0, 1, 0x06, 0, 0, 5)


@pytest.mark.parametrize("count", [1, 2, 512])
def test_the_program_fits_the_limit_of_the_kernel(count: int) -> None:
    # BPF_MAXINSNS
    assert len(program(range(count))) // 8 == 2 * count + 1 <= 4096


@pytest.fixture
def pair() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    port = 0
    for _ in range(2):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(100)
        sock.setblocking(False)
        port = sock.getsockname()[1]
        sockets.append(sock)
    yield sockets
    for sock in sockets:
        sock.close()


def connect(sockets: list[socket.socket], count: int = 20) -> Counter[int]:
    """Connect; by index, how many connections each socket got."""
    clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(count)]
    got: Counter[int] = Counter()
    for i, sock in enumerate(sockets):
        while True:
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                break
            got[i] += 1
    for client in clients:
        client.close()
    return got


@on_linux
@pytest.mark.parametrize("index", [0, 1])
def test_all_connections_go_to_the_one_socket_that_is_chosen(pair: list[socket.socket], index: int) -> None:
    assert steer(pair[0], [index])
    assert connect(pair) == {index: 20}


@on_linux
def test_the_last_program_holds_whichever_socket_it_was_given_to(pair: list[socket.socket]) -> None:
    assert steer(pair[0], [0])
    assert steer(pair[1], [1])
    assert connect(pair) == {1: 20}


@on_linux
def test_connections_are_spread_over_several_that_are_chosen(pair: list[socket.socket]) -> None:
    assert steer(pair[0], [0, 1])
    got = connect(pair, 60)  # one of them gets none once in 10 to the 18
    assert got[0] > 0
    assert got[1] > 0


@on_linux
def test_an_index_out_of_range_leaves_the_choice_to_the_kernel(pair: list[socket.socket]) -> None:
    assert steer(pair[0], [7])
    assert connect(pair).total() == 20


@on_linux
def test_a_socket_without_a_group_cannot_be_steered() -> None:
    with socket.socket() as sock:
        assert steer(sock, [0]) is False


def test_nothing_is_steered_to_nowhere() -> None:
    with socket.socket() as sock:
        assert steer(sock, []) is False


def test_other_systems_do_not_steer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering.sys, "platform", "darwin")
    with socket.socket() as sock:
        assert steer(sock, [0]) is False

"""Which of the sockets that share a port get new connections (Linux).

The kernel spreads connections over all sockets of a SO_REUSEPORT group, also to one whose worker has just died or
hangs. A classic BPF program on the group chooses among those that have somebody behind them (socket(7),
SO_ATTACH_REUSEPORT_CBPF). The index it returns is the order in which the sockets began to listen; one that is out of range
makes the kernel fall back to its own choice.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Collection, Iterable, Sequence

from uvicorn._addresses import Address
from uvicorn.supervisor.listeners import SHARED, ListenerSet

# <asm-generic/socket.h>; Python's socket module does not have it.
SO_ATTACH_REUSEPORT_CBPF = 51

# <linux/bpf_common.h> and <linux/filter.h>.
_LD_W_ABS = 0x20
_ALU_MOD_K = 0x94
_JMP_JEQ_K = 0x15
_RET_K = 0x06
_AD_RANDOM = 0xFFFFF000 + 56


def program(indexes: Sequence[int]) -> bytes:
    """A classic BPF program that picks one of the indexes at random: eight bytes for each instruction."""
    instructions = [(_LD_W_ABS, 0, 0, _AD_RANDOM), (_ALU_MOD_K, 0, 0, len(indexes))]
    for i, index in enumerate(indexes[:-1]):
        instructions.append((_JMP_JEQ_K, 0, 1, i))  # not this one: skip its return
        instructions.append((_RET_K, 0, 0, index))
    instructions.append((_RET_K, 0, 0, indexes[-1]))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def steer(sock: socket.socket, indexes: Sequence[int]) -> bool:
    """Let the socket's group give connections only to the sockets with these indexes; False where it cannot."""
    if not sys.platform.startswith("linux") or not indexes:
        return False
    code = program(indexes)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and a pointer to them.
    fprog = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, fprog)
    except OSError:
        return False
    return True


class Steering:
    """Remembers what each group was told last."""

    def __init__(self) -> None:
        self._told: dict[Address, tuple[socket.socket, tuple[int, ...]]] = {}

    def point_at(self, slots: Collection[int], addresses: Iterable[Address], listeners: ListenerSet) -> None:
        """Let new connections to these addresses go to the sockets of these slots."""
        for address in addresses:
            own = [key for key in listeners.held if key.address == address and key.slot != SHARED]
            indexes = tuple(i for i, key in enumerate(own) if key.slot in slots)
            if not indexes:
                continue
            sock = listeners.held[own[0]].sock
            if self._told.get(address) != (sock, indexes):
                self._told[address] = (sock, indexes)
                steer(sock, indexes)

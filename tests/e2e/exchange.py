"""Thousands of WebSocket messages each way, of every size and in every fragmentation, compared byte for byte.

    python -m tests.e2e.exchange [--messages 10000] [--ws websockets,wsproto] [--seed 1]

Sizes are log-uniform from 0 to 1 MiB, so that small and large ones are equally frequent and it ends in minutes. Text and
binary alternate at random; messages come in one frame or in up to a hundred, empty ones among them, with pings between, in
packets of any size; several are on their way at the same time. The memory of the server is looked at all the while: it
must not grow with the number of messages.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

from tests.autobahn.case import Event
from tests.autobahn.client import Client
from tests.autobahn.suite import echo_server
from tests.protocols.websockets.frames import BINARY, CONT, PING, PONG, RSV1, TEXT, frame

MIB = 2**20
LARGEST = MIB
# How much is on its way at most, so that memory says something about the server: in messages, and in bytes.
WINDOW, WINDOW_BYTES = 16, 2 * MIB
OFFER = "permessage-deflate; client_max_window_bits"


@dataclass
class Outcome:
    """What an exchange was.

    Attributes:
        messages, fragments, size: How many went each way, in how many frames, and their bytes.
        wrong: How many came back otherwise than they went, or did not come back.
        memory: The server's resident memory in bytes, over time.
    """

    messages: int = 0
    fragments: int = 0
    size: int = 0
    wrong: int = 0
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)

    @property
    def growth(self) -> int:
        """By how much the peak of the second half is above that of the first."""
        half = len(self.memory) // 2
        return max(self.memory[half:]) - max(self.memory[:half])


class Contents:
    """Random messages, cut from something random and something compressible."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._binary = rng.randbytes(MIB // 2) + bytes(rng.choices(b"abcdef\0\xff", k=MIB // 2 + LARGEST))
        letters = "abcdefghijklmnopqrstuvwxyz     äöü€𤭢"
        self._text = "".join(rng.choices(letters, k=MIB // 4 + LARGEST))

    def take(self) -> tuple[int, bytes]:
        """Opcode and content of one."""
        rng = self._rng
        size = int((LARGEST + 1) ** rng.random()) - 1 if rng.random() < 0.999 else LARGEST
        if rng.random() < 0.5:
            start = rng.randrange(len(self._binary) - size)
            return BINARY, self._binary[start : start + size]
        start = rng.randrange(len(self._text) - size)
        data = self._text[start : start + size].encode()[:size]
        return TEXT, data.decode("utf-8", "ignore").encode()

    def frames(self, opcode: int, data: bytes, rsv: int) -> list[bytes]:
        """One message in frames of random sizes; pings may be between them."""
        rng = self._rng
        count = rng.choice((1, 1, 1, 2, 3, rng.randint(1, 100)))
        ends = [0, *sorted(rng.randint(0, len(data)) for _ in range(count - 1)), len(data)]
        mask = rng.randbytes(4)
        found = []
        for i, (start, end) in enumerate(pairwise(ends)):
            last = i == count - 1
            found.append(frame(CONT if i else opcode, data[start:end], last, 0 if i else rsv, mask))
            if not last and rng.random() < 0.1:
                found.append(frame(PING, b"between", mask=mask))
        return found

    def packets(self, data: bytes) -> Iterator[bytes]:
        """The same bytes, cut at a few places."""
        cuts = sorted(self._rng.randint(0, len(data)) for _ in range(self._rng.choice((0, 0, 1, 3))))
        for start, end in pairwise((0, *cuts, len(data))):
            yield data[start:end]


async def exchange(port: int, pid: int, messages: int, deflate: bool, seed: int) -> Outcome:
    """Send and get back so many messages on one connection."""
    outcome = Outcome()
    contents = Contents(random.Random(seed))
    server = psutil.Process(pid)
    client = Client()
    await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    await client.open(OFFER if deflate else "")
    on_the_way: deque[Event] = deque()
    started = time.monotonic()

    def compare() -> None:
        events, client.seen.events = client.seen.events, []
        for event in events:
            if event.opcode != PONG:
                outcome.wrong += event != on_the_way.popleft()

    async def until(count: int, size: int) -> None:
        """Wait until no more than so much is on its way."""
        compare()
        while len(on_the_way) > count or sum(len(event.payload) for event in on_the_way) > size:
            if not await client.until(lambda: bool(client.seen.events)) or client.seen.ended:
                raise AssertionError(
                    f"{len(on_the_way)} messages did not come back: {client.seen.mistake or 'nothing comes'}"
                )
            compare()

    try:
        for number in range(messages):
            if number % (messages // 100 or 1) == 0:
                outcome.memory.append(server.memory_info().rss)
            opcode, data = contents.take()
            await until(WINDOW, max(0, WINDOW_BYTES - len(data)))
            on_the_way.append(Event(opcode, data))
            outcome.messages += 1
            outcome.size += len(data)
            wire = client.inflater.compress(data) if client.inflater is not None else data
            frames = contents.frames(opcode, wire, RSV1 if deflate else 0)
            outcome.fragments += len(frames)
            await client.write(contents.packets(b"".join(frames)))
        await until(0, 0)
    finally:
        with contextlib.suppress(OSError):
            client.transport.abort()
    outcome.memory.append(server.memory_info().rss)
    outcome.seconds = time.monotonic() - started
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.exchange")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--ws", default="websockets-sansio,websockets,wsproto")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    wrong = 0
    print(
        f"{'':28}{'messages':>9}{'frames':>9}{'MB':>8}{'wrong':>7}{'MB at first':>13}{'peak':>7}{'last':>7}{'growth':>8}{'s':>6}"
    )
    for ws in options.ws.split(","):
        for deflate in (False, True):
            with (
                tempfile.TemporaryDirectory(prefix="exchange-") as directory,
                echo_server(Path(directory), ws) as server,
            ):
                found = asyncio.run(
                    exchange(server.port, server.pid, options.messages, deflate, options.seed)
                )
            wrong += found.wrong
            memory = (found.memory[0], max(found.memory), found.memory[-1], found.growth)
            print(
                f"{ws + (', deflate' if deflate else ''):28}{found.messages:>9}{found.fragments:>9}{found.size / 1e6:>8.0f}"
                f"{found.wrong:>7}{memory[0] / 1e6:>13.1f}" + "".join(f"{size / 1e6:>7.1f}" for size in memory[1:3])
                + f"{memory[3] / 1e6:>8.1f}{found.seconds:>6.0f}", flush=True,
            )  # fmt: skip
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

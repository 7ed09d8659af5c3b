"""Groups 9, 12 and 13: large and many messages, plain and compressed."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterator

from tests.autobahn.case import Case, Echoes, Message, echoed
from tests.protocols.websockets.frames import BINARY, TEXT

KIB, MIB = 2**10, 2**20

# (size of a message, of a frame; 0 for all in one)
COMPRESSED = (
    (16, 0), (64, 0), (256, 0), (KIB, 0), (4 * KIB, 0), (8 * KIB, 0), (16 * KIB, 0), (32 * KIB, 0), (64 * KIB, 0),
    (128 * KIB, 0), (8 * KIB, 256), (16 * KIB, 256), (32 * KIB, 256), (64 * KIB, 256), (128 * KIB, 256),
    (128 * KIB, KIB), (128 * KIB, 4 * KIB), (128 * KIB, 32 * KIB),
)  # fmt: skip
OFFERS = (
    "permessage-deflate",
    "permessage-deflate; server_no_context_takeover; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=15; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
    (
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits, "
        "permessage-deflate; server_no_context_takeover, permessage-deflate"
    ),
    "permessage-deflate; client_no_context_takeover; client_max_window_bits=9",
)


# --- what compressed messages are cut from -----------------------------------------------------------


def _json(rng: random.Random) -> str:
    rows = [
        {"id": i, "name": f"näme {rng.randrange(999)}", "value": rng.random(), "tags": rng.sample(["a", "b€", "c"], 2)}
        for i in range(1500)
    ]  # fmt: skip
    return json.dumps(rows, ensure_ascii=False, indent=1)


def _picture(rng: random.Random) -> bytes:
    value, found = 128, bytearray()
    for _ in range(200_000):
        value = min(255, max(0, value + rng.randint(-3, 3)))
        found.append(value)
    return bytes(found)


def _prose(rng: random.Random) -> bytes:
    words = ["".join(rng.choices("abcdefghijklmnoprstuwäöüß", k=rng.randint(2, 11))) for _ in range(3000)]
    weights = [1 / rank for rank in range(1, 3001)]
    return " ".join(rng.choices(words, weights, k=32_000)).encode("latin-1")


def _html(rng: random.Random) -> str:
    cells = (
        f'<td class="n{rng.randrange(9)}"><a href="/{rng.randrange(9999)}">→ {rng.random():.3f}</a></td>'
        for _ in range(4000)
    )
    return "<html><body><table>\n" + "\n".join(f"<tr>{cell}</tr>" for cell in cells) + "</table></body></html>"  # fmt: skip


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(200_000)


_MAKERS: dict[str, Callable[[random.Random], str | bytes]] = {
    "json": _json, "picture": _picture, "prose": _prose, "html": _html, "noise": _noise,
    "stars": lambda _: "*" * 4096, "bytes": lambda _: b"\xfe" * 4096,
}  # fmt: skip


@functools.cache
def source(name: str) -> str | bytes:
    """The same each time, on every machine."""
    return _MAKERS[name](random.Random(name))


def contents(name: str, size: int, count: int) -> Iterator[bytes]:
    """So many messages, one behind the other in the source, which begins again at its end."""
    whole = source(name)
    start = 0
    for _ in range(count):
        end = start + size
        turn: str | bytes = whole[start:end]
        while len(turn) < size:
            turn += whole[: size - len(turn)]  # type: ignore[operator]
        start = end % len(whole)
        yield turn.encode() if isinstance(turn, str) else turn


# --- the tables --------------------------------------------------------------------------------------


def large() -> Iterator[Case]:
    text, data = b"BAsd7&jh23", b"\x00\xfe\x23\xfa\xf0"
    sizes = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB)
    for i, size in enumerate(sizes, 1):
        yield echoed(f"9.1.{i}", Message(TEXT, text, size))
    for i, size in enumerate(sizes, 1):
        yield echoed(f"9.2.{i}", Message(BINARY, data, size))
    pieces = (64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB)
    for i, size in enumerate(pieces, 1):
        yield echoed(f"9.3.{i}", Message(TEXT, b"*", 4 * MIB, fragment=size))
    for i, size in enumerate(pieces, 1):
        yield echoed(f"9.4.{i}", Message(BINARY, b"\xfe", 4 * MIB, fragment=size))
    chops = (64, 128, 256, 512, KIB, 2 * KIB)
    for i, size in enumerate(chops, 1):
        yield echoed(f"9.5.{i}", Message(TEXT, text, MIB, chop=size))
    for i, size in enumerate(chops, 1):
        yield echoed(f"9.6.{i}", Message(BINARY, data, MIB, chop=size))


def many() -> Iterator[Case]:
    for i, size in enumerate((0, 16, 64, 256, KIB, 4 * KIB), 1):
        yield Case(f"9.7.{i}", (Echoes(TEXT, "stars", size),))
        yield Case(f"9.8.{i}", (Echoes(BINARY, "bytes", size),))


def compressed() -> Iterator[Case]:
    for j, name in enumerate(("json", "picture", "prose", "html", "noise"), 1):
        opcode = TEXT if isinstance(source(name), str) else BINARY
        for i, (size, fragment) in enumerate(COMPRESSED, 1):
            echoes = Echoes(opcode, name, size, fragment)
            yield Case(f"12.{j}.{i}", (echoes,), offer="permessage-deflate; client_max_window_bits")
    for j, offer in enumerate(OFFERS, 1):
        for i, (size, fragment) in enumerate(COMPRESSED, 1):
            yield Case(f"13.{j}.{i}", (Echoes(TEXT, "json", size, fragment),), offer=offer)


def cases() -> Iterator[Case]:
    yield from large()
    yield from many()
    yield from compressed()

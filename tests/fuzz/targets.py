"""What is fuzzed: each target takes any bytes, and raises only where a promise is broken.

A target's first byte says how the rest is cut into packets, so that what finds inputs finds cuts as well.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httptools

from tests.fuzz import connections
from tests.fuzz.reading import MAX_INPUT, cut, read
from tests.protocols.http.cases import CORPUS, load
from tests.protocols.websockets.frames import (
    BINARY,
    CONT,
    PING,
    RSV1,
    TEXT,
    close_frame,
    deflated,
    events_of,
    frame,
)
from uvicorn.protocols.http.h11_impl import H11Codec
from uvicorn.protocols.http.httptools_impl import HttpToolsCodec
from uvicorn.protocols.websockets._deflate import agree
from uvicorn.protocols.websockets._engine import Closed, Pong
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsEngine
from uvicorn.protocols.websockets.wsproto_impl import WSProtoEngine
from uvicorn.settings.layers import SettingsError, merge
from uvicorn.settings.yaml_file import from_yaml

# llhttp takes several blanks between the words of a request line, which RFC 9112 3 allows; h11 does not.
MORE_BLANKS = re.compile(rb"^[^\r\n]*  [^\r\n]*HTTP/|^[^\r\n]*HTTP/[^\r\n]* ", re.MULTILINE)


# llhttp takes a version 1.1 of RTSP and ICE as well, which nobody speaks: to look for it in each packet would cost a request
# 0.1 us of 6. It is served as what else it says, and frames like HTTP.
OTHER_11 = re.compile(rb" (?:RTSP|ICE)/1\.1")


# Version 1.0 of those is refused. Where its line cannot be told from one of HTTP, since it stands behind a body whose place in
# its packet is not known for certain, both are: how much is served may depend on how it is cut, but none of theirs is.
OTHER_10 = re.compile(rb" (?:RTSP|ICE)/1\.0\r\n")


# --- HTTP ---------------------------------------------------------------------------------------------


@functools.cache
def llhttp_knows(method: bytes) -> bool:
    """llhttp has a list of methods, h11 takes every token. PRI is HTTP/2's preface, SOURCE belongs to ICE."""
    try:
        httptools.HttpRequestParser(object()).feed_data(method + b" / HTTP/1.1\r\n")
    except httptools.HttpParserError:
        return False
    return method not in (b"PRI", b"SOURCE")


def http(data: bytes) -> None:
    """Both codecs read the same requests, whole and cut, or refuse."""
    packets, joined = cut(data)
    results = {}
    in_pieces = {}
    for codec_class in (HttpToolsCodec, H11Codec):
        whole = read(codec_class, [joined])
        split = read(codec_class, packets)
        # h11 refuses an incomplete head, or chunked framing, by its size when it comes in pieces.
        same = whole[0] == split[0] or len(joined) > 2048
        assert same or OTHER_10.search(joined), f"{codec_class.__name__}: {whole} {split}"
        results[codec_class] = whole
        in_pieces[codec_class] = split[0]
    ours, theirs = results[HttpToolsCodec], results[H11Codec]
    if MORE_BLANKS.search(joined) or OTHER_11.search(joined) or len(joined) > 2048:
        return
    shorter = min(len(ours[0]), len(theirs[0]))
    assert ours[0][:shorter] == theirs[0][:shorter], f"{ours} {theirs}"
    assert len(ours[0]) <= len(theirs[0]), f"h11 refuses: {ours} {theirs}"
    if OTHER_10.search(joined):
        cut_ours = in_pieces[HttpToolsCodec]
        assert cut_ours == theirs[0][: len(cut_ours)], f"{cut_ours} {theirs}"
        return
    further = [request[0] for request in theirs[0][shorter:]]
    assert all(not llhttp_knows(method) for method in further[:1]), f"httptools refuses: {ours} {theirs}"


# --- WebSockets ---------------------------------------------------------------------------------------

LARGEST = 1000
DEFLATE: Any = [("permessage-deflate", [])]


class _LibraryOnly(WebSocketsEngine):
    """The engine with its fast path closed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._whole = frozenset()


def _messages(engine_class: Any, packets: list[bytes], deflate: bool) -> tuple[list[Any], bool]:
    engine = engine_class(LARGEST, agree(DEFLATE) if deflate else None)
    messages: list[Any] = []
    ended = False
    for packet in packets:
        if ended:
            break
        for event in events_of(engine, packet):
            assert not ended, "an event behind the last"
            if isinstance(event, Closed):
                ended = True
                assert event.code in (1005, 1006) or 1000 <= event.code < 5000
            elif not isinstance(event, Pong):
                assert len(event) <= LARGEST, "a message above the limit"
                messages.append(event)
        engine.output()
    return messages, ended


def websockets(data: bytes) -> None:
    """Both engines read the same messages, whole and cut, or end the connection."""
    packets, joined = cut(data)
    deflate = bool(data[:1] and data[0] & 1)
    seen = []
    # Frames that are whole messages have a path of their own, which reads what the library reads.
    fast, slow = (_messages(engine, packets, deflate) for engine in (WebSocketsEngine, _LibraryOnly))
    assert fast == slow, f"{fast} {slow}"
    for engine_class in (WebSocketsEngine, WSProtoEngine):
        whole, _ = _messages(engine_class, [joined], deflate)
        split, _ = _messages(engine_class, packets, deflate)
        # Cut, the messages before a mistake have been delivered; the rest of their packet may not be.
        shorter = min(len(whole), len(split))
        assert whole[:shorter] == split[:shorter], f"{engine_class.__name__}: {whole} {split}"
        seen.append(split)
    shorter = min(len(each) for each in seen)
    assert seen[0][:shorter] == seen[1][:shorter], seen


# --- YAML ---------------------------------------------------------------------------------------------

_DIRECTORY = tempfile.TemporaryDirectory(prefix="uvicorn-fuzz-")
_PATH = os.path.join(_DIRECTORY.name, "c.yaml")


def yaml(data: bytes) -> None:
    """A configuration file is settings, or a list of problems with their places; never another exception."""
    Path(_PATH).write_bytes(data[:MAX_INPUT])
    layer, problems = from_yaml(_PATH, {"NAME": "value", "EMPTY": "", "PORT": "80"})
    for problem in problems:
        assert problem.message
    try:
        merge([layer])
    except SettingsError as exc:
        assert exc.problems


# --- what to begin with -------------------------------------------------------------------------------


def _http_seeds() -> Iterator[bytes]:
    for path in sorted(CORPUS.glob("*/*.http")):
        data = load(path).data
        if len(data) < 1500:
            yield b"\0" + data
            yield b"\1" + data


def _websocket_seeds() -> Iterator[bytes]:
    pieces = [
        frame(TEXT, b"hello"),
        frame(TEXT, "höl".encode(), final=False) + frame(PING, b"p") + frame(CONT, b"lo"),
        frame(BINARY, b"x" * 200) + frame(BINARY, b"x" * 2000),
        frame(TEXT, deflated(b"hello" * 20), rsv=RSV1),
        frame(BINARY, deflated(b"\0" * 100_000), rsv=RSV1),
        frame(TEXT, b"\xff") + frame(TEXT, b"more"),
        frame(BINARY, b"x", declared=2**40, length_bytes=8),
        frame(TEXT, b"early", mask=None),
        frame(CONT, b"nothing"),
        close_frame(1000, b"bye") + frame(TEXT, b"late"),
        close_frame(999),
    ]
    for piece in pieces:
        for first in (b"\0", b"\1", b"\7"):
            yield first + piece


def _yaml_seeds() -> Iterator[bytes]:
    yield b"app: shop.main:app\nport: 80\nworkers: auto\n"
    yield b"bind: ['127.0.0.1:80', 'unix:/a', 'fd://3']\ntimeout_keep_alive: 5s\nlimit_worker_memory: 512M\n"
    yield b"port: ${PORT}\nroot_path: $$x${NAME:-y}${EMPTY}\nheaders: [[a, b], 'c:d']\n"
    yield b"a: &a [1, 2]\nb: [*a, *a]\nc: {<<: *a}\n"
    yield b"log_config: {version: 1, handlers: {a: {class: logging.StreamHandler}}}\n"
    yield b"port: 80\nport: 81\n"
    yield b"? [a, b]\n: !!python/object/apply:os.system ['true']\n"
    yield b"port: 0x50\nworkers: 1_000\nreload: yes\nfd: ~\nbacklog: .inf\nws_max_size: 1e400\n"
    yield b"--- %YAML 1.1\n--- |\n text\n...\n"
    yield b'\xef\xbb\xbfport: 80\r\napp: "a\\u0000b"\r\n'
    yield b"x: 2001-01-01 00:00:00\ny: 190:20:30\nz: !!binary aGVsbG8=\n"


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]] = {
    "http": (http, _http_seeds),
    "connection": (connections.connection, lambda: connections.seeds(_http_seeds())),
    "websockets": (websockets, _websocket_seeds),
    "yaml": (yaml, _yaml_seeds),
}


def found(name: str) -> list[bytes]:
    """What fuzzing has found before, and is kept in tests/fuzz/found."""
    return [path.read_bytes() for path in sorted((Path(__file__).parent / "found").glob(f"{name}-*"))]

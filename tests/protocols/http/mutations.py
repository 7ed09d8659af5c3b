"""Requests that are almost right: seeded mutations of the corpus, and requests put together from dubious parts.

Random bytes are refused at the first of them and find nothing. What finds disagreements is a request that is right but
for one or two places, and the places are those where parsers have disagreed before: line ends, white space, framing
fields, chunk lines, what stands between two requests.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

# What is put in, or takes the place of something.
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\r\n ", b"\r\n\t", b" ", b"\t", b"\x00", b"\x0b", b"\x0c",
    b"\x85", b"\xa0", b"\xff", b"\x1b", b"\x7f", b":", b";", b",", b"=", b'"', b"\\", b"#", b"?", b"%", b"/", b"//", b"*",
    b"+", b"-", b"_", b"0", b"1", b"5", b"0x", b"ffffffffffffffff", b"chunked", b"identity", b"gzip", b"close",
    b"keep-alive", b"upgrade", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"GET", b"POST",
    b"CONNECT", b"OPTIONS", b"PRI", b"0\r\n\r\n", b"5\r\nhello\r\n", b"Host: evil.example\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n", b"Content-Length : 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: foo\r\n", b"Expect: 100-continue\r\n", b" folded\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: example.org\r\n\r\n",
)  # fmt: skip
# Requests put together: each part from one of these.
METHODS = (b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"FOO", b"get", b"CONNECT", b"PRI", b"G\tT", b"")
TARGETS = (b"/", b"/a?b=c", b"*", b"http://example.org/", b"http://other.example/x", b"//host/p", b"/a b", b"/#f", b"x",
           b"/\xff", b"/%zz", b"example.org:80", b"/unread", b"")  # fmt: skip
VERSIONS = (
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"HTTP/0.9",
    b"HTP/1.1",
    b"",
)
HOSTS = (b"Host: example.org", b"Host: example.org", b"Host: example.org", b"Host:", b"Host: a b", b"Host: [::1]:8000",
         b"Host: example.org\r\nHost: example.org", b"X: y", b"host:example.org")  # fmt: skip
FRAMINGS = (
    (b"", b""),
    (b"Content-Length: 5", b"hello"),
    (b"Content-Length: 5", b"hel"),
    (b"Content-Length: 05", b"hello"),
    (b"Content-Length: +5", b"hello"),
    (b"Content-Length: 5, 5", b"hello"),
    (b"Content-Length: 5\r\nContent-Length: 6", b"hello!"),
    (b"Content-Length:\t5", b"hello"),
    (b"Content-Length: 5 \t", b"hello"),
    (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5;a\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5\r\nhello0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5 \r\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"0\r\nContent-Length: 3\r\n\r\n"),
    (b"Transfer-Encoding: Chunked\t", b"005\r\nhello\r\n00\r\n\r\n"),
    (b"Transfer-Encoding: chunked, identity", b"5\r\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"0\r\n\r\n"),
    (b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"),
)
EXTRAS = (b"", b"", b"X-A: b", b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade\r\nUpgrade: h2c",
          b"Expect: 100-continue", b"Expect: x", b"X-A : b", b" X: y", b"X-A:\x00", b"X-A: \xe9\x85", b"X_A: b", b"X-A")  # fmt: skip
ENDS = (b"\r\n",) * 12 + (b"\n", b"\r", b"\r\r\n")


def composed(rng: random.Random) -> bytes:
    """A request from the parts above."""
    end = rng.choice(ENDS)
    framing, body = rng.choice(FRAMINGS)
    fields = [rng.choice(HOSTS), framing, rng.choice(EXTRAS), rng.choice(EXTRAS)]
    rng.shuffle(fields)
    line = b" ".join((rng.choice(METHODS), rng.choice(TARGETS), rng.choice(VERSIONS)))
    lines = [line, *(field for field in fields if field)]
    return b"\r\n".join(lines) + end + b"\r\n" + body


def mutated(rng: random.Random, data: bytes, times: int | None = None) -> bytes:
    """The bytes with a few changes."""
    out = bytearray(data)
    for _ in range(times or rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(out) + 1)
        if rng.random() < 0.4 and (breaks := [i for i, byte in enumerate(out) if byte in b"\r\n: ;,"]):
            at = rng.choice(breaks)
        match rng.randrange(6):
            case 0:
                out[at:at] = rng.choice(TOKENS)
            case 1:
                del out[at : at + rng.choice((1, 1, 1, 2, 8))]
            case 2 if out:
                out[at : at + 1] = bytes((rng.randrange(256),))
            case 3:
                out[at : at + rng.choice((1, 2, 5))] = rng.choice(TOKENS)
            case 4:
                other = rng.randrange(len(out) + 1)
                out[at:at] = out[min(at, other) : max(at, other)][:64]
            case _ if out:
                other = rng.randrange(len(out))
                at = min(at, len(out) - 1)
                out[at], out[other] = out[other], out[at]
    return bytes(out)


def requests(seed: int, samples: list[bytes]) -> Iterator[bytes]:
    """Without end; the same ones for the same seed and samples."""
    rng = random.Random(seed)
    while True:
        data = composed(rng) if rng.random() < 0.5 else rng.choice(samples)
        if rng.random() < 0.6 or data in samples:
            data = mutated(rng, data)
        if rng.random() < 0.25:
            data += composed(rng)
        yield data

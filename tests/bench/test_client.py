"""What the load consists of."""

import itertools
import zlib

import httptools
import pytest

from bench.client import MASK, deflated, frame, requests, whole_frame
from bench.scenarios import BROWSER, Load


class Parsed:
    def __init__(self, data: bytes) -> None:
        self.urls: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(data)
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.urls.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def first(load: Load, count: int = 1) -> list[bytes]:
    return list(itertools.islice(requests(load), count))


def test_a_request_is_as_the_load_says() -> None:
    parsed = Parsed(first(Load(path="/post", method="POST", body=1024, headers=BROWSER))[0])
    assert (parsed.method, parsed.urls, parsed.body, parsed.complete) == (b"POST", [b"/post"], b"x" * 1024, 1)
    assert len(parsed.headers) == len(BROWSER) + 2
    assert (b"Content-Length", b"1024") in parsed.headers


def test_a_request_that_closes_says_so() -> None:
    assert (b"Connection", b"close") in Parsed(first(Load(close=True))[0]).headers
    assert b"connection" not in first(Load())[0].lower()


def test_pipelined_requests_come_in_one_write() -> None:
    assert Parsed(first(Load(pipeline=16))[0]).complete == 16


def test_nothing_varies_unless_asked() -> None:
    assert len(set(first(Load(headers=BROWSER), 5))) == 1


@pytest.mark.parametrize(("path", "query"), [("/", b"/?n="), ("/items/7?q=a", b"/items/7?q=a&n=")])
def test_lines_vary_and_header_sections_do_not(path: str, query: bytes) -> None:
    made = first(Load(path=path, vary="line"), 5)
    assert len(set(made)) == 5
    assert all(Parsed(each).urls[0].startswith(query) for each in made)
    assert len({each.partition(b"\r\n")[2] for each in made}) == 1


def test_heads_vary_at_both_ends() -> None:
    made = first(Load(headers=BROWSER, vary="ends"), 5)
    heads = [data.split(b"\r\n") for data in made]
    for place, name in ((1, b"X-Request-Id: "), (-3, b"X-Trace-Id: ")):
        assert len({head[place] for head in heads}) == 5
        assert all(head[place].startswith(name) for head in heads)
    assert len({tuple(head[2:-3]) for head in heads}) == 1
    assert all(head[-2:] == [b"", b""] for head in heads)


def test_heads_vary_in_a_field_as_well() -> None:
    made = first(Load(headers=BROWSER, vary="head"), 5)
    assert len({dict(Parsed(each).headers)[b"X-Request-Id"] for each in made}) == 5


@pytest.mark.parametrize("size", [0, 16, 125, 126, 1024, 65535, 65536])
def test_a_frame_is_masked_and_as_long_as_it_says(size: int) -> None:
    payload = bytes(i & 255 for i in range(size))
    made = frame(payload, compressed=False)
    assert made[0] == 0x81
    assert made[1] & 0x80
    masked = made[len(made) - size :] if size else b""
    assert made[: len(made) - size].endswith(MASK)
    assert bytes(byte ^ MASK[i & 3] for i, byte in enumerate(masked)) == payload


@pytest.mark.parametrize("size", [0, 16, 125, 126, 1024, 65535, 65536])
def test_a_frame_of_the_server_is_whole_only_with_its_last_byte(size: int) -> None:
    sent = frame(b"x" * size, compressed=False)
    unmasked = bytearray(sent)
    head = len(sent) - size - 4
    del unmasked[head : head + 4]
    unmasked[1] &= 0x7F
    assert whole_frame(unmasked) == head + size
    assert whole_frame(unmasked + b"\x81\x00") == head + size
    assert all(
        whole_frame(unmasked[:cut]) == 0 for cut in {0, 1, head - 1, len(unmasked) - 1} - {len(unmasked)}
    )


def test_a_compressed_message_can_be_sent_again_and_again() -> None:
    made = deflated(b"some text, some text")
    assert frame(made, compressed=True)[0] == 0xC1
    # One context for all messages, as a server keeps it (RFC 7692 7.2.2).
    inflating = zlib.decompressobj(wbits=-15)
    for _ in range(3):
        assert inflating.decompress(made + b"\x00\x00\xff\xff") == b"some text, some text"

"""What no Python server on uvloop goes below: a protocol that answers whatever it reads with the same bytes.

    python floor.py PORT WORKERS [parse]

With "parse" every request goes through httptools first, and its headers are collected. Of a WebSocket message the mask is
taken off, and its text is put into a frame again. There is no application.
"""

import asyncio
import os
import socket
import struct
import sys
from base64 import b64encode
from hashlib import sha1

import httptools
import uvloop
from websockets.speedups import apply_mask

RESPONSE = (
    b"HTTP/1.1 200 OK\r\nserver: floor\r\ndate: Wed, 25 Nov 2026 00:00:00 GMT\r\n"
    b"content-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, world!"
)


class Raw(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data[5] == 119:  # the w of "GET /ws"
            open_websocket(self.transport, data, RawEcho())
        else:
            self.transport.write(RESPONSE)


class Parsing(Raw):
    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.headers = []

    def data_received(self, data):
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            open_websocket(self.transport, data, Echo())

    def on_url(self, url):
        self.url = url

    def on_header(self, name, value):
        self.headers.append((name.lower(), value))

    def on_message_complete(self):
        self.headers = []
        if not self.parser.should_upgrade():
            self.transport.write(RESPONSE)
        if not self.parser.should_keep_alive():
            self.transport.close()


class Echo(asyncio.Protocol):
    """Messages of one masked text frame."""

    def __init__(self):
        self.begun = b""

    def data_received(self, data):
        if self.begun:
            data, self.begun = self.begun + data, b""
        length, start = data[1] & 127, 6
        if length == 126:
            length, start = data[2] << 8 | data[3], 8
        elif length == 127:
            length, start = int.from_bytes(data[2:10]), 14
        if len(data) < start + length:
            self.begun = data
        else:
            text = apply_mask(memoryview(data)[start:], data[start - 4 : start]).decode()
            self.answer(len(data), framed(text.encode()))

    def answer(self, size, frame):
        self.transport.write(frame)


class RawEcho(Echo):
    """All messages are of one size: they are counted, and answered with what the first one was."""

    def __init__(self):
        super().__init__()
        self.size = self.seen = 0

    def data_received(self, data):
        if not self.size:
            super().data_received(data)
            return
        self.seen += len(data)
        if self.seen == self.size:
            self.seen = 0
            self.transport.write(self.frame)

    def answer(self, size, frame):
        self.size, self.frame = size, frame
        self.transport.write(frame)


def framed(content):
    size = len(content)
    if size < 126:
        return bytes((0x81, size)) + content
    return (
        struct.pack("!BBH", 0x81, 126, size) if size < 65536 else struct.pack("!BBQ", 0x81, 127, size)
    ) + content


def open_websocket(transport, request, protocol):
    key = request.lower().index(b"sec-websocket-key:") + 18
    key = request[key : request.index(b"\r\n", key)].strip()
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    protocol.transport = transport
    transport.set_protocol(protocol)
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: %b\r\n\r\n" % accept
    )


async def main(port, workers):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, workers > 1)
    sock.bind(("127.0.0.1", port))
    protocol = Parsing if "parse" in sys.argv else Raw
    server = await asyncio.get_running_loop().create_server(protocol, sock=sock, backlog=2048)
    print("bench: worker ready", os.getpid(), file=sys.stderr, flush=True)
    await server.serve_forever()


port, workers = map(int, sys.argv[1:3])
for _ in range(1, workers):
    if os.fork() == 0:
        break
uvloop.run(main(port, workers))

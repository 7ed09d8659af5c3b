"""What no Python server on uvloop goes below: a protocol that answers whatever it reads with the same bytes.

    python floor.py PORT [parse]

With "parse" every request goes through httptools first, and its headers are collected.
"""

import asyncio
import sys

import httptools
import uvloop

RESPONSE = (
    b"HTTP/1.1 200 OK\r\nserver: floor\r\ndate: Wed, 25 Nov 2026 00:00:00 GMT\r\n"
    b"content-type: text/plain\r\ncontent-length: 13\r\n\r\nHello, world!"
)


class Raw(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(RESPONSE)


class Parsing(Raw):
    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.headers = []

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_url(self, url):
        self.url = url

    def on_header(self, name, value):
        self.headers.append((name.lower(), value))

    def on_message_complete(self):
        self.headers = []
        self.transport.write(RESPONSE)
        if not self.parser.should_keep_alive():
            self.transport.close()


async def main():
    protocol = Parsing if "parse" in sys.argv else Raw
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


uvloop.run(main())

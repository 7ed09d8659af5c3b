"""The application without a framework: what is measured with it is the server."""

import asyncio
import os
import sys

HELLO = b"Hello, world!"
BLOCK = b"x" * 65536
TEXT = (b"content-type", b"text/plain")


async def app(scope, receive, send):
    if scope["type"] == "http":
        await ROUTES.get(scope["path"], hello)(scope, receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        await lifespan(receive, send)


async def lifespan(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.startup":
            # Whoever waits for all workers counts these.
            print("bench: worker ready", os.getpid(), file=sys.stderr, flush=True)
        else:
            return


async def answer(send, body):
    headers = [TEXT, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def hello(scope, receive, send):
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")],
        }
    )
    await send({"type": "http.response.body", "body": HELLO})


async def pid(scope, receive, send):
    await answer(send, str(os.getpid()).encode())


async def slow(scope, receive, send):
    """`?0.5` answers after half a second."""
    await asyncio.sleep(float(scope["query_string"] or b"0.005"))
    await answer(send, b"slow answer")


async def post(scope, receive, send):
    """Reads the body as frameworks do, joined at the end, and answers with its length."""
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    await answer(send, str(len(b"".join(chunks))).encode())


async def upload(scope, receive, send):
    """Counts a body without keeping it."""
    count = 0
    while True:
        message = await receive()
        count += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await answer(send, str(count).encode())


async def download(scope, receive, send):
    """`?160` sends 160 blocks of 64 KiB with a content-length, `?chunked=160` without."""
    name, _, number = scope["query_string"].rpartition(b"=")
    count = int(number)
    headers = [] if name else [(b"content-length", str(count * len(BLOCK)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(count):
        await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes")
        if data is not None:
            await send({"type": "websocket.send", "bytes": data})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


ROUTES = {"/pid": pid, "/slow": slow, "/post": post, "/upload": upload, "/download": download}

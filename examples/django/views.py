"""Views of both kinds: asynchronous ones run in the event loop, the others in a thread."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_POST


def index(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"framework": "django", "worker": os.getpid()})


async def slow(request: HttpRequest) -> JsonResponse:
    await asyncio.sleep(1)
    return JsonResponse({"worker": os.getpid()})


@require_POST
def upload(request: HttpRequest) -> JsonResponse:
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for piece in file.chunks():
        digest.update(piece)
    note = request.POST["note"]
    return JsonResponse({"note": note, "name": file.name, "bytes": file.size, "sha256": digest.hexdigest()})


async def download(request: HttpRequest, mebibytes: int) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(mebibytes * 16):
            yield bytes([i % 256]) * 65536

    return StreamingHttpResponse(pieces(), content_type="application/octet-stream")


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def ticks() -> AsyncIterator[str]:
        number = 0
        while True:
            yield f"id: {number}\ndata: worker {os.getpid()}\n\n"
            number += 1
            await asyncio.sleep(0.1)

    return StreamingHttpResponse(ticks(), content_type="text/event-stream")

"""The same small JSON answer by Starlette and by FastAPI."""

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


class Item(BaseModel):
    id: int
    name: str
    tags: list[str]


async def item(request):
    number = int(request.path_params["number"])
    return JSONResponse({"id": number, "name": "item", "tags": ["a", "b", "c"]})


starlette = Starlette(routes=[Route("/items/{number:int}", item)])
fastapi = FastAPI()


@fastapi.get("/items/{number}")
async def fastapi_item(number: int, q: str | None = None) -> Item:
    return Item(id=number, name="item", tags=["a", "b", "c"])

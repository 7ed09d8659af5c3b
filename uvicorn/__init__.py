"""An ASGI server whose process manager is the product.

The four public names; everything else is imported from the module that owns it.
"""

from uvicorn import _early

_early.prepare()  # before everything else: what follows takes a fifth of a second

from uvicorn.config import Config
from uvicorn.main import main, run
from uvicorn.server import Server

__version__ = "0.37.0"
__all__ = ["main", "run", "Config", "Server"]  # noqa: RUF022 - the documented order

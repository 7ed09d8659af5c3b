"""Documented path."""

from uvicorn.compose import Multiprocess

__all__ = ["Multiprocess"]

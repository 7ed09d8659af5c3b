"""FastAPI's small answer in a process that holds as much as a service does, for the garbage collector to look through."""

from frameworks import fastapi

__all__ = ["fastapi"]

# Tables, caches, models: 300,000 objects that refer to others.
KEPT = [{"id": i, "tags": [i], "owner": (i,)} for i in range(100_000)]

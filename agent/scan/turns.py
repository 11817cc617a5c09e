"""Batches on their way through a pool of workers, and the end of that pool."""

import os
from typing import List

import msgspec

from agent.scan.items import Item, Part


class PoolFailure(Exception):
    """The workers of a scan die faster than it is sensible to replace them."""


class Turn:
    """A batch on its way: `items` is complete when nothing is `waiting`. `directory` is its own to close."""

    __slots__ = ("directory", "items", "part", "waiting")

    def __init__(self, part: Part, directory: int) -> None:
        self.part = part
        self.directory = directory
        self.items: List[Item] = []
        self.waiting = 1

    def finish_one(self) -> None:
        """Count one of the parts as judged; with the last one the directory is closed."""
        self.waiting -= 1
        if not self.waiting:
            os.close(self.directory)


def alone(part: Part, index: int) -> Part:
    """Return one entry of a part, to be judged whatever its size."""
    name = part.names[index - part.first]
    return msgspec.structs.replace(part, names=(name,), first=index, defer_bytes=0)

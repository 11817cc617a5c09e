"""Batches on their way through a pool of workers, and the end of that pool."""

import os
from typing import List

import msgspec

from agent.scan.batch import FILE
from agent.scan.items import Item, Part


class PoolFailure(Exception):
    """The workers of a scan die faster than it is sensible to replace them."""


class Turn:
    """A batch on its way: `items` is complete when nothing is `waiting`. `directory` is its own to close.

    `names` is how many names it has, about, where it is not listed yet.
    """

    __slots__ = ("directory", "items", "names", "part", "waiting")

    def __init__(self, part: Part, directory: int, names: int) -> None:
        self.part = part
        self.directory = directory
        self.names = names
        self.items: List[Item] = []
        self.waiting = 1

    def finish_one(self) -> None:
        """Count one of the parts as judged; with the last one the directory is closed."""
        self.waiting -= 1
        if not self.waiting:
            os.close(self.directory)


def alone(part: Part, item: Item) -> Part:
    """Return the entry of a part that an item defers, to be judged whatever its size."""
    kinds = {} if item.deferred_as == FILE else {item.name: item.deferred_as}
    return msgspec.structs.replace(
        part, names=(item.name,), kinds=kinds, first=item.index, defer_bytes=0, is_leaf=False
    )

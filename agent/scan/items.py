"""What judging the entries of a batch says, entry by entry: small enough to travel from a worker.

An item counts what was looked at since the item before it, so that an answer can be cut behind any of them
and its counts are still exact.
"""

import os
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

import msgspec


class Event(NamedTuple):
    """Something that happened to a file, by the name of the `Witness` method that says it."""

    action: str
    path: bytes = b""
    text: str = ""
    times: int = 1


class Status(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What stat(2) says, under the names of `os.stat_result`; times in nanoseconds since 1970."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_blocks: int
    st_atime_ns: int
    st_mtime_ns: int
    st_ctime_ns: int


def keep_status(status: os.stat_result) -> Status:
    """Return what a match keeps of a file's status."""
    return Status(
        status.st_mode,
        status.st_ino,
        status.st_dev,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_size,
        getattr(status, "st_blocks", 0),
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


class Found(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An entry that one search looks for, by the search's place in the plan; `kind` as in a batch."""

    search: int
    kind: str
    status: Status
    digests: Dict[str, str]
    checks: Tuple[str, ...] = ()
    examined: bytes = b""
    is_cached: bool = False


class Item(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One thing said of the entry at `index`, and what was counted since the item before.

    `name` is the entry's, where it was found or is deferred; `deferred_as` is its kind, as in a batch, where
    it is to be judged on its own.
    """

    index: int
    files_seen: int = 0
    files_read: int = 0
    bytes_read: int = 0
    event: Optional[Event] = None
    found: Optional[Found] = None
    deferred_as: str = ""
    files_cached: int = 0
    name: bytes = b""


class Part(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Entries of one directory that are judged at once, for the searches given by their place in the plan.

    `first` is the index of the first name in its batch. `passed_over` are names that are not judged,
    `unmapped` those that are only read, never mapped; both for entries that have killed a worker. A file of
    `defer_bytes` or more that must be opened is left to be judged on its own; 0 leaves none. `borders` are
    those of searches that want only the newest or oldest files (`agent.scan.limits`). `is_sifted` as in a
    batch. With `is_leaf` there are no names: the worker lists the directory (`agent.scan.leaf`).
    """

    path: bytes
    names: Tuple[bytes, ...]
    kinds: Dict[bytes, str]
    searches: Tuple[int, ...]
    first: int = 0
    passed_over: Tuple[bytes, ...] = ()
    unmapped: Tuple[bytes, ...] = ()
    defer_bytes: int = 0
    borders: Dict[int, int] = {}
    is_sifted: bool = False
    is_leaf: bool = False


class Match(msgspec.Struct, frozen=True, gc=False):
    """A file that one search looks for.

    `path` is as the search's root shows it; `kind` is as in a batch, and of a link the rest tells about its
    target. `examined` is what the scan's `examine` said of the file; empty where it could not be opened,
    which the coverage then names. `is_cached` tells that its digests are of an earlier scan.
    """

    search: int
    path: bytes
    kind: str
    status: Status
    digests: Mapping[str, str]
    checks: Tuple[str, ...]
    examined: bytes = b""
    is_cached: bool = False

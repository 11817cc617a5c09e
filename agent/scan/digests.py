"""Digests by the names that searches use: those of hashlib, and XXH3 where its wheel is there."""

import hashlib
from functools import lru_cache, partial
from typing import Any, Callable, Iterable, Optional, Protocol, Union

from protocol.errors import InvalidInput

_XXH3_128 = "xxh3_128"


class Digest(Protocol):
    """What is used of a digest under way."""

    def update(self, data: Union[bytes, memoryview], /) -> object:
        """Take more of the content."""

    def digest(self) -> bytes:
        """Return the same as bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all that was taken; of XXH3 the canonical one, as xxhsum(1) writes it."""


@lru_cache(maxsize=1)
def _xxhash() -> Optional[Any]:
    try:
        import xxhash  # noqa: PLC0415  (few searches need it)
    except ImportError:
        return None
    return xxhash


def require_digests(kinds: Iterable[str], what: str) -> None:
    """Refuse a search that needs a digest which this endpoint cannot compute.

    Raises:
        InvalidInput: `unsupported`.

    """
    if _XXH3_128 in kinds and _xxhash() is None:
        raise InvalidInput(
            "unsupported", f"{what} needs xxhash, which has no build for this endpoint's Python"
        )


def new_digest(kind: str) -> Digest:
    """Begin a digest of one of the search's kinds."""
    return digest_maker(kind)(b"")


def digest_maker(kind: str) -> Callable[[Union[bytes, memoryview]], Digest]:
    """Return what begins a digest with content; to be asked once for many files."""
    xxhash = _xxhash() if kind == _XXH3_128 else None
    maker: Any = xxhash.xxh3_128 if xxhash else getattr(hashlib, kind)
    # Allowed also where a policy forbids them for security: an indicator is still told by them.
    return partial(maker, usedforsecurity=False) if kind in ("md5", "sha1") else maker

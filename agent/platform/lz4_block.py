"""Unpacks a block of LZ4, as systemd's journals hold them: the standard library has no LZ4.

Source: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
"""

from typing import Tuple

_LEAST_MATCH = 4
_LONG = 15
_FULL = 255


class BadBlock(Exception):
    """The bytes are no block of LZ4."""


def unpack_block(data: bytes, max_bytes: int) -> bytes:
    """Return what a block unpacks to, its first `max_bytes` at most.

    Raises:
        BadBlock: it is damaged.

    """
    given = bytearray()
    at = 0
    while at < len(data):
        token = data[at]
        count, at = _length(data, at + 1, token >> 4)
        if at + count > len(data):
            raise BadBlock("literals beyond its end")
        given += data[at : at + count]
        at += count
        if len(given) >= max_bytes or at == len(data):
            # The last sequence has literals only.
            return bytes(given[:max_bytes])
        distance = int.from_bytes(data[at : at + 2], "little")
        if at + 2 > len(data) or not 0 < distance <= len(given):
            raise BadBlock("a match before its beginning")
        count, at = _length(data, at + 2, token & _LONG)
        _repeat(given, distance, min(count + _LEAST_MATCH, max_bytes - len(given)))
        if len(given) >= max_bytes:
            return bytes(given)
    raise BadBlock("ends in the middle of a sequence")


def _length(data: bytes, at: int, count: int) -> Tuple[int, int]:
    """Return a length that four bits of a token begin, and where to go on."""
    if count < _LONG:
        return count, at
    while at < len(data):
        count += data[at]
        at += 1
        if data[at - 1] != _FULL:
            return count, at
    raise BadBlock("ends in the middle of a length")


def _repeat(given: bytearray, distance: int, count: int) -> None:
    """Copy what was given before; what is copied may reach into itself."""
    piece = bytes(given[len(given) - distance :])
    if distance < count:
        piece *= count // distance + 1
    given += piece[:count]

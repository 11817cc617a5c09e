"""What lies in a file of systemd's journal, read directly: entries, and the fields that they share.

Rules:

* The file is read from its beginning to its end, object after object, never along its own chains of offsets:
  a hostile or damaged file can make no loop, and hides nothing that stands in it. What follows an object that
  cannot be one is not seen, which is said (`problems`).
* An entry holds offsets of the objects with its fields; those stand before it in the file.
* Nothing is mapped, and no more than a MiB is held, or one value: at most `MAX_VALUE_BYTES` of it.
* The file may be written to meanwhile: what is added later is not seen. Hash tables, entry arrays and seals
  are passed over.

Source: https://systemd.io/JOURNAL_FILE_FORMAT/
"""

import os
import struct
from typing import Iterator, List, NamedTuple, Optional, Tuple, Union

from agent.platform.lz4_block import BadBlock, unpack_block
from agent.scan.unpacking import Limits, open_packed

SIGNATURE = b"LPKSHHRH"
MAX_VALUE_BYTES = 16 << 20
_WINDOW_BYTES = 1 << 20
_HEADER = struct.Struct("<8sII B7x 16s16s16s16s QQ QQQQ Q QQ")
_OBJECT = struct.Struct("<BB6xQ")
_ENTRY = struct.Struct("<QQQ16sQ")
_DATA, _ENTRY_TYPE, _LAST_TYPE = 1, 3, 7
_COMPACT, _KNOWN_FLAGS = 16, 31
_XZ, _LZ4, _ZSTD = 1, 2, 4
# How much of a field is unpacked to see its name.
_NAME_BYTES = 80
_LEAST_HEADER, _MOST_HEADER = 208, 4096


class NotAJournal(Exception):
    """The file is none, or of a kind that is not known."""


class Data(NamedTuple):
    """A field that entries share: where it stands, and its name and value as `NAME=value`."""

    offset: int
    text: bytes


class Entry(NamedTuple):
    """An entry: when it was received, in microseconds since 1970, and where its fields stand."""

    realtime_us: int
    items: Tuple[int, ...]


class JournalFile:
    """One file, open for reading.

    Args:
        descriptor: of the file; it stays the caller's.
        names: of the fields that are wanted; others are passed over.

    Raises:
        NotAJournal: it is none.

    """

    def __init__(self, descriptor: int, names: Tuple[str, ...]) -> None:
        self._descriptor = descriptor
        self._prefixes = tuple(name.encode() + b"=" for name in names)
        self._window = b""
        self._base = 0
        self.bytes_read = 0
        self.problems: List[str] = []
        self._unread = 0
        head = self._bytes(0, _HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(SIGNATURE):
            raise NotAJournal("is no journal")
        fields = _HEADER.unpack(head)
        flags, header_bytes, arena_bytes = fields[2], fields[8], fields[9]
        if flags & ~_KNOWN_FLAGS or not _LEAST_HEADER <= header_bytes <= _MOST_HEADER:
            raise NotAJournal(f"is a journal of a kind that is not known (flags {flags:#x})")
        self._is_compact = bool(flags & _COMPACT)
        self._data_start = 72 if self._is_compact else 64
        self._start = header_bytes
        self._tail = fields[14]
        self._end = min(os.fstat(descriptor).st_size, header_bytes + arena_bytes)
        self.entries_stated = fields[16]

    def read(self) -> Iterator[Union[Data, Entry]]:
        """Yield the wanted fields and all entries, as they stand in the file."""
        at = -(-self._start // 8) * 8
        while at + _OBJECT.size <= self._end:
            head = self._bytes(at, _OBJECT.size)
            # A file that became shorter is as one with zeros there.
            kind, flags, size = _OBJECT.unpack(head.ljust(_OBJECT.size, b"\0"))
            if not kind and not size:
                # Space for what is to come.
                break
            if not (0 < kind <= _LAST_TYPE and _OBJECT.size <= size <= self._end - at):
                self._tail = at
                break
            found = self._object(at, kind, flags, size)
            if found is not None:
                yield found
            at += -(-size // 8) * 8
        if at <= self._tail:
            self.problems.append(f"is damaged at {at}: what follows was not looked at")
        if self._unread:
            self.problems.append(f"{self._unread} packed fields in it could not be unpacked")

    def _object(self, at: int, kind: int, flags: int, size: int) -> Optional[Union[Data, Entry]]:
        if kind == _ENTRY_TYPE:
            return self._entry(at, size)
        text = self._text(at, size, flags) if kind == _DATA else None
        return None if text is None else Data(at, text)

    def _bytes(self, at: int, size: int) -> bytes:
        """Return bytes of the file; fewer at its end."""
        start = at - self._base
        if start < 0 or start + size > len(self._window):
            self._window = os.pread(self._descriptor, max(size, _WINDOW_BYTES), at)
            self.bytes_read += len(self._window)
            self._base, start = at, 0
        return self._window[start : start + size]

    def _entry(self, at: int, size: int) -> Optional[Entry]:
        data = self._bytes(at + _OBJECT.size, size - _OBJECT.size)
        body = data[_ENTRY.size :]
        if len(data) < _ENTRY.size:
            self.problems.append(f"holds an entry that is none, at {at}")
            return None
        realtime_us = _ENTRY.unpack_from(data)[1]
        if self._is_compact:
            return Entry(realtime_us, struct.unpack_from(f"<{len(body) // 4}I", body))
        return Entry(realtime_us, struct.unpack_from(f"<{len(body) // 16 * 2}Q", body)[::2])

    def _text(self, at: int, size: int, flags: int) -> Optional[bytes]:
        """Return a field where it is wanted."""
        start, length = at + self._data_start, size - self._data_start
        if length <= 0:
            return None
        if not flags & (_XZ | _LZ4 | _ZSTD):
            head = self._bytes(start, min(length, _NAME_BYTES))
            if not head.startswith(self._prefixes):
                return None
            return self._bytes(start, min(length, MAX_VALUE_BYTES))
        packed = self._bytes(start, min(length, MAX_VALUE_BYTES))
        name = self._unpack(packed, flags, _NAME_BYTES)
        if name is None:
            self._unread += 1
            return None
        if not name.startswith(self._prefixes):
            return None
        return self._unpack(packed, flags, MAX_VALUE_BYTES) or name

    def _unpack(self, packed: bytes, flags: int, most: int) -> Optional[bytes]:
        """Return the first bytes of what is packed; None where it cannot be unpacked."""
        if flags & _LZ4:
            try:
                return unpack_block(packed[8:], min(most, int.from_bytes(packed[:8], "little")))
            except BadBlock:
                return None
        unpacker = open_packed(packed[:8], Limits(free_bytes=most))
        if unpacker is None:
            return None
        given = b""
        for piece in unpacker.feed(packed):
            given += piece
            if len(given) >= most:
                break
        return given[:most] or None

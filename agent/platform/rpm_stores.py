"""The headers of installed packages as rpm's database holds them, in each of its formats.

* `rpmdb.sqlite`: SQLite, table Packages (Fedora from 33, RHEL from 9);
* `Packages.db`: rpm's own "ndb" (SUSE);
* `Packages`: a hash of Berkeley DB (RHEL up to 8): read only, without its library and without locks.

Sources: rpm's documentation of its database back-ends and lib/backend/ndb/rpmpkg.c (layout of ndb);
Berkeley DB's dbinc/db_page.h (layout of pages).
"""

import os
import sqlite3
import struct
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from agent.platform.rooted import Rooted

HOMES = (b"/usr/lib/sysimage/rpm", b"/var/lib/rpm", b"/usr/share/rpm")
# A kernel's header has some 3 MB, a whole database some hundred.
_MOST_HEADER_BYTES = 64 << 20
_STEPS_PER_CHECK = 100_000

_NDB_HEAD = struct.Struct("<4sIIII")
_NDB_SLOT = struct.Struct("<4sIII")
_NDB_BLOB = struct.Struct("<4sIII")
_NDB_PAGE, _NDB_BLOCK = 4096, 16
_NDB_MOST_PAGES = 1 << 16

_BDB_HASH = 0x061561
_BDB_PAGE = "8xIIIHHBB"
_BDB_HASH_PAGES, _BDB_OVERFLOW = (2, 13), 7
_BDB_KEPT_HERE, _BDB_KEPT_BEYOND = 1, 3
_BDB_BEYOND_BYTES = 12
_BDB_MIN_PAGE, _BDB_MAX_PAGE = 512, 65536


def read_headers(files: Rooted, check: Callable[[], None]) -> Iterator[bytes]:
    """Yield the header of each package of every database that is there; what is broken is an error."""
    seen = set()
    for home in HOMES:
        place = files.inside(home)
        if place in seen:
            continue
        seen.add(place)
        for name, read in _READERS.items():
            path = home + name
            descriptor = files.open(path)
            if descriptor is None:
                continue
            try:
                yield from read(descriptor, check)
                wal = files.status(path + b"-wal") if read is _read_sqlite else None
                if wal is not None and wal.st_size:
                    files.lose(path, "what was written since rpm last tidied up (-wal) is not seen")
            except (ValueError, struct.error, sqlite3.Error, OSError) as error:
                files.lose(path, f"not read to its end: {error}")
            finally:
                os.close(descriptor)


def _read_sqlite(descriptor: int, check: Callable[[], None]) -> Iterator[bytes]:
    # By the descriptor, so that it is the file that was judged; immutable: no lock, no journal, no -shm.
    connection = sqlite3.connect(f"file:/proc/self/fd/{descriptor}?immutable=1&mode=ro", uri=True)
    try:
        # What the file says of itself must not run: a view in the table's place, or functions in a schema.
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.text_factory = bytes
        connection.set_progress_handler(lambda: _is_over(check), _STEPS_PER_CHECK)
        kind = connection.execute("SELECT type FROM sqlite_master WHERE name = 'Packages'").fetchone()
        if kind is None or kind[0] != b"table":
            raise ValueError("it has no table Packages")
        for (blob,) in connection.execute("SELECT blob FROM Packages"):
            check()
            if isinstance(blob, bytes):
                yield blob
    finally:
        connection.close()


def _is_over(check: Callable[[], None]) -> int:
    """Tell SQLite to give up where the run is over; the check that follows says why."""
    try:
        check()
    except Exception:  # noqa: BLE001  (whatever ends a run is raised again by the next check)
        return 1
    return 0


def _read_ndb(descriptor: int, check: Callable[[], None]) -> Iterator[bytes]:
    magic, version, _generation, pages, _next = _NDB_HEAD.unpack(os.pread(descriptor, _NDB_HEAD.size, 0))
    if magic != b"RpmP" or version != 0 or pages > _NDB_MOST_PAGES:
        raise ValueError("it is no ndb database")
    slots = os.pread(descriptor, pages * _NDB_PAGE, 0)
    for at in range(2 * _NDB_SLOT.size, len(slots) - _NDB_SLOT.size + 1, _NDB_SLOT.size):
        magic, index, offset, blocks = _NDB_SLOT.unpack_from(slots, at)
        if magic != b"Slot":
            raise ValueError("a slot is broken")
        if not (index and offset and blocks):
            continue
        check()
        head = os.pread(descriptor, _NDB_BLOB.size, offset * _NDB_BLOCK)
        magic, owner, _generation, length = _NDB_BLOB.unpack(head)
        if magic != b"BlbS" or owner != index or length > min(_MOST_HEADER_BYTES, blocks * _NDB_BLOCK):
            raise ValueError("a blob is broken")
        yield os.pread(descriptor, length, offset * _NDB_BLOCK + _NDB_BLOB.size)


class _BerkeleyFile:
    """A file of Berkeley DB, page by page."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        head = os.pread(descriptor, _BDB_MIN_PAGE, 0)
        if len(head) < _BDB_MIN_PAGE:
            raise ValueError("it is no hash of Berkeley DB")
        self.order = next(
            (one for one in "<>" if struct.unpack_from(one + "I", head, 12)[0] == _BDB_HASH), ""
        )
        if not self.order:
            raise ValueError("it is no hash of Berkeley DB")
        self.page_bytes: int = struct.unpack_from(self.order + "I", head, 20)[0]
        if not _BDB_MIN_PAGE <= self.page_bytes <= _BDB_MAX_PAGE or head[24]:
            raise ValueError("its pages are too large, or encrypted")
        self.pages = os.fstat(descriptor).st_size // self.page_bytes
        self._page = struct.Struct(self.order + _BDB_PAGE)

    def page(self, number: int) -> Tuple[bytes, int, int, int, int]:
        """Return a page, the next one's number, how many entries it has, how much is used, and its type."""
        data = os.pread(self._descriptor, self.page_bytes, number * self.page_bytes)
        if len(data) < self.page_bytes:
            raise ValueError("a page is not there")
        _own, _before, following, entries, free, _level, kind = self._page.unpack_from(data)
        return data, following, entries, free, kind

    def beyond(self, item: bytes) -> bytes:
        """Return a value that lies on pages of its own."""
        number, length = struct.unpack_from(self.order + "4xII", item)
        if length > _MOST_HEADER_BYTES:
            raise ValueError("a header is too large")
        parts: List[bytes] = []
        missing = length
        while missing > 0:
            data, following, _entries, used, kind = self.page(number)
            part = data[self._page.size : self._page.size + min(used, missing)]
            if kind != _BDB_OVERFLOW or not part:
                raise ValueError("a header's pages are broken")
            parts.append(part)
            missing -= len(part)
            number = following
        return b"".join(parts)


def _read_bdb(descriptor: int, check: Callable[[], None]) -> Iterator[bytes]:
    file = _BerkeleyFile(descriptor)
    for number in range(1, file.pages):
        check()
        data, _following, entries, _free, kind = file.page(number)
        if kind in _BDB_HASH_PAGES:
            yield from _values_of_page(file, data, entries)


def _values_of_page(file: _BerkeleyFile, data: bytes, entries: int) -> Iterator[bytes]:
    start = struct.calcsize("=" + _BDB_PAGE)
    if start + 2 * entries > len(data):
        raise ValueError("a page says more than it holds")
    places = struct.unpack_from(f"{file.order}{entries}H", data, start)
    # Keys and values by turns, laid down from the page's end: an item ends where the one before it begins.
    for at in range(1, entries, 2):
        begin, end = places[at], places[at - 1]
        item = data[begin:end]
        value: Optional[bytes] = None
        if item[:1] == bytes([_BDB_KEPT_BEYOND]) and len(item) >= _BDB_BEYOND_BYTES:
            value = file.beyond(item)
        elif item[:1] == bytes([_BDB_KEPT_HERE]):
            value = item[1:]
        # Key 0 holds the last number that was given to a package: 4 bytes, no header.
        if value is not None and len(value) > _BDB_BEYOND_BYTES:
            yield value


_READERS: Dict[bytes, Callable[[int, Callable[[], None]], Iterator[bytes]]] = {
    b"/rpmdb.sqlite": _read_sqlite,
    b"/Packages.db": _read_ndb,
    b"/Packages": _read_bdb,
}

"""Digests of files that were read before, by what stat(2) says of them; off unless a build turns it on.

Rules:

* A file is known by device, inode, size, mtime and ctime, all five, in nanoseconds. Whoever can set a clock
  or write to a disk's device can forge them: so this is off by default, an answer says what it took from
  here, and a search that says `fresh` takes nothing.
* What changed shortly before it was read is not kept: a second change may bear the same time. Shortly is a
  minute, since a page that a process has mapped for writing may change, without a trace in ctime, until the
  kernel has written it back (30 s, docs.kernel.org/admin-guide/sysctl/vm.html, dirty_expire_centisecs).
* Only file systems are trusted where times are kept so. On tmpfs writing through a mapping leaves no trace at
  all; of what another machine serves nothing is known; an overlay may answer with the times of another file.
* Each record carries a check sum with a seed of its file: half-written, overwritten at once by two workers,
  or damaged, it is none. So records are written in place, by whoever read the file, and nobody waits for
  anybody.
* Where a record cannot be written no more are; the scan goes on.
"""

import mmap
import os
import struct
from typing import Callable, Dict, Iterable, Mapping, Optional

import xxhash

from agent.digest_file import FILE_BYTES, HEADER_BYTES, PROBES, RECORD_BYTES, SLOTS, read_seed

# Digests of at most 32 bytes; the longer ones are rare, and are computed.
_KINDS = {"md5": 1, "sha1": 2, "sha256": 3, "sha3_224": 4, "sha3_256": 5, "xxh3_128": 6}
_DIGEST_BYTES = {"md5": 16, "sha1": 20, "sha256": 32, "sha3_224": 28, "sha3_256": 32, "xxh3_128": 16}
_KEY = struct.Struct("<QQQqqQ")
_NOTHING = bytes(16)
_BODY_BYTES = RECORD_BYTES - 8
# A body and its check sum.
_RECORD = struct.Struct(f"<{_BODY_BYTES}s8s")
_WINDOW_BYTES = PROBES * RECORD_BYTES
SETTLED_NS = 60 * 1_000_000_000
# By the names that the kernel has for them in the table of mounts.
TRUSTED_TYPES = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "xfs"})


class DigestCache:
    """The cache behind an open descriptor (`agent.digest_file`); its workers are forked with it.

    Args:
        descriptor: stays the caller's.
        now_ns: when the scan began; what changed less than a minute before is not kept.
        type_of: the type of the file system of a device, None where it is not known.
        slots: how many places of the table to use.

    Raises:
        OSError: where the file is not what it must be.

    """

    def __init__(
        self, descriptor: int, *, now_ns: int, type_of: Callable[[int], Optional[str]], slots: int = SLOTS
    ) -> None:
        if os.fstat(descriptor).st_size != FILE_BYTES:
            raise OSError("the digest cache is not whole")
        self._descriptor = descriptor
        self._table = mmap.mmap(descriptor, FILE_BYTES, access=mmap.ACCESS_READ)
        self._seed = read_seed(descriptor)
        self._newest_ns = now_ns - SETTLED_NS
        self._type_of = type_of
        self._slots = slots
        self._trusted: Dict[int, bool] = {}
        self._is_full = False

    def close(self) -> None:
        """Give the mapping back."""
        self._table.close()

    def recall(self, status: os.stat_result, kinds: Iterable[str]) -> Optional[Dict[str, str]]:
        """Return the digests of a file in hexadecimal; None unless all of these kinds are known."""
        if not self._is_trusted(status.st_dev):
            return None
        digests = {}
        for kind in kinds:
            number = _KINDS.get(kind)
            if number is None:
                return None
            key = _key(status, number)
            start = self._place(key)
            at = self._table.find(key, start, start + _WINDOW_BYTES)
            if at < 0 or (at - start) % RECORD_BYTES:
                return None
            body = self._table[at : at + _BODY_BYTES]
            if self._sum(body) != self._table[at + _BODY_BYTES : at + RECORD_BYTES]:
                return None
            digests[kind] = body[_KEY.size : _KEY.size + _DIGEST_BYTES[kind]].hex()
        return digests

    def finder(self, device: int, kind: str) -> Optional[Callable[[os.stat_result], Optional[bytes]]]:
        """Return what finds the digests of one kind on a device, as bytes; None where none are kept.

        It does what `recall` does, for a million files: without a call more than it takes.
        """
        number = _KINDS.get(kind)
        if number is None or not self._is_trusted(device):
            return None
        table, seed, slots = self._table, self._seed, self._slots
        find, pack = self._table.find, _KEY.pack
        place, check_sum = xxhash.xxh3_64_intdigest, xxhash.xxh3_64_digest
        unpack, begin, end = _RECORD.unpack_from, _KEY.size, _KEY.size + _DIGEST_BYTES[kind]

        def look(status: os.stat_result) -> Optional[bytes]:
            key = pack(device, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, number)
            start = HEADER_BYTES + place(key, seed) % slots * RECORD_BYTES
            # Most records are at the first place where they may be; to look there is quicker than to search.
            body, known_sum = unpack(table, start)
            if not body.startswith(key):
                at = find(key, start, start + _WINDOW_BYTES)
                if at < 0 or (at - start) % RECORD_BYTES:
                    return None
                body, known_sum = unpack(table, at)
            return body[begin:end] if check_sum(body, seed) == known_sum else None

        return look

    def keep(self, before: os.stat_result, after: os.stat_result, digests: Mapping[str, str]) -> None:
        """Keep what a file was read to have, if it was the same file, settled, before and after."""
        if self._is_full or before.st_ctime_ns > self._newest_ns or not self._is_trusted(before.st_dev):
            return
        for kind, digest in digests.items():
            number = _KINDS.get(kind)
            if number is None:
                continue
            key = _key(before, number)
            if key != _key(after, number):
                return
            self._write(key, bytes.fromhex(digest))

    def _write(self, key: bytes, digest: bytes) -> None:
        start = self._place(key)
        at = self._table.find(key, start, start + _WINDOW_BYTES)
        if at < 0 or (at - start) % RECORD_BYTES:
            for at in range(start, start + _WINDOW_BYTES, RECORD_BYTES):
                # No inode is 0: a key begins with zeros only where nothing was written.
                if self._table[at : at + 16] == _NOTHING:
                    break
            else:
                at = start + key[8] % PROBES * RECORD_BYTES  # of a full neighbourhood any one may go
        body = key + digest.ljust(_BODY_BYTES - _KEY.size, b"\0")
        try:
            os.pwrite(self._descriptor, body + self._sum(body), at)
        except OSError:
            self._is_full = True

    def _place(self, key: bytes) -> int:
        slot: int = xxhash.xxh3_64_intdigest(key, self._seed) % self._slots
        return HEADER_BYTES + slot * RECORD_BYTES

    def _sum(self, body: bytes) -> bytes:
        digest: bytes = xxhash.xxh3_64_digest(body, self._seed)
        return digest

    def _is_trusted(self, device: int) -> bool:
        known = self._trusted.get(device)
        if known is None:
            known = self._trusted[device] = self._type_of(device) in TRUSTED_TYPES
        return known


def _key(status: os.stat_result, number: int) -> bytes:
    return _KEY.pack(
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        number,
    )

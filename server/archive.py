"""Archives the audit log to a file, and cuts what is archived off its beginning.

Rules:
1. An archive is all that the log has at that moment, an entry per line by its exact bytes: it verifies by
   itself, as what `mig audit export` writes, also where the log was cut before, since the checkpoint that
   allowed that stands in it. Archives overlap; the newest entry of each stands in the log or in the next one.
2. It is on the disk under its name, read again from there and found good, before anything is cut.
3. In one transaction the log says that it was archived (`archived`: which entries, the file's SHA-256), says
   where it will begin (`checkpoint`), and loses what is before. What remains verifies by itself, too.
4. A log that does not check is neither cut nor archived: whoever looks into that needs all of it
   (`mig audit export` takes it as it is).
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from protocol.audit import MAX_ENTRY_BYTES, Chain, Entry, Head
from protocol.errors import EnvironmentFailure, InvalidInput
from server.store import Store

_PAGE = 1000


class Archive(NamedTuple):
    """What was written: from which entry to which head, the file's SHA-256, and where the log may begin now.

    `keeps` is the first entry that is not older than was asked for, None where there is none to be cut.
    """

    first: int
    head: Head
    sha256: str
    keeps: Entry | None


def write_archive(store: Store, path: Path, keep_since: datetime | None = None) -> Archive:
    """Write the whole log to a new file, and check it there.

    Raises:
        InvalidInput: `conflict` where the file is there already, `broken-chain`.
        EnvironmentFailure: `state-failed`, `disk-full`, `database-away`.

    """
    if path.exists():
        raise InvalidInput("conflict", f"{path} is there already")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                chain, keeps = _write(stream, _entries(store), keep_since)
                stream.flush()
                os.fsync(stream.fileno())
            digest = _require_same(temporary, chain.head)
            path.hardlink_to(temporary)  # unlike a rename, refuses to replace
        finally:
            temporary.unlink(missing_ok=True)
        _sync(path.absolute().parent)
    except FileExistsError:
        raise InvalidInput("conflict", f"{path} is there already") from None
    except OSError as error:
        code = "disk-full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "state-failed"
        raise EnvironmentFailure(code, f"{path}: {error.strerror}") from None
    return Archive(chain.first_seq, chain.head, digest, keeps)


def cut(store: Store, archive: Archive, now: datetime) -> int:
    """Cut off what is older than asked for, and return how many entries that were.

    Raises:
        InvalidInput: `conflict` where the log is not the one that was archived.

    """
    return 0 if archive.keeps is None else store.cut_audit(archive, archive.keeps, now)


def _entries(store: Store) -> Iterator[bytes]:
    after = 0
    while page := store.list_audit(after, _PAGE)[0]:
        after = page[-1][0]
        yield from (entry for _, entry in page)


def _write(
    stream: BinaryIO, entries: Iterable[bytes], keep_since: datetime | None
) -> tuple[Chain, Entry | None]:
    chain = Chain()
    keeps: Entry | None = None
    for data in entries:
        entry = chain.add(data)
        stream.write(data + b"\n")
        # Entries stand in the order of their numbers, which is not always that of their times.
        if keeps is None or (keep_since is not None and _time(keeps) < keep_since):
            keeps = entry
    chain.require_complete()
    is_older = keeps is not None and keeps.seq > chain.first_seq and keep_since is not None
    return chain, keeps if is_older else None


def _time(entry: Entry) -> datetime:
    try:
        return datetime.fromisoformat(entry.time)
    except ValueError:
        raise InvalidInput("broken-chain", f"entry {entry.seq} has no time") from None


def _require_same(path: Path, head: Head) -> str:
    """Return the SHA-256 of a file that holds a whole chain up to this head."""
    chain, digest, problem = Chain(), hashlib.sha256(), "it ends early"
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_ENTRY_BYTES + 2):
                digest.update(line)
                chain.add(line.removesuffix(b"\n"))
        chain.require_complete()
    except InvalidInput as error:
        problem = error.detail
    if chain.head != head:
        raise EnvironmentFailure("state-failed", f"{path} is not what was written to it: {problem}")
    return digest.hexdigest()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

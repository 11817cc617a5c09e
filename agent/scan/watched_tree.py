"""The places whose integrity is watched: walks them, compares them, and says what changed.

A place is a directory, or a file by its path. Of a directory itself and the entries in it are watched, of a
recursive place all that is below; links are entries and never followed, except that a place itself may be one
(`/bin` is on today's systems). No clock and no waiting here: `agent.modules.fswatch` says when.
"""

import errno
import os
import stat
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from agent.scan.baseline import Entries, Entry, look_at
from agent.scan.excludes import Exclusions
from agent.scan.opening import open_directory, resolve
from agent.scan.texts import mode_text, path_base64, path_text
from agent.watching import Report

_SET_ID = stat.S_ISUID | stat.S_ISGID


class Look(NamedTuple):
    """How one look is made: whether unchanged status is believed, and who is told of bytes read."""

    trusts_status: bool
    on_read: Callable[[int], None]


class Tree:
    """Some places, and how their entries are known to be.

    Args:
        paths: directories whose entries are watched, and files.
        recursive: directories of which all that is below is watched.
        excludes: globs, as `agent.scan.excludes` has them.
        max_entries: beyond so many nothing more is taken in, which `is_full` says.
        max_hash_bytes: of larger files no digest is made.

    """

    def __init__(
        self,
        *,
        paths: Tuple[str, ...],
        recursive: Tuple[str, ...],
        excludes: Tuple[str, ...],
        max_entries: int,
        max_hash_bytes: int,
    ) -> None:
        self._named = {path.encode("utf-8", "surrogateescape"): False for path in paths}
        self._named.update({path.encode("utf-8", "surrogateescape"): True for path in recursive})
        self._exclusions = Exclusions(excludes)
        self._max_entries = max_entries
        self._max_hash_bytes = max_hash_bytes
        self.entries: Entries = {}
        self.is_full = False
        self._shallow: Set[bytes] = set()
        self._deep: Set[bytes] = set()
        self._single: Dict[bytes, Set[bytes]] = {}

    def resolve_places(self) -> None:
        """Find out again what the places are: one may have come, gone, or be another."""
        self._shallow, self._deep, self._single = set(), set(), {}
        for path, is_deep in self._named.items():
            real = resolve(path)
            if os.path.isdir(real):  # noqa: PTH112  (bytes)
                (self._deep if is_deep else self._shallow).add(real)
            # Itself, too; a file, or what is not there yet, by its name alone.
            parent, _, name = real.rpartition(b"/")
            if name:
                self._single.setdefault(parent or b"/", set()).add(name)

    def directories(self) -> Set[bytes]:
        """Return the directories that are to be watched now."""
        found = {*self._shallow, *self._deep, *self._single}
        found.update(
            path for path, entry in self.entries.items() if entry.is_directory and self._is_deep(path)
        )
        return found

    def _is_deep(self, path: bytes) -> bool:
        return any(path == place or path.startswith(place.rstrip(b"/") + b"/") for place in self._deep)

    def _wanted(self, directory: bytes, name: bytes) -> bool:
        if self._exclusions.has_name(directory, name):
            return False
        if directory in self._shallow or self._is_deep(directory):
            return True
        return name in self._single.get(directory, ())

    @property
    def has_places(self) -> bool:
        """Whether it was found out what the places are."""
        return bool(self._shallow or self._deep or self._single)

    def add_silently(self, look: Look, known: Set[bytes]) -> None:
        """Take in what is there and not among `known`; what is known stays as it was known to be."""
        before = {path: self.entries[path] for path in known}
        for _ in self.compare_all(look):
            pass
        self.entries.update(before)

    # -- comparing ----------------------------------------------------------------------------------------

    def compare_all(self, look: Look) -> Iterator[Report]:
        """Compare everything, and take it as it is now; yield what is different."""
        self.resolve_places()
        self.is_full = False
        walk = _Walk([*self._shallow, *self._deep, *self._single])
        yield from self._walk(walk, look)
        yield from self._forget_gone(walk)
        for path in [path for path in self.entries if path not in walk.seen]:
            directory, _, name = path.rpartition(b"/")
            if not self._wanted(directory or b"/", name):  # the configuration does not name it any more
                del self.entries[path]

    def compare(self, directory: bytes, names: Set[bytes], look: Look) -> Iterator[Report]:
        """Compare some entries of a directory; an empty name stands for all of it."""
        walk = _Walk([])
        if b"" in names:
            walk.waiting.append(directory)
        else:
            yield from self._compare_names(directory, names, walk, look)
        yield from self._walk(walk, look)
        yield from self._forget_gone(walk)

    def _walk(self, walk: "_Walk", look: Look) -> Iterator[Report]:
        while walk.waiting:
            directory = walk.waiting.pop()
            if directory in walk.listed:
                continue
            opened, is_gone = _open(directory)
            if opened is None:
                if is_gone:
                    walk.listed.add(directory)
                continue
            try:
                names = {os.fsencode(name) for name in os.listdir(opened)}  # noqa: PTH208  (a descriptor)
                walk.listed.add(directory)
                yield from self._compare_opened(directory, opened, names, walk, look)
            finally:
                os.close(opened)

    def _compare_names(
        self, directory: bytes, names: Set[bytes], walk: "_Walk", look: Look
    ) -> Iterator[Report]:
        if not any(self._wanted(directory, name) for name in names):
            return
        opened, is_gone = _open(directory)
        if opened is None:
            walk.gone.update(_join(directory, name) for name in names if is_gone)
            return
        try:
            yield from self._compare_opened(directory, opened, names, walk, look)
        finally:
            os.close(opened)

    def _compare_opened(
        self, directory: bytes, opened: int, names: Set[bytes], walk: "_Walk", look: Look
    ) -> Iterator[Report]:
        for name in sorted(names):
            if not self._wanted(directory, name):
                continue
            path = _join(directory, name)
            entry = self._look(name, opened, path, look)
            if entry is None:
                walk.gone.add(path)
                continue
            walk.seen.add(path)
            yield from self._note(path, entry)
            if entry.is_directory and self._is_deep(path):
                walk.waiting.append(path)

    def _forget_gone(self, walk: "_Walk") -> Iterator[Report]:
        """Forget what was not found where it was looked for, and what was below it."""
        for path in sorted(self.entries):
            if path in walk.seen:
                continue
            directory, _, name = path.rpartition(b"/")
            is_listed = (directory or b"/") in walk.listed and self._wanted(directory or b"/", name)
            if is_listed or directory in walk.gone or path in walk.gone:
                walk.gone.add(path)
                yield self._forget(path)

    def _look(self, name: bytes, directory: int, path: bytes, look: Look) -> Optional[Entry]:
        try:
            return look_at(
                name,
                directory,
                before=self.entries.get(path),
                trusts_status=look.trusts_status,
                max_bytes=self._max_hash_bytes,
                on_read=look.on_read,
            )
        except OSError:  # it cannot even be asked for: as it was
            return self.entries.get(path)

    def _note(self, path: bytes, entry: Entry) -> Iterator[Report]:
        before = self.entries.get(path)
        if before is None:
            if len(self.entries) >= self._max_entries:
                self.is_full = True
                return
            self.entries[path] = entry
            yield _report("created", _created_severity(entry), path, _facts(entry))
            return
        self.entries[path] = entry
        yield from _compare(path, before, entry)

    def _forget(self, path: bytes) -> Report:
        before = self.entries.pop(path)
        return _report(
            "removed", "low", path, {"type": _type(before), "sha256_before": before.digest or None}
        )


class _Walk:
    """One walk: directories that wait and that were listed, entries that were seen, and that are gone."""

    def __init__(self, waiting: List[bytes]) -> None:
        self.waiting = sorted(set(waiting))
        self.listed: Set[bytes] = set()
        self.seen: Set[bytes] = set()
        self.gone: Set[bytes] = set()


def _open(directory: bytes) -> Tuple[Optional[int], bool]:
    """Open a directory; None where that cannot be, and whether it is because it is not there."""
    try:
        return open_directory(directory), False
    except OSError as error:
        return None, error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name


def _compare(path: bytes, before: Entry, after: Entry) -> Iterator[Report]:
    """Say what is different: what it is, what it holds, whose it is."""
    kind_before, kind_after = _type(before), _type(after)
    if kind_before != kind_after:
        told = {"type_before": kind_before, **_facts(after)}
        yield _report("replaced", "critical", path, told)
        return
    if before.target != after.target:
        told = {"target_before": path_text(before.target), "target": path_text(after.target)}
        yield _report("link", "high", path, told)
    is_unread = before.digest != after.digest and not (before.digest and after.digest)
    grew = not before.digest and not after.digest and before.is_touched(after) and kind_after == "file"
    if before.digest != after.digest or grew:
        told = {
            "sha256_before": before.digest or None,
            "sha256": after.digest or None,
            "size_bytes_before": before.size,
            "size_bytes": after.size,
            **({"problem": after.problem} if after.problem else {}),
        }
        yield _report("changed", "high" if is_unread or grew else "critical", path, told)
    if (before.mode, before.uid, before.gid) != (after.mode, after.uid, after.gid):
        gained = after.mode & ~before.mode
        severity = "critical" if gained & _SET_ID else "high" if gained & stat.S_IWOTH else "medium"
        told = {
            "mode_before": mode_text(before.mode),
            "mode": mode_text(after.mode),
            "uid_before": before.uid,
            "uid": after.uid,
            "gid_before": before.gid,
            "gid": after.gid,
        }
        yield _report("attributes", severity, path, told)


def _created_severity(entry: Entry) -> str:
    return "high" if stat.S_ISREG(entry.mode) and entry.mode & _SET_ID else "medium"


def _facts(entry: Entry) -> Dict[str, Any]:
    return {
        "type": _type(entry),
        "mode": mode_text(entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "size_bytes": entry.size,
        "sha256": entry.digest or None,
        **({"target": path_text(entry.target)} if entry.target else {}),
        **({"problem": entry.problem} if entry.problem else {}),
    }


def _type(entry: Entry) -> str:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"))
    return next((name for is_kind, name in kinds if is_kind(entry.mode)), "special")


def _report(kind: str, severity: str, path: bytes, told: Dict[str, Any]) -> Report:
    text, base64 = path_text(path), path_base64(path)
    record = {"path": text, **({"path_b64": base64} if base64 else {}), **told}
    return Report(kind, severity, text, {name: value for name, value in record.items() if value is not None})

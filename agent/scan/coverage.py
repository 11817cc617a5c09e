"""What a scan saw, read, skipped and could not read: the part that makes "nothing" mean something.

Everything that is said goes through `take`, as an event: what a worker says of a file travels to the scan and
is told there, in the order of the walk.
"""

import os
from abc import ABC, abstractmethod
from collections import Counter
from typing import Any, Callable, Dict, List, Optional, Sequence

from agent.scan.items import Event, Found, Item
from agent.scan.texts import path_text

NOT_ALLOWED = "not-allowed"
_NAMED = 20


class Witness(ABC):
    """Counts, and says what happened to single files."""

    def __init__(self) -> None:
        self.files_seen = 0
        self.files_read = 0
        self.bytes_read = 0
        self.files_cached = 0

    @abstractmethod
    def take(self, event: Event) -> None:
        """Take an event."""

    def note(self, text: str) -> None:
        """Say something about the coverage that is not an error."""
        self.take(Event("note", b"", text))

    def skip(self, reason: str, count: int = 1) -> None:
        """Count something that was left out on purpose, by its reason."""
        self.take(Event("skip", b"", reason, count))

    def fail(self, path: bytes, error: OSError) -> None:
        """Count and name something that could not be read."""
        self.lose(path, os.strerror(error.errno) if error.errno else str(error))

    def lose(self, path: bytes, reason: str) -> None:
        """Count and name something that could not be read, for a reason in words."""
        self.take(Event("lose", path, reason))

    def withhold(self, path: bytes) -> None:
        """Count, and at first name, something that the endpoint's access rules do not allow."""
        self.take(Event("withhold", path))

    def vanish(self, path: bytes) -> None:
        """Count and name something that was there when the scan met it and is gone: no error, but a hole."""
        self.take(Event("vanish", path))

    def change(self, path: bytes) -> None:
        """Count and name a file that changed while it was read: its digests may be of no state it had."""
        self.take(Event("change", path))

    def cut(self, path: bytes) -> None:
        """Name a file with a line too long to be matched whole."""
        self.take(Event("cut", path))


class Recorder(Witness):
    """Keeps what is said, with what was counted in between, until it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._index = 0
        self._names: Sequence[bytes] = ()
        self._first = 0
        self._items: List[Item] = []
        self._bytes_before = 0

    def at(self, index: int) -> None:
        """Say which entry of a batch is looked at."""
        self._index = index

    def begin(self, names: Sequence[bytes], first: int) -> None:
        """Say which entries come next: their names, and the index of the first."""
        self._names, self._first = names, first

    def take(self, event: Event) -> None:
        """Keep an event."""
        self._add(event, None)

    def find(self, found: Found) -> None:
        """Keep a match."""
        self._add(None, found)

    def tell(self, index: int, found: Found) -> None:
        """Keep a match for which its file was only looked up, and count that."""
        self.at(index)
        self.files_seen += 1
        self._add(None, found)

    def tell_all(self, index: int, found: Sequence[Found]) -> None:
        """Keep matches of entries that follow each other, from this one on, as `tell` does."""
        self.tell(index, found[0])
        rest = enumerate(found[1:], index + 1)
        names, first = self._names, self._first
        self._items += [Item(at, 1, found=one, name=names[at - first]) for at, one in rest]
        self.at(index + len(found) - 1)

    def count_read(self, files: int, total: int) -> None:
        """Count files that were read, and judged, and their bytes."""
        self.files_seen += files
        self.files_read += files
        self.bytes_read += total

    def defer(self, kind: str) -> None:
        """Say that the entry, of this kind, is to be judged on its own."""
        self._add(None, None, kind)

    def _add(self, event: Optional[Event], found: Optional[Found], deferred_as: str = "") -> None:
        is_named = found is not None or deferred_as
        self._items.append(
            Item(
                self._index,
                self.files_seen,
                self.files_read,
                self.bytes_read,
                event,
                found,
                deferred_as,
                self.files_cached,
                self._names[self._index - self._first] if is_named else b"",
            )
        )
        self._bytes_before += self.bytes_read
        self.files_seen = self.files_read = self.bytes_read = self.files_cached = 0

    def bytes_in_all(self) -> int:
        """Return how much was read since the beginning."""
        return self._bytes_before + self.bytes_read

    def has_items(self) -> bool:
        """Tell whether anything was kept."""
        return bool(self._items)

    def kept(self) -> List[Item]:
        """Return what was kept, and begin anew; what was only counted comes with what is kept next."""
        items, self._items = self._items, []
        return items

    def rest(self) -> List[Item]:
        """Return what was kept and what was counted since, and begin anew."""
        if self.files_seen or self.files_read or self.bytes_read or self.files_cached:
            self._add(None, None)
        return self.kept()


class Coverage(Witness):
    """Counts of one scan, and its notes about single files.

    `max_errors` bounds how many unreadable things are named (0: all that the answer has room for); all are
    counted.
    """

    def __init__(self, note: Callable[[str], None], *, max_errors: int = 0) -> None:
        super().__init__()
        self.errors = 0
        self.changed = 0
        # What was read of files that the scan cannot tell of yet.
        self.bytes_under_way = 0
        self.skipped: Counter[str] = Counter()
        self._note = note
        self._max_errors = max_errors

    def count(self, item: Item) -> None:
        """Add what an item counted, and take its event."""
        self.files_seen += item.files_seen
        self.files_read += item.files_read
        self.bytes_read += item.bytes_read
        self.files_cached += item.files_cached
        if item.event is not None:
            self.take(item.event)

    def take(self, event: Event) -> None:
        """Count an event, and note it where it is worth a note."""
        action, path, text, times = event
        if action == "note":
            self._note(text)
        elif action == "skip":
            self.skipped[text] += times
        elif action == "lose":
            self.errors += 1
            if not self._max_errors or self.errors <= self._max_errors:
                self._note(f"{path_text(path)}: {text}")
        elif action == "withhold":
            self.skipped[NOT_ALLOWED] += 1
            if self.skipped[NOT_ALLOWED] <= _NAMED:
                self._note(f"{path_text(path)}: not looked at, this endpoint's access rules do not allow it")
        elif action == "vanish":
            self.skipped["vanished"] += 1
            self._note(f"{path_text(path)}: vanished while the scan ran")
        elif action == "change":
            self.changed += 1
            self._note(f"{path_text(path)}: changed while it was read")
        elif action == "cut":
            self._note(f"{path_text(path)}: has a line of more than 16 MiB, which was matched in pieces")
        else:
            raise ValueError(action)

    def finish(self) -> None:
        """Say in words what is only counted."""
        if self.skipped["directory-link"]:
            self._note(f"links to directories, not followed: {self.skipped['directory-link']}")
        if self.skipped[NOT_ALLOWED] > _NAMED:
            self._note(f"not looked at in all, by this endpoint's access rules: {self.skipped[NOT_ALLOWED]}")
        if self.files_cached:
            self._note(f"not read, since earlier scans kept their digests: {self.files_cached} files")
        withheld = self.errors - self._max_errors
        if self._max_errors and withheld > 0:
            self._note(f"{withheld} further errors withheld (maxerrors {self._max_errors})")

    def statistics(self) -> Dict[str, Any]:
        """Return the counts as the members of a result's statistics."""
        cached = {"cached": self.files_cached} if self.files_cached else {}
        return {
            "files_seen": self.files_seen,
            "files_read": self.files_read,
            "bytes_read": self.bytes_read + self.bytes_under_way,
            "skipped": dict(sorted(self.skipped.items())),
            "errors": self.errors,
            "changed": self.changed,
            **cached,
        }

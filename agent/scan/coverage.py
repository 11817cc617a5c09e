"""What a scan saw, read, skipped and could not read: the part that makes "nothing" mean something."""

import os
from collections import Counter
from typing import Any, Callable, Dict

from agent.scan.texts import path_text

NOT_ALLOWED = "not-allowed"
_NAMED = 20


class Coverage:
    """Counts of one scan, and its notes about single files.

    `max_errors` bounds how many unreadable things are named (0: all that the answer has room for); all are
    counted.
    """

    def __init__(self, note: Callable[[str], None], *, max_errors: int = 0) -> None:
        self.files_seen = 0
        self.files_read = 0
        self.bytes_read = 0
        self.errors = 0
        self.changed = 0
        self.skipped: Counter[str] = Counter()
        self._note = note
        self._max_errors = max_errors

    def note(self, text: str) -> None:
        """Say something about the coverage that is not an error."""
        self._note(text)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count something that was left out on purpose, by its reason."""
        self.skipped[reason] += count

    def fail(self, path: bytes, error: OSError) -> None:
        """Count and name something that could not be read."""
        self.lose(path, os.strerror(error.errno) if error.errno else str(error))

    def lose(self, path: bytes, reason: str) -> None:
        """Count and name something that could not be read, for a reason in words."""
        self.errors += 1
        if not self._max_errors or self.errors <= self._max_errors:
            self._note(f"{path_text(path)}: {reason}")

    def withhold(self, path: bytes) -> None:
        """Count, and at first name, something that the endpoint's access rules do not allow."""
        self.skipped[NOT_ALLOWED] += 1
        if self.skipped[NOT_ALLOWED] <= _NAMED:
            self._note(f"{path_text(path)}: not looked at, this endpoint's access rules do not allow it")

    def vanish(self, path: bytes) -> None:
        """Count and name something that was there when the scan met it and is gone: no error, but a hole."""
        self.skipped["vanished"] += 1
        self._note(f"{path_text(path)}: vanished while the scan ran")

    def change(self, path: bytes) -> None:
        """Count and name a file that changed while it was read: its digests may be of no state it had."""
        self.changed += 1
        self._note(f"{path_text(path)}: changed while it was read")

    def cut(self, path: bytes) -> None:
        """Name a file with a line too long to be matched whole."""
        self._note(f"{path_text(path)}: has a line of more than 16 MiB, which was matched in pieces")

    def finish(self) -> None:
        """Say in words what is only counted."""
        if self.skipped["directory-link"]:
            self._note(f"links to directories, not followed: {self.skipped['directory-link']}")
        if self.skipped[NOT_ALLOWED] > _NAMED:
            self._note(f"not looked at in all, by this endpoint's access rules: {self.skipped[NOT_ALLOWED]}")
        withheld = self.errors - self._max_errors
        if self._max_errors and withheld > 0:
            self._note(f"{withheld} further errors withheld (maxerrors {self._max_errors})")

    def statistics(self) -> Dict[str, Any]:
        """Return the counts as the members of a result's statistics."""
        return {
            "files_seen": self.files_seen,
            "files_read": self.files_read,
            "bytes_read": self.bytes_read,
            "skipped": dict(sorted(self.skipped.items())),
            "errors": self.errors,
            "changed": self.changed,
        }

"""Signed answers that the broker has not confirmed yet, one file each.

An answer is in the spool, synced, before the journal calls its command answered, and leaves it when the
broker has confirmed it: a crash in between sends it again, and receivers are idempotent. The order of the
files' names is the order of the answers.
"""

import re
from pathlib import Path
from typing import List, NamedTuple, Set

from agent.runtime.state import environment_failure, sync_directory, write_atomically
from protocol.errors import EnvironmentFailure

_NAME = re.compile(r"(\d{12})-([0-9a-f]{32})\.(answer|refusal)\Z")
MAX_BYTES = 256 << 20


class SpooledAnswer(NamedTuple):
    """One answer's file name and its signed envelope."""

    name: str
    body: bytes


class Spool:
    """The answers waiting in one directory, which belongs to this process alone.

    Raises:
        EnvironmentFailure: `state-failed` or `disk-full`, by every method that touches the disk.

    """

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            names = self.names()
            self._used = sum((directory / name).stat().st_size for name in names)
        except OSError as error:
            raise environment_failure(error, directory) from None
        self._next = int(names[-1].split("-")[0]) + 1 if names else 0

    def names(self) -> List[str]:
        """Return the names of the answers that wait, oldest first."""
        return sorted(entry.name for entry in self._directory.iterdir() if _NAME.match(entry.name))

    def answered_commands(self) -> Set[str]:
        """Return the ids of the commands whose answer, not a mere refusal, waits here."""
        matches = [_NAME.match(name) for name in self.names()]
        return {match.group(2) for match in matches if match is not None and match.group(3) == "answer"}

    def put(self, command_id: str, body: bytes, *, is_refusal: bool) -> str:
        """Keep one signed answer and return its name; it is on the disk when this returns."""
        if self._used + len(body) > self._max_bytes:
            raise EnvironmentFailure(
                "disk-full", f"{self._directory} holds {self._used} bytes", retryable=True
            )
        name = f"{self._next:012d}-{command_id}.{'refusal' if is_refusal else 'answer'}"
        write_atomically(self._directory / name, body)
        self._next += 1
        self._used += len(body)
        return name

    def get(self, name: str) -> SpooledAnswer:
        """Return one answer."""
        try:
            return SpooledAnswer(name, (self._directory / name).read_bytes())
        except OSError as error:
            raise environment_failure(error, self._directory / name) from None

    def remove(self, name: str) -> None:
        """Forget an answer that the broker has confirmed."""
        path = self._directory / name
        try:
            size = path.stat().st_size
            path.unlink()
            sync_directory(self._directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise environment_failure(error, path) from None
        self._used -= size

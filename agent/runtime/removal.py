"""The end of an agent: a signed order to remove itself, carried out once, and after its answer.

Steps, each on the disk before the next, so that a crash leaves a state from which the next start goes on:
1. The order was let in by the gate and ran: it is noted in `removal.json`, before the answer is spooled. What
   counts is what was signed, not what a child says.
2. The broker has confirmed the answer: that is noted. From here on the agent obeys nobody.
3. It tells the server once that it leaves, and waits for no more than a moment.
4. State goes, then the service, then the agent's file, and the note last. Of all of these only what is known
   to be the agent's own: files by their names, a unit that is word for word ours, the very file that runs.
A crash between 1 and the answer leaves an order that was interrupted: it is dropped, and answered as such.

Standard library only: the resident agent imports this module.
"""

import contextlib
import json
import logging
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any, Collection, List, NamedTuple, Optional

from agent.runtime import service
from agent.runtime.answers import Answer
from agent.runtime.journal import JournalEntry
from agent.runtime.state import environment_failure, sync_directory, write_atomically
from protocol.envelope import ACTION, decode_envelope
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.strictjson import decode_json

_LOG = logging.getLogger("mig.agent.removal")
MODULE = "agentdestroy"
NOTE_FILE = "removal.json"
_STATE = (
    "identity.json",
    "journal",
    "spool",
    "alerts",
    "alerts.json",
    "watch",
    "digests",
    "trust-bundle.json",
    "trust-version.json",
    "status.json",
)
_HISTORY = ("asked", "audit.log", "audit.log.broken")
_MAX_NOTE = 4096


class Note(NamedTuple):
    """An order under way: its command, whether the log goes too, and whether its answer is confirmed."""

    command: str
    purge: bool
    is_confirmed: bool = False


def read_order(entry: JournalEntry, version: str) -> Optional[Note]:
    """Return what a command that ran has ordered, by the bytes that were signed; None where it did not."""
    if MODULE not in entry.modules:
        return None
    try:
        members = decode_json(decode_envelope(entry.envelope, ACTION).payload)
        orders = [one["parameters"] for one in members["operations"] if one["module"] == MODULE]
    except (InvalidInput, KeyError, TypeError):
        return None
    meant = [one for one in orders if one.get("version") in {None, version}]
    return Note(entry.command_id, any(one.get("purge") is True for one in meant)) if meant else None


class Removal:
    """Whether this agent is to remove itself, and how far that is.

    Args:
        directory: the state directory.
        version: of this agent.

    Raises:
        EnvironmentFailure: `state-failed`.

    """

    def __init__(self, directory: Path, version: str) -> None:
        self._directory = directory
        self._path = directory / NOTE_FILE
        self._version = version
        self.note = self._load()

    @property
    def is_confirmed(self) -> bool:
        """Whether nothing but the removal is left to do."""
        return self.note is not None and self.note.is_confirmed

    def _load(self) -> Optional[Note]:
        try:
            told = json.loads(self._path.read_bytes()[:_MAX_NOTE])
            return Note(str(told["command"]), told["purge"] is True, told["is_confirmed"] is True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise environment_failure(error, self._path) from None
        except (ValueError, KeyError, TypeError):
            raise EnvironmentFailure("state-failed", f"{self._path} is damaged") from None

    def _save(self, note: Note) -> None:
        write_atomically(self._path, json.dumps(note._asdict()).encode("ascii"))
        self.note = note

    def take(self, answer: Answer) -> None:
        """Note what a command has ordered that is about to be answered.

        Raises:
            EnvironmentFailure: `state-failed` or `disk-full`; the answer is not to be spooled.

        """
        if answer.status != "done" or answer.entry is None or self.note is not None:
            return
        order = read_order(answer.entry, self._version)
        if order is not None:
            self._save(order)

    def recover(self, spooled: Collection[str], unanswered: Collection[str]) -> None:
        """Find out after a start how far an order was.

        Raises:
            EnvironmentFailure: `state-failed` or `disk-full`.

        """
        if self.note is None or self.note.is_confirmed or self.note.command in spooled:
            return
        if self.note.command in unanswered:
            _LOG.warning("an order to remove this agent was interrupted, and is dropped")
            self._path.unlink()
            sync_directory(self._directory)
            self.note = None
        else:  # it has left the spool, so the broker has it
            self._save(self.note._replace(is_confirmed=True))

    def confirm(self, name: str) -> bool:
        """Note that the broker has an answer, by its name in the spool; tell whether it is the order's."""
        if self.note is None or self.note.is_confirmed or self.note.command not in name:
            return False
        self._save(self.note._replace(is_confirmed=True))
        return True

    def carry_out(self) -> None:
        """Remove the agent. What is gone already is fine; what cannot be removed is logged, and stays."""
        if self.note is None or not self.note.is_confirmed:
            raise ValueError("nobody has ordered this, or nobody knows it yet")
        names = [*_STATE, *(_HISTORY if self.note.purge else ())]
        for name in names:
            _remove(self._directory / name)
        program = _own_program()
        if program is not None:
            _remove_service(program)
            _remove(program)
        _remove(self._directory / NOTE_FILE)
        left = self._left()
        if not left:
            _remove(self._directory / "lock")
            with contextlib.suppress(OSError):
                self._directory.rmdir()
        _LOG.warning(
            "this agent has removed itself; %s", f"left: {', '.join(left)}" if left else "nothing is left"
        )

    def _left(self) -> List[str]:
        return sorted(entry.name for entry in self._directory.iterdir() if entry.name != "lock")


def _own_program() -> Optional[Path]:
    """Return the agent's file, where it is the very file that runs; None in a source tree."""
    startup: Any = sys.modules.get("mig_startup")
    if startup is None:
        return None
    try:
        path = Path(startup.path)
        there, ours = path.lstat(), os.fstat(startup.archive_fd)
    except OSError:
        return None
    is_ours = stat.S_ISREG(there.st_mode) and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
    return path if is_ours else None


def _remove_service(program: Path) -> None:
    try:
        if service.remove_service(program):
            _LOG.warning("the service is removed")
    except (EnvironmentFailure, InvalidInput) as error:
        _LOG.error("the service cannot be removed: %s", error)


def _remove(path: Path) -> None:
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        _LOG.error("%s cannot be removed: %s", path, error.strerror)

"""The journal: an action runs at most once and is answered at least once.

Rules:
1. `insert` if absent is the permission to run: whoever got True may run this (digest, occurrence), nobody
   else ever. It is on the disk before it is given.
2. States go `accepted -> started -> answered` and never back. After a crash, `accepted` did not run and may
   be judged again; `started` may have run, and never runs again.
3. It is bounded. Of answered entries those that expire first are dropped first, and the latest expiry dropped
   is kept as the horizon: whatever expires at or before it is refused, since nobody can tell any more whether
   it ran. A full journal, or a clock set back, closes the door and can never open it.
4. What cannot be written does not run: a full disk refuses, and the command stays with the broker.
5. Of an action with a schedule each occurrence is one command. They run in order only: after a later one no
   earlier one is permitted, whatever the clock says. An occurrence expires with its grace, so that a schedule
   of months leaves only hours behind, and the horizon never reaches into the future because of it.
6. A cancel is kept as a tombstone. Who signed it is compared with who signed the action when both are here;
   so nobody can take back what others asked. Each signer has room for `MAX_TOMBSTONES`, and only expired ones
   make room for new ones.

In memory stand the commands without an answer and, of the others, key and expiry. Standard library only: the
resident agent imports this module.
"""

import base64
import math
from datetime import datetime
from pathlib import Path
from typing import Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from agent.runtime.records import Members, RecordFile, read_records
from protocol.errors import EnvironmentFailure, InvalidInput

ACCEPTED, STARTED, ANSWERED = "accepted", "started", "answered"
MAX_ENTRIES = 10_000
MAX_TOMBSTONES = 256
_FORMAT = 1
_MAX_NAME = 200
_COMPACT_BYTES = 4 << 20

Key = Tuple[str, str]


class JournalEntry(NamedTuple):
    """What the journal knows of one command.

    `expireafter` is in Unix seconds, rounded up; `accepted` and `changed` are RFC 3339; `envelope` is kept
    while the state is `accepted`; `status` is that of the answer.
    """

    digest: str
    occurrence: str
    command_id: str
    action_id: str
    name: str
    signers: Tuple[str, ...]
    modules: Tuple[str, ...]
    expireafter: int
    envelope: bytes = b""
    accepted: str = ""
    changed: str = ""
    state: str = ACCEPTED
    status: str = ""

    @property
    def key(self) -> Key:
        """What makes it one command: the payload's digest and the occurrence of its schedule."""
        return self.digest, self.occurrence


class Tombstone(NamedTuple):
    """A cancel: what it takes back, and who signed it.

    `manages` says that a signer may cancel what others signed; `expireafter` is in Unix seconds, rounded up.
    """

    digest: str
    action_id: str
    signers: Tuple[str, ...]
    expireafter: int
    manages: bool = False

    def counts_for(self, signers: Iterable[str]) -> bool:
        """Tell whether it takes back an action with these signers."""
        return self.manages or not set(self.signers).isdisjoint(signers)


def format_time(time: datetime) -> str:
    """Return an aware UTC time as RFC 3339, with microseconds."""
    return time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def expiry_seconds(time: datetime) -> int:
    """Return an expiry in Unix seconds, rounded up, as the journal compares it."""
    return math.ceil(time.timestamp())


def _write_entry(entry: JournalEntry) -> Members:
    return {
        **entry._asdict(),
        "envelope": base64.b64encode(entry.envelope).decode("ascii"),
        "name": entry.name[:_MAX_NAME],
    }


def _read_entry(members: Members) -> JournalEntry:
    tuples = {name: tuple(members[name]) for name in ("signers", "modules")}
    return JournalEntry(**{**members, **tuples, "envelope": base64.b64decode(members["envelope"])})


def _write_tombstone(tombstone: Tombstone) -> Members:
    return {"tombstone": tombstone.digest, **tombstone._asdict()}


def _read_tombstone(members: Members) -> Tombstone:
    named = {name: members[name] for name in Tombstone._fields}
    return Tombstone(**{**named, "signers": tuple(members["signers"])})


def _apply(entries: Dict[Key, JournalEntry], members: Members) -> Optional[JournalEntry]:
    """Bring one record into `entries` and return the entry that it made or changed; others have none."""
    if "journal" in members or "tombstone" in members:
        return None
    if "action_id" in members:
        entry = _read_entry(members)
    else:
        before = entries[(members["digest"], members["occurrence"])]
        entry = before._replace(
            state=members["state"], status=members["status"], changed=members["changed"], envelope=b""
        )
    entries[entry.key] = entry
    return entry


class JournalView(NamedTuple):
    """What a journal held when it was read: entries, oldest first, horizon in Unix seconds, tombstones."""

    entries: Tuple[JournalEntry, ...]
    horizon: int
    tombstones: Tuple[Tombstone, ...] = ()

    def require_not_run(
        self, digest: str, occurrence: str, expireafter: datetime, signers: FrozenSet[str] = frozenset()
    ) -> None:
        """Raise where `Journal.insert` would not permit it.

        Raises:
            InvalidInput: `replayed`, `cancelled` or `journal-closed`.

        """
        if any(entry.digest == digest and entry.occurrence >= occurrence for entry in self.entries):
            raise InvalidInput("replayed")
        if any(stone.digest == digest and stone.counts_for(signers) for stone in self.tombstones):
            raise InvalidInput("cancelled")
        if expiry_seconds(expireafter) <= self.horizon:
            raise InvalidInput("journal-closed")


def read_journal(path: Path) -> JournalView:
    """Read a journal beside an agent that may be writing it; for `mig-agent log` and `verify`.

    Raises:
        EnvironmentFailure: `state-failed`.

    """
    entries: Dict[Key, JournalEntry] = {}
    horizon = 0
    tombstones: Dict[str, Tombstone] = {}
    try:
        for members in read_records(path):
            horizon = max(horizon, members.get("horizon", 0))
            _apply(entries, members)
            if "tombstone" in members:
                tombstones[members["digest"]] = _read_tombstone(members)
    except (KeyError, TypeError, ValueError) as error:
        raise EnvironmentFailure("state-failed", f"{path} is damaged: {error!r}") from None
    return JournalView(tuple(entries.values()), horizon, tuple(tombstones.values()))


class Journal:
    """The journal of one agent, open for writing.

    Args:
        path: the file; made where it is not there.
        clock: now, aware UTC.
        max_entries: how many entries are kept, at least 4.
        max_tombstones: how many of each signer.

    Raises:
        EnvironmentFailure: `state-in-use`, `state-failed` or `disk-full`, by the constructor and by every
            change; after a failed change the journal is as it was before.
        InvalidInput: `unsafe-file`, by the constructor.

    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime],
        max_entries: int = MAX_ENTRIES,
        max_tombstones: int = MAX_TOMBSTONES,
    ) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._max_tombstones = max_tombstones
        self._open: Dict[Key, JournalEntry] = {}
        self._answered: Dict[Key, int] = {}
        self._statuses: Dict[Key, str] = {}
        self._latest: Dict[str, str] = {}  # of each digest, the latest occurrence
        self._tombstones: Dict[str, Tombstone] = {}
        self._horizon = 0
        self._file = RecordFile(path)
        try:
            self._replay()
        except (KeyError, TypeError, ValueError) as error:
            self._file.close()
            raise EnvironmentFailure("state-failed", f"{path} is damaged: {error!r}") from None
        except EnvironmentFailure:
            self._file.close()
            raise
        self._compacted_bytes = self._file.size_bytes

    def _replay(self) -> None:
        for members in self._file.replay():
            self._horizon = max(self._horizon, members.get("horizon", 0))
            if "tombstone" in members:
                self._tombstones[members["digest"]] = _read_tombstone(members)
            entry = _apply(self._open, members)
            if entry is not None:
                self._note_occurrence(entry.key)
            if entry is not None and entry.state == ANSWERED:
                self._answered[entry.key] = self._open.pop(entry.key).expireafter
        if not self._file.size_bytes:
            self._file.append({"journal": _FORMAT, "horizon": 0})

    def state_of(self, digest: str, occurrence: str) -> Optional[str]:
        """Return `accepted`, `started`, `answered`, or None where the journal holds no such command."""
        key = (digest, occurrence)
        if key in self._answered:
            return ANSWERED
        entry = self._open.get(key)
        return entry.state if entry else None

    def unanswered(self) -> List[JournalEntry]:
        """Return what was accepted or started and has no answer in the spool yet, oldest first."""
        return list(self._open.values())

    def insert(self, entry: JournalEntry) -> bool:
        """Insert if absent: True is the permission to run it; False says that it is there already.

        Raises:
            InvalidInput: `journal-closed`, it expires no later than something that was dropped; `replayed`, a
                later occurrence was run; `cancelled`, by one of its signers.

        """
        if entry.key in self._open or entry.key in self._answered:
            return False
        if self._latest.get(entry.digest, "") > entry.occurrence:
            raise InvalidInput("replayed", "a later occurrence was run before")
        if self.is_cancelled(entry.digest, entry.signers):
            raise InvalidInput("cancelled")
        if entry.expireafter <= self._horizon:
            raise InvalidInput("journal-closed")
        self._make_room()
        now = format_time(self._clock())
        entry = entry._replace(state=ACCEPTED, accepted=now, changed=now)
        self._file.append(_write_entry(entry))
        self._open[entry.key] = entry
        self._note_occurrence(entry.key)
        return True

    def _note_occurrence(self, key: Key) -> None:
        digest, occurrence = key
        if occurrence:
            self._latest[digest] = max(occurrence, self._latest.get(digest, ""))

    def is_cancelled(self, digest: str, signers: Iterable[str]) -> bool:
        """Tell whether one of these signers, or who may manage, has taken an action back."""
        stone = self._tombstones.get(digest)
        return stone is not None and stone.counts_for(signers)

    def insert_tombstone(self, stone: Tombstone) -> bool:
        """Keep a cancel whose signatures were verified; False where its signers have no room left."""
        before = self._tombstones.get(stone.digest)
        if before is not None:
            # What one signer said never weakens what another one did.
            stone = stone._replace(
                signers=tuple(sorted({*before.signers, *stone.signers})),
                expireafter=max(before.expireafter, stone.expireafter),
                manages=before.manages or stone.manages,
            )
        if stone == before:
            return True
        known = before.signers if before is not None else ()
        new = [signer for signer in stone.signers if signer not in known]
        if any(self._count_tombstones(signer) >= self._max_tombstones for signer in new):
            self._drop_expired_tombstones()
        if any(self._count_tombstones(signer) >= self._max_tombstones for signer in new):
            return False
        self._file.append(_write_tombstone(stone))
        self._tombstones[stone.digest] = stone
        return True

    def _count_tombstones(self, signer: str) -> int:
        return sum(signer in stone.signers for stone in self._tombstones.values())

    def _drop_expired_tombstones(self) -> None:
        now = expiry_seconds(self._clock())
        expired = {digest for digest, stone in self._tombstones.items() if stone.expireafter < now}
        if expired:
            self._compact(set(), expired)

    def mark_started(self, digest: str, occurrence: str) -> None:
        """Record that from here on it may have run."""
        entry = self._open[(digest, occurrence)]
        if entry.state != ACCEPTED:
            raise ValueError(f"command {entry.command_id} is {entry.state}, not accepted")
        self._change(entry, STARTED, "")

    def note_status(self, digest: str, occurrence: str, status: str) -> None:
        """Remember how it ended, for the record that `mark_answered` will write."""
        self._statuses[(digest, occurrence)] = status

    def mark_answered(self, digest: str, occurrence: str) -> None:
        """Record that its answer is safely in the spool; a command that is not open is left alone."""
        key = (digest, occurrence)
        entry = self._open.get(key)
        if entry is None:
            return
        self._change(entry, ANSWERED, self._statuses.get(key, ""))
        self._statuses.pop(key, None)
        self._answered[key] = self._open.pop(key).expireafter

    def _change(self, entry: JournalEntry, state: str, status: str) -> None:
        changed = format_time(self._clock())
        members = {"digest": entry.digest, "occurrence": entry.occurrence, "state": state, "status": status}
        self._file.append({**members, "changed": changed})
        self._open[entry.key] = entry._replace(state=state, status=status, changed=changed, envelope=b"")

    def _make_room(self) -> None:
        """Drop entries when there are too many, and write the file anew when most of it is out of date."""
        count = len(self._open) + len(self._answered)
        dropped: List[Key] = []
        if count >= self._max_entries:
            by_expiry = sorted(self._answered, key=lambda key: self._answered[key])
            dropped = by_expiry[: max(1, count - self._max_entries * 3 // 4)]
            if not dropped:
                raise EnvironmentFailure("state-failed", f"{self._file.path} is full of unanswered commands")
        if dropped or self._file.size_bytes > max(_COMPACT_BYTES, 2 * self._compacted_bytes):
            self._compact(set(dropped), set())

    def _compact(self, dropped: Set[Key], stones: Set[str]) -> None:
        """Write the file anew without these entries and tombstones; what they closed stays closed."""
        expiries = [self._answered[key] for key in dropped]
        expiries += [self._tombstones[digest].expireafter for digest in stones]
        horizon = max([self._horizon, *expiries])

        def keep(members: Members) -> Optional[Members]:
            if "journal" in members:
                return None
            if "tombstone" in members:
                return None if members["digest"] in stones else members
            key = (members["digest"], members["occurrence"])
            if key in dropped:
                return None
            if "envelope" in members and self.state_of(*key) != ACCEPTED:
                return {**members, "envelope": ""}
            return members

        self._file.rewrite({"journal": _FORMAT, "horizon": horizon}, keep)
        self._compacted_bytes = self._file.size_bytes
        self._horizon = horizon
        for key in dropped:
            del self._answered[key]
        for digest in stones:
            del self._tombstones[digest]
        # Where all of a schedule's entries are gone, the horizon lies behind the latest of them.
        self._latest.clear()
        for key in (*self._open, *self._answered):
            self._note_occurrence(key)

    def close(self) -> None:
        """Give up the file and its lock."""
        self._file.close()

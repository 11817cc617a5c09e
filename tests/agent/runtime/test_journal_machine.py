"""The journal as a state machine: whatever happens in whatever order, nothing is permitted twice.

Commands, occurrences of schedules and cancels arrive; the disk fills up, the clock is set, the process is
restarted, and killed at any byte of what it was writing; the journal is so small that it is always pruned.
"""

import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.runtime.journal import Journal, JournalEntry, Tombstone, expiry_seconds, read_journal
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.schedule import format_occurrence

NOW = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)
ADA, BOB = "A" * 40, "B" * 40
GRACE = timedelta(seconds=90)  # longer than the minute between two occurrences


class Command(NamedTuple):
    """One command: an action by its number, and a time of its schedule; 0 for one that runs once."""

    action: int
    time: int

    @property
    def occurrence(self) -> str:
        return format_occurrence(NOW + timedelta(minutes=self.time)) if self.time else ""

    @property
    def expires(self) -> datetime:
        if self.time:
            return NOW + timedelta(minutes=self.time) + GRACE
        return NOW + timedelta(seconds=300 + self.action % 7)

    @property
    def entry(self) -> JournalEntry:
        """What the supervisor inserts; Ada signed everything."""
        return JournalEntry(
            digest=f"{self.action:064x}",
            occurrence=self.occurrence,
            command_id=f"{self.action:016x}{self.time:016x}",
            action_id=f"00000000-0000-7000-8000-{self.action:012x}",
            name="a name",
            signers=(ADA,),
            modules=("file",),
            expireafter=expiry_seconds(self.expires),
            envelope=b"signed",
        )


COMMANDS = st.builds(Command, st.integers(0, 12), st.just(0)) | st.builds(
    Command, st.integers(20, 22), st.integers(1, 8)
)
ACTIONS = st.integers(0, 12) | st.integers(20, 22)


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Let the file grow by a few bytes only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class JournalMachine(RuleBasedStateMachine):
    """Remembers what was permitted, answered and cancelled, and holds the journal to it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="journal"))
        self.path = self.directory / "journal"
        self.time = NOW
        self.permitted: set[Command] = set()
        self.answered: set[Command] = set()
        self.latest: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.journal = self.open()

    def open(self) -> Journal:
        return Journal(self.path, clock=lambda: self.time, max_entries=6, max_tombstones=3)

    def note(self, command: Command) -> None:
        """Check a permission that was given, and remember it."""
        assert command not in self.permitted, "permitted twice"
        assert command.time == 0 or command.time > self.latest.get(command.action, 0), "not in order"
        assert command.action not in self.cancelled, "permitted although it was cancelled"
        self.permitted.add(command)
        self.latest[command.action] = max(command.time, self.latest.get(command.action, 0))

    # -- what arrives

    @rule(command=COMMANDS)
    def insert(self, command: Command) -> None:
        before = self.path.read_bytes()
        try:
            is_permitted = self.journal.insert(command.entry)
        except InvalidInput as error:
            assert error.code in {"replayed", "journal-closed", "cancelled"}  # noqa: PT017
            # A refusal leaves no trace, so the same action may come again.
            assert self.path.read_bytes() == before
            assert error.code != "cancelled" or command.action in self.cancelled  # noqa: PT017
            return
        except EnvironmentFailure:
            return  # full of commands without an answer
        if is_permitted:
            self.note(command)
        else:
            assert command in self.permitted

    @rule(action=ACTIONS, signer=st.sampled_from([ADA, BOB]), life=st.integers(600, 700))
    def cancel(self, action: int, signer: str, life: int) -> None:
        stone = Tombstone(
            f"{action:064x}", f"00000000-0000-7000-8000-{action:012x}", (signer,), expiry_seconds(NOW) + life
        )
        if self.journal.insert_tombstone(stone) and signer == ADA:
            self.cancelled.add(action)

    @rule(number=st.integers(0, 1 << 30))
    def flood_of_one_signer(self, number: int) -> None:
        """Bob cancels what was never asked; it must take no room from Ada."""
        stone = Tombstone(f"{number + 1000:064x}", "x", (BOB,), expiry_seconds(NOW) + 600)
        self.journal.insert_tombstone(stone)
        assert sum(BOB in stone.signers for stone in read_journal(self.path).tombstones) <= 3

    # -- how commands go on

    @precondition(lambda self: self.journal.unanswered())
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.journal.unanswered()))
        if entry.state == "accepted":
            self.journal.mark_started(*entry.key)
            return
        self.journal.mark_answered(*entry.key)
        command = next(one for one in self.permitted if one.entry.key == entry.key)
        assert command not in self.answered, "answered twice"
        self.answered.add(command)

    # -- what goes wrong

    @rule(minutes=st.integers(-30, 30))
    def set_the_clock(self, minutes: int) -> None:
        self.time = NOW + timedelta(minutes=minutes)

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self.journal = self.open()

    @rule(command=COMMANDS)
    def insert_on_a_full_disk(self, command: Command) -> None:
        before = self.path.read_bytes()
        with full_disk(self.path):
            try:
                is_permitted = self.journal.insert(command.entry)
            except (InvalidInput, EnvironmentFailure):
                is_permitted = False
        if is_permitted:
            self.note(command)  # the file was written anew, and shorter
        elif self.path.read_bytes() == before:
            assert command in self.permitted or self.journal.state_of(*command.entry.key) is None

    @rule(command=COMMANDS, data=st.data())
    def crash_while_inserting(self, command: Command, data: st.DataObject) -> None:
        def insert() -> None:
            self.journal.insert(command.entry)

        was_known = self.journal.state_of(*command.entry.key) is not None
        is_known = self.crash(insert, data) and self.journal.state_of(*command.entry.key) is not None
        if is_known and not was_known:
            self.note(command)  # it counts as permitted, although nobody was told

    @rule(action=ACTIONS, data=st.data())
    def crash_while_cancelling(self, action: int, data: st.DataObject) -> None:
        stone = Tombstone(
            f"{action:064x}", f"00000000-0000-7000-8000-{action:012x}", (ADA,), expiry_seconds(NOW) + 600
        )
        self.crash(lambda: self.journal.insert_tombstone(stone), data)
        if self.journal.is_cancelled(stone.digest, (ADA,)):
            self.cancelled.add(action)

    def crash(self, write: Callable[[], object], data: st.DataObject) -> bool:
        """Let a write not return: the file is any prefix of what it would have become, or a new one."""
        before = self.path.read_bytes()
        try:
            write()
        except (InvalidInput, EnvironmentFailure):
            return False
        self.journal.close()
        after = self.path.read_bytes()
        if after.startswith(before):
            self.path.write_bytes(after[: data.draw(st.integers(len(before), len(after)))])
        else:
            (self.directory / "journal.new").write_bytes(after[: data.draw(st.integers(0, len(after)))])
            self.path.write_bytes(before)
        self.journal = self.open()
        return True

    # -- what must hold, also for who reads beside it

    @invariant()
    def what_was_permitted_is_never_permitted_again(self) -> None:
        view = read_journal(self.path)
        for command in self.permitted:
            entry = command.entry
            with pytest.raises(InvalidInput, match="replayed|journal-closed|cancelled"):
                view.require_not_run(entry.digest, entry.occurrence, command.expires, frozenset({ADA}))

    @invariant()
    def what_was_answered_never_waits_for_an_answer_again(self) -> None:
        waiting = {entry.key for entry in self.journal.unanswered()}
        assert not waiting & {command.entry.key for command in self.answered}

    @invariant()
    def what_was_cancelled_stays_cancelled_or_closed(self) -> None:
        view = read_journal(self.path)
        for action in self.cancelled:
            command = Command(action, 8 if action >= 20 else 0)
            with pytest.raises(InvalidInput, match="replayed|journal-closed|cancelled"):
                view.require_not_run(
                    command.entry.digest, command.occurrence, command.expires, frozenset({ADA})
                )

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.directory)


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

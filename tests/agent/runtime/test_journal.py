"""The journal: at most one permission for each command, whatever is cut off, restarted or full."""

import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.journal import Journal, JournalEntry, expiry_seconds, format_time, read_journal
from protocol.errors import EnvironmentFailure, InvalidInput

NOW = datetime(2026, 11, 5, 12, 0, tzinfo=UTC)
SOON = expiry_seconds(NOW + timedelta(minutes=5))


def now() -> datetime:
    return NOW


def make_entry(number: int = 0, *, expireafter: int = SOON, envelope: bytes = b"signed") -> JournalEntry:
    return JournalEntry(
        digest=f"{number:064x}",
        occurrence="",
        command_id=f"{number:032x}",
        action_id=f"00000000-0000-7000-8000-{number:012x}",
        name="a name",
        signers=("A" * 40,),
        modules=("file",),
        expireafter=expireafter,
        envelope=envelope,
    )


def answer(journal: Journal, entry: JournalEntry) -> None:
    journal.mark_started(*entry.key)
    journal.note_status(*entry.key, "done")
    journal.mark_answered(*entry.key)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_command_is_permitted_once(path: Path) -> None:
    journal = Journal(path, clock=now)
    assert journal.insert(make_entry())
    assert not journal.insert(make_entry())
    answer(journal, make_entry())
    assert not journal.insert(make_entry())
    journal.close()


def test_a_command_is_permitted_once_over_restarts_in_every_state(path: Path) -> None:
    accepted, started, answered = make_entry(1), make_entry(2), make_entry(3)
    journal = Journal(path, clock=now)
    for entry in (accepted, started, answered):
        assert journal.insert(entry)
    journal.mark_started(*started.key)
    answer(journal, answered)
    journal.close()
    journal = Journal(path, clock=now)
    assert [journal.insert(entry) for entry in (accepted, started, answered)] == [False] * 3
    states = [journal.state_of(*entry.key) for entry in (accepted, started, answered)]
    assert states == ["accepted", "started", "answered"]
    assert [(entry.digest, entry.envelope) for entry in journal.unanswered()] == [
        (accepted.digest, b"signed"),
        (started.digest, b""),
    ]
    journal.close()


def test_states_never_go_back(path: Path) -> None:
    journal = Journal(path, clock=now)
    journal.insert(make_entry())
    journal.mark_started(*make_entry().key)
    with pytest.raises(ValueError, match="is started, not accepted"):
        journal.mark_started(*make_entry().key)
    journal.mark_answered(*make_entry().key)
    with pytest.raises(KeyError):
        journal.mark_started(*make_entry().key)
    journal.mark_answered(*make_entry().key)
    assert journal.state_of(*make_entry().key) == "answered"
    journal.close()


def test_what_was_asked_can_be_read_beside_the_writer(path: Path) -> None:
    journal = Journal(path, clock=now)
    journal.insert(make_entry())
    answer(journal, make_entry())
    (entry,) = read_journal(path).entries
    assert (entry.name, entry.signers, entry.modules) == ("a name", ("A" * 40,), ("file",))
    assert (entry.state, entry.status) == ("answered", "done")
    assert entry.accepted == format_time(NOW) == "2026-11-05T12:00:00.000000Z"
    journal.close()


def test_a_journal_that_was_never_written_reads_as_empty(path: Path) -> None:
    assert read_journal(path).entries == ()


def test_the_file_is_private_and_has_one_writer(path: Path) -> None:
    journal = Journal(path, clock=now)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(EnvironmentFailure, match="state-in-use"):
        Journal(path, clock=now)
    journal.close()
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="unsafe-file"):
        Journal(path, clock=now)


def test_a_link_in_the_journals_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch(0o600)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentFailure, match="state-failed"):
        Journal(path, clock=now)


# -- what crashes and disks do ---------------------------------------------------------------------------


def test_a_record_cut_off_anywhere_is_as_if_it_had_never_been_written(path: Path, tmp_path: Path) -> None:
    journal = Journal(path, clock=now)
    journal.insert(make_entry(1))
    before = path.read_bytes()
    journal.insert(make_entry(2))
    journal.close()
    after = path.read_bytes()
    copy = tmp_path / "copy"
    # Not every offset: each costs several syncs. Both ends of the record, and a walk through it.
    cuts = {*range(len(before), len(after), 7), *range(len(after) - 8, len(after)), len(before) + 1}
    for cut in sorted(cuts):
        copy.write_bytes(after[:cut])
        copy.chmod(0o600)
        reopened = Journal(copy, clock=now)
        assert not reopened.insert(make_entry(1))
        assert reopened.state_of(*make_entry(2).key) is None
        assert reopened.insert(make_entry(2)), "it was not permitted before, so it is now"
        reopened.close()
        assert [entry.digest for entry in read_journal(copy).entries][-1] == make_entry(2).digest


def test_zeros_after_the_last_record_are_cut_off(path: Path) -> None:
    journal = Journal(path, clock=now)
    journal.insert(make_entry())
    journal.close()
    with path.open("ab") as stream:
        stream.write(bytes(4096))
    journal = Journal(path, clock=now)
    assert not journal.insert(make_entry())
    journal.close()


@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_fails_closed_or_loses_only_the_last_record(position: float, flip: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        journal = Journal(path, clock=now)
        for number in range(4):
            journal.insert(make_entry(number))
        journal.close()
        content = bytearray(path.read_bytes())
        content[int(position * len(content))] ^= flip
        path.write_bytes(content)
        try:
            journal = Journal(path, clock=now)
        except EnvironmentFailure as error:
            assert error.code == "state-failed"  # noqa: PT017  (both outcomes are right)
            return
        assert [journal.insert(make_entry(number)) for number in range(3)] == [False] * 3
        journal.close()


def test_a_record_missing_from_the_middle_fails_closed(path: Path) -> None:
    journal = Journal(path, clock=now)
    for number in range(3):
        journal.insert(make_entry(number))
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:] + lines[3:]))
    with pytest.raises(EnvironmentFailure, match=r"state-failed: .* is damaged at byte"):
        Journal(path, clock=now)


def test_a_record_that_finds_no_room_is_taken_back_and_permits_nothing(path: Path) -> None:
    journal = Journal(path, clock=now)
    journal.insert(make_entry(1))
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
    try:
        with pytest.raises(EnvironmentFailure, match="state-failed|disk-full"):
            journal.insert(make_entry(2))
        with pytest.raises(EnvironmentFailure, match="state-failed|disk-full"):
            journal.mark_started(*make_entry(1).key)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == size
    assert journal.state_of(*make_entry(1).key) == "accepted"
    assert journal.insert(make_entry(2))
    journal.close()
    journal = Journal(path, clock=now)
    assert not journal.insert(make_entry(2))
    journal.close()


@pytest.mark.system
def test_a_full_disk_is_said_and_permits_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], check=True)
    try:
        journal = Journal(mount / "journal", clock=now)
        entries = [make_entry(number, envelope=bytes(9000)) for number in range(20)]
        with pytest.raises(EnvironmentFailure, match="disk-full") as caught:
            list(map(journal.insert, entries))
        assert caught.value.retryable
        held = journal.unanswered()
        assert held
        journal.close()
        journal = Journal(mount / "journal", clock=now)
        assert journal.unanswered() == held
        journal.close()
    finally:
        subprocess.run(["umount", mount], check=True)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.agent.runtime.test_journal import SOON, Journal, Path, answer, make_entry, now
journal = Journal(Path(sys.argv[2]), clock=now, max_entries=50)
for number in range(int(sys.argv[3]), 1 << 40):
    entry = make_entry(number, expireafter=SOON + number)
    if journal.insert(entry):
        print(number, flush=True)
        answer(journal, entry)
"""


@pytest.mark.system
def test_killing_the_writer_at_any_moment_loses_no_permission_that_was_given(path: Path) -> None:
    root = str(Path(__file__).resolve().parents[3])
    given_so_far: list[int] = []
    for _ in range(10):
        start = given_so_far[-1] + 1 if given_so_far else 0
        command = [sys.executable, "-c", KILLED, root, str(path), str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            given_so_far += [int(writer.stdout.readline()) for _ in range(60)]
            writer.kill()
            given_so_far += [int(line) for line in writer.stdout.read().splitlines()]
        journal = Journal(path, clock=now, max_entries=50)
        for number in given_so_far[-80:]:
            assert not _is_permitted(journal, make_entry(number, expireafter=SOON + number))
        journal.close()


def _is_permitted(journal: Journal, entry: JournalEntry) -> bool:
    try:
        return journal.insert(entry)
    except InvalidInput:
        return False


# -- bounds ----------------------------------------------------------------------------------------------


def test_a_full_journal_drops_what_expires_first_and_refuses_what_expires_no_later(path: Path) -> None:
    journal = Journal(path, clock=now, max_entries=8)
    entries = [make_entry(number, expireafter=SOON + number) for number in range(9)]
    for entry in entries:
        assert journal.insert(entry)
        answer(journal, entry)
    assert len(read_journal(path).entries) <= 8
    for dropped in entries[:2]:
        assert journal.state_of(*dropped.key) is None
        with pytest.raises(InvalidInput, match="journal-closed"):
            journal.insert(dropped)
    with pytest.raises(InvalidInput, match="journal-closed"):
        journal.insert(make_entry(99, expireafter=SOON + 1))
    assert journal.insert(make_entry(100, expireafter=SOON + 100))
    journal.close()
    journal = Journal(path, clock=now, max_entries=8)
    with pytest.raises(InvalidInput, match="journal-closed"):
        journal.insert(entries[0])
    with pytest.raises(InvalidInput, match="journal-closed"):
        read_journal(path).require_not_run(entries[0].digest, "", NOW)
    journal.close()


def test_what_has_no_answer_is_never_dropped(path: Path) -> None:
    journal = Journal(path, clock=now, max_entries=4)
    for number in range(4):
        assert journal.insert(make_entry(number))
    with pytest.raises(EnvironmentFailure, match="full of unanswered commands"):
        journal.insert(make_entry(4))
    assert len(journal.unanswered()) == 4
    journal.close()


def test_the_file_stays_small_although_every_envelope_is_large(path: Path) -> None:
    journal = Journal(path, clock=now)
    for number in range(12):
        entry = make_entry(number, envelope=bytes(1 << 20))
        assert journal.insert(entry)
        answer(journal, entry)
    assert path.stat().st_size < 8 << 20
    journal.close()
    journal = Journal(path, clock=now)
    assert [journal.insert(make_entry(number)) for number in range(12)] == [False] * 12
    journal.close()

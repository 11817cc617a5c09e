"""The audit log is archived and cut: file and rest verify by themselves, and nothing is lost on the way."""

import errno
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from protocol.audit import Chain, Entry, Head, decode_entry
from protocol.errors import EnvironmentFailure, InvalidInput
from server import schema
from server.archive import cut, write_archive
from server.database import Database
from server.rows import AuditEvent
from server.store import Store
from tests.support.fleet import ADA, NOW
from tests.support.installation import Installation

DAY = timedelta(days=1)


def record(store: Store, *days_ago: float, now: datetime = NOW) -> None:
    for days in days_ago:
        store.record(AuditEvent(kind="read", who=(ADA,), what={"days": days}), now - days * DAY)


def check(lines: list[bytes]) -> tuple[int, Head]:
    """Check a log, and return where it begins and its head."""
    chain = Chain()
    for line in lines:
        chain.add(line)
    chain.require_complete()
    return chain.first_seq, chain.head


def stands(store: Store) -> list[bytes]:
    return [entry for _, entry in store.list_audit(0, 1000)[0]]


def cut_off(store: Store, path: Path, keep: timedelta) -> int:
    return cut(store, write_archive(store, path, NOW - keep), NOW)


def test_what_is_older_is_cut_off_and_both_parts_verify_by_themselves(store: Store, tmp_path: Path) -> None:
    record(store, 9, 8, 7, 3, 2)
    before = stands(store)
    path = tmp_path / "one.jsonl"
    assert cut_off(store, path, 5 * DAY) == 3
    assert path.read_bytes().splitlines() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.glob("*.jsonl*")] == ["one.jsonl"]
    after = stands(store)
    assert after[:2] == before[3:]
    assert check(after) == (4, store.audit_head())
    archived, marker = (decode_entry(line) for line in after[2:])
    assert (archived.kind, archived.who) == ("archived", ("operator",))
    assert {**archived.what, "file_sha256": ""} == {"first": 1, "last": 5, "file_sha256": ""}
    assert marker.kind == "checkpoint"


def test_a_log_that_was_cut_before_is_archived_with_the_checkpoint_that_allowed_it(
    store: Store, tmp_path: Path
) -> None:
    record(store, 9, 8, 7, 6, 5, 4)
    assert cut_off(store, tmp_path / "one", 7.5 * DAY) == 2
    record(store, 1)
    assert cut_off(store, tmp_path / "two", 4.5 * DAY) == 3
    record(store, 0)
    first, second = (check((tmp_path / name).read_bytes().splitlines()) for name in ("one", "two"))
    assert (first[0], second[0]) == (1, 3)
    assert check(stands(store)) == (6, store.audit_head())
    # The head of each archive stands in what follows it.
    assert first[1].sha256 in (tmp_path / "two").read_text()
    assert store.find_heads({second[1].seq}) == {second[1].seq: second[1]}


def test_everything_may_be_too_old_but_a_log_never_loses_its_end(store: Store, tmp_path: Path) -> None:
    record(store, 9, 8, 7)
    assert cut_off(store, tmp_path / "one", DAY) == 2
    assert check(stands(store))[0] == 3


@pytest.mark.parametrize("days_ago", [(), (1,), (2, 1), (1, 9, 9)])
def test_where_nothing_is_older_nothing_is_cut(
    store: Store, tmp_path: Path, days_ago: tuple[float, ...]
) -> None:
    record(store, *days_ago)
    before = stands(store)
    assert cut_off(store, tmp_path / "one", 5 * DAY) == 0
    assert stands(store) == before == (tmp_path / "one").read_bytes().splitlines()


def test_a_log_that_does_not_check_is_not_cut(store: Store, database: Database, tmp_path: Path) -> None:
    record(store, 9, 8, 7, 1)
    with database.writing() as connection:
        connection.execute(sa.delete(schema.audit).where(schema.audit.c.seq == 2))
    before = stands(store)
    with pytest.raises(InvalidInput, match="broken-chain: entry 1 is followed by entry 3"):
        cut_off(store, tmp_path / "one", 5 * DAY)
    assert stands(store) == before
    assert list(tmp_path.glob("*one*")) == []


def test_a_file_that_is_there_is_not_replaced(store: Store, tmp_path: Path) -> None:
    record(store, 9, 1)
    path = tmp_path / "one"
    path.write_bytes(b"mine")
    with pytest.raises(InvalidInput, match="conflict: .* is there already"):
        cut_off(store, path, 5 * DAY)
    assert path.read_bytes() == b"mine"
    assert len(stands(store)) == 2


def test_a_disk_that_is_full_or_lies_cuts_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store, 9, 1)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EnvironmentFailure, match="disk-full"):
            cut_off(store, tmp_path / "one", 5 * DAY)

    for lost in (1.0, 0.5, 0.2):

        def spoil(descriptor: int, lost: float = lost) -> None:
            os.ftruncate(descriptor, int(os.fstat(descriptor).st_size * (1 - lost)))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", spoil)
            with pytest.raises(EnvironmentFailure, match="state-failed: .* is not what was written to it"):
                cut_off(store, tmp_path / "one", 5 * DAY)
    assert len(stands(store)) == 2
    assert list(tmp_path.glob("*one*")) == []


def test_a_log_that_became_another_one_meanwhile_is_not_cut(
    store: Store, database: Database, tmp_path: Path
) -> None:
    record(store, 9, 8, 1)
    archive = write_archive(store, tmp_path / "one", NOW - 5 * DAY)
    with database.writing() as connection:
        connection.execute(sa.delete(schema.audit))
    record(store, 9, 7, 1)
    with pytest.raises(InvalidInput, match="conflict: the log is not the one that was archived"):
        cut(store, archive, NOW)
    assert len(stands(store)) == 3


def test_what_is_written_while_the_archive_is_made_stays(store: Store, tmp_path: Path) -> None:
    record(store, 9, 1)
    archive = write_archive(store, tmp_path / "one", NOW - 5 * DAY)
    record(store, 0)
    assert cut(store, archive, NOW) == 1
    entries: list[Entry] = [decode_entry(line) for line in stands(store)]
    assert [entry.kind for entry in entries] == ["read", "read", "archived", "checkpoint"]
    assert check(stands(store))[0] == 2


def test_the_operator_archives_and_cuts_by_two_commands(prepared: Installation, tmp_path: Path) -> None:
    store = prepared.store
    record(store, 400, 300, 0, now=datetime.now(UTC))  # the command's clock is the real one
    exported = prepared("audit", "export", "-o", str(tmp_path / "all"))
    assert exported.out.splitlines()[0].startswith("entries 1 to 3, head ")
    done = prepared("audit", "cut", "-o", str(tmp_path / "old"), "--keep", "52w")
    assert done.out.splitlines()[2] == "cut 1 entries; the log begins at entry 2"
    assert (tmp_path / "all").read_bytes() == (tmp_path / "old").read_bytes()
    again = prepared("audit", "cut", "-o", str(tmp_path / "again"), "--keep", "52w")
    assert again.out.splitlines()[2] == "cut 0 entries"
    assert prepared("audit", "cut", "-o", str(tmp_path / "old")).code == 4
    assert prepared("audit", "cut", "-o", str(tmp_path / "x"), "--keep", "ever").code == 2
    assert "ok    audit log: 5 entries" in prepared("doctor").out
    assert json.loads(stands(store)[-1])["kind"] == "checkpoint"

"""Tests of the spool of unconfirmed answers."""

from pathlib import Path
from typing import Any

import pytest

from agent.runtime.spool import Spool
from protocol.errors import EnvironmentFailure
from tests.support.apart import leave_mounts, mount, run_apart

ONE, TWO = "1" * 32, "2" * 32


def test_answers_wait_in_the_order_in_which_they_came_also_after_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.put(TWO, b"first", is_refusal=False)
    spool.put(ONE, b"second", is_refusal=True)
    again = Spool(tmp_path / "spool")
    again.put(ONE, b"third", is_refusal=False)
    assert [again.get(name).body for name in again.names()] == [b"first", b"second", b"third"]
    assert again.answered_commands() == {ONE, TWO}


def test_a_refusal_is_no_answer_to_a_command(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.put(ONE, b"refused", is_refusal=True)
    assert spool.answered_commands() == set()


def test_a_confirmed_answer_is_forgotten_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=10)
    name = spool.put(ONE, b"0123456789", is_refusal=False)
    spool.remove(name)
    spool.remove(name)
    assert spool.names() == []
    spool.put(ONE, b"0123456789", is_refusal=False)


def test_a_full_spool_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=10)
    spool.put(ONE, b"01234567", is_refusal=False)
    with pytest.raises(EnvironmentFailure, match="disk-full"):
        spool.put(TWO, b"0123", is_refusal=False)
    assert len(Spool(tmp_path / "spool", max_bytes=10).names()) == 1


def test_a_file_that_a_crash_left_half_written_is_no_answer(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "spool" / f".000000000000-{ONE}.answer.new").write_bytes(b"half")
    assert spool.names() == []


@pytest.mark.system
def test_a_disk_without_room_takes_nothing_and_loses_nothing_and_takes_again_when_there_is_room(
    tmp_path: Path,
) -> None:
    def act() -> Any:
        mount("tmpfs", tmp_path, "-o", "size=64k,mode=700")
        spool = Spool(tmp_path / "spool")
        first = spool.put(ONE, b"1" * 20_000, is_refusal=False)
        said = []
        # Too large for what is left: the first part of it fits, and must not stay.
        for _ in range(2):
            with pytest.raises(EnvironmentFailure, match="disk-full: no room for") as failure:
                spool.put(TWO, b"2" * 60_000, is_refusal=False)
            said.append(failure.value.retryable)
        left = [path.name for path in (tmp_path / "spool").iterdir()]
        kept = Spool(tmp_path / "spool").get(first).body == b"1" * 20_000
        spool.remove(first)
        spool.put(TWO, b"2" * 50_000, is_refusal=False)
        return said, left == [first], kept, len(spool.names())

    assert run_apart(act, prepare=leave_mounts) == [[True, True], True, True, 1]

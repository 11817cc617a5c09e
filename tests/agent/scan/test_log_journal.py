"""Tests of counting the wanted entries of real journals, by unit."""

import os
from pathlib import Path

import pytest

from agent.scan.log_journal import JournalLook
from agent.scan.log_question import Captures, LineFilter, Question, Window
from tests.support.journals import START_US, count_by_journalctl, make_journal

pytestmark = pytest.mark.system

EXPRESSION = r"Invalid user (?P<user>\S+)"
ENTRIES = [
    {
        "MESSAGE": b"Invalid user eve%d from host" % (number % 3) if number % 2 else b"closed",
        "_SYSTEMD_UNIT": b"ssh.service" if number % 4 else b"web.service",
        "SYSLOG_IDENTIFIER": b"sshd",
        "PRIORITY": b"%d" % (number % 8),
        "_UID": b"%d" % (number % 2),
    }
    for number in range(40)
] + [{"MESSAGE": b"Invalid user kernel", "SYSLOG_IDENTIFIER": b"kernel", "PRIORITY": b"x"}, {"_UID": b"7"}]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_journal(tmp_path_factory.mktemp("journal") / "a.journal", ENTRIES)


def look_at(path: Path, question: Question) -> JournalLook:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        look = JournalLook(question, descriptor, lambda: None)
        look.run()
        return look
    finally:
        os.close(descriptor)


def test_entries_are_counted_by_unit_or_by_what_the_program_calls_itself(journal: Path) -> None:
    look = look_at(journal, Question(LineFilter([EXPRESSION])))
    assert {key: tally.count for key, tally in look.groups.items()} == {
        ("ssh.service", None): 20,
        (None, "kernel"): 1,
    }
    assert look.entries_seen == len(ENTRIES) == count_by_journalctl(journal)
    assert look.file.problems == []
    tally = look.groups["ssh.service", None]
    assert tally.first_ns == (START_US + 1_000_000) * 1000
    assert tally.last_ns == (START_US + 39_000_000) * 1000


def test_units_identifiers_priorities_and_the_window_must_all_hold(journal: Path) -> None:
    assert {key[0] for key in look_at(journal, Question(LineFilter([]))).groups} == {
        "ssh.service",
        "web.service",
        None,
    }
    question = Question(LineFilter([]), units=LineFilter(["^web"]), max_priority=3)
    assert look_at(journal, question).groups["web.service", None].count == 5
    assert count_by_journalctl(journal, "-u", "web.service", "-p", "3") == 5
    assert look_at(journal, Question(LineFilter([]), identifiers=LineFilter(["^kernel$"]))).groups.keys() == {
        (None, "kernel")
    }
    window = Window((START_US + 10_000_000) * 1000, (START_US + 20_000_000) * 1000)
    look = look_at(journal, Question(LineFilter([]), window=window))
    assert sum(tally.count for tally in look.groups.values()) == 10


def test_values_are_those_of_named_groups_and_of_the_journals_fields(journal: Path) -> None:
    question = Question(LineFilter([EXPRESSION]), fields=("user", "_UID"), captures=Captures([EXPRESSION]))
    users, uids = look_at(journal, question).groups["ssh.service", None].values
    assert users == {"eve0": 7, "eve1": 7, "eve2": 6}
    assert uids == {"1": 20}


def test_an_entry_whose_message_is_damaged_is_missed_and_that_is_said(journal: Path, tmp_path: Path) -> None:
    data = bytearray(journal.read_bytes())
    place = data.index(b"MESSAGE=Invalid user kernel")
    start = place - (place % 8 + 64)
    data[start : start + 16] = b"\xff" * 16
    path = tmp_path / "b.journal"
    path.write_bytes(data)
    problems = look_at(path, Question(LineFilter([EXPRESSION]))).file.problems
    assert any("of its entries were not found" in problem for problem in problems)

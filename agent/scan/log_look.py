"""Looks at one log, whatever it is: a text, a packed text, or a file of systemd's journal.

What is known of it must travel from the worker that looked: it is bounded, and small where little was found.
"""

import os
from typing import Callable, List, Optional, Tuple

import msgspec

from agent.platform.journal_file import SIGNATURE, NotAJournal
from agent.scan.log_journal import JournalLook
from agent.scan.log_lines import TextLook
from agent.scan.log_question import Question, Tally
from agent.scan.unpacking import open_packed

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 8


class Group(msgspec.Struct, array_like=True, frozen=True):
    """What was found of one unit, or in a file; times in nanoseconds since 1970."""

    unit: Optional[str]
    identifier: Optional[str]
    count: int
    undated: int
    first_ns: Optional[int]
    last_ns: Optional[int]
    values: Tuple[Tuple[Tuple[Optional[str], int], ...], ...]


class Findings(msgspec.Struct, array_like=True, frozen=True):
    """What was found in one log; `problems` say why that may not be all that there is.

    `form` is `journal`, or how a text writes its times; `skipped` says why it was not looked at.
    """

    form: str = ""
    lines: int = 0
    bytes: int = 0
    groups: Tuple[Group, ...] = ()
    problems: Tuple[str, ...] = ()
    skipped: str = ""


class Reading:
    """Counts what is read, and bounds it; `pulse` is called for each piece."""

    def __init__(self, pulse: Callable[[], None]) -> None:
        self.bytes_read = 0
        self.pulse = pulse


def look_at_log(descriptor: int, status: os.stat_result, question: Question, reading: Reading) -> Findings:
    """Return what was found in an open file.

    Raises:
        OSError: it could not be read.

    """
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if head.startswith(SIGNATURE):
        return _look_at_journal(descriptor, question, reading)
    if question.is_about_journals:
        return Findings(skipped="no-journal")
    return _look_at_text(descriptor, head, status, question, reading)


def _look_at_journal(descriptor: int, question: Question, reading: Reading) -> Findings:
    try:
        look = JournalLook(question, descriptor, reading.pulse)
    except NotAJournal as error:
        return Findings(form="journal", problems=(str(error),))
    look.run()
    reading.bytes_read += look.file.bytes_read
    return Findings(
        form="journal",
        lines=look.entries_seen,
        bytes=look.file.bytes_read,
        groups=tuple(_group(tally, *key) for key, tally in look.groups.items()),
        problems=tuple(look.file.problems),
    )


def _look_at_text(
    descriptor: int, head: bytes, status: os.stat_result, question: Question, reading: Reading
) -> Findings:
    look = TextLook(question, mtime_ns=status.st_mtime_ns, check=reading.pulse)
    unpacker = open_packed(head)
    left = status.st_size
    while left:
        data = os.read(descriptor, min(left, _CHUNK_BYTES))
        if not data:
            break
        left -= len(data)
        reading.bytes_read += len(data)
        for piece in unpacker.feed(data) if unpacker is not None else (data,):
            look.feed(piece)
    problems: List[str] = []
    if unpacker is not None:
        unpacker.finish()
        if unpacker.problem is not None:
            problems.append(unpacker.problem)
    look.finish()
    if left:
        problems.append("became shorter while it was read")
    if look.cut_lines:
        problems.append(
            f"{look.cut_lines} of its lines are longer than 16 MiB: only their beginnings were matched"
        )
    return Findings(
        form=look.dater.form,
        lines=look.lines_seen,
        bytes=status.st_size - left,
        groups=() if look.tally.is_empty() else (_group(look.tally, None, None),),
        problems=tuple(problems),
    )


def _group(tally: Tally, unit: Optional[str], identifier: Optional[str]) -> Group:
    return Group(
        unit,
        identifier,
        tally.count,
        tally.undated,
        tally.first_ns,
        tally.last_ns,
        tuple(tuple(counter.items()) for counter in tally.values),
    )


def tally_of(group: Group) -> Tally:
    """Return what a group says as a tally, to be merged."""
    tally = Tally(())
    tally.count, tally.undated = group.count, group.undated
    tally.first_ns, tally.last_ns = group.first_ns, group.last_ns
    tally.take_values(group.values)
    return tally


def encode(findings: Findings) -> bytes:
    """Return findings as bytes."""
    return msgspec.msgpack.encode(findings)


def decode(data: bytes) -> Findings:
    """Return findings of bytes that `encode` made."""
    return msgspec.msgpack.decode(data, type=Findings)

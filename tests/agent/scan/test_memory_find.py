"""Tests that nothing is missed in the memory of real processes, by an oracle that knows what is there."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.platform.process_memory import Process
from agent.scan.memory_find import REMOTE, Found, MemoryFinder, Span
from agent.scan.memory_needles import MOST_MATCHES, Needle, NeedleSet, Sizes
from agent.scan.mounts import Mounts
from agent.scan.outcome import GONE, UNREADABLE
from tests.support.examples import USUAL_EXAMPLES
from tests.support.layout import PAGE_BYTES, READABLE, Layout, layout

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read on Linux")

SMALL = Sizes(fresh_bytes=1500, overlap_bytes=100)
# In no other memory of the process that holds them, but where what was sent to it still lies.
STRINGS = [
    bytes(3) + b"\xf0",
    b"\xf0\xf1",
    b"\xf0\xf1\xf2\xf3",
    b"\xf1" * 3,
    b"\xf3" + b"\xf2" * 60 + b"\xf3",
]
# As RE2 and Python's engine both understand them, none longer than the small overlap.
EXPRESSIONS = [
    r"\xf0\xf1{1,40}\xf2",
    r"^\xf1",
    r"\xf2$",
    r"\xf3\n\xf3",
    r"\xf0[^\xf0]{0,20}?\xf3",
    r"(\xf1|\xf1\xf2)\xf3",
    r"\xf2\b",
    r"\xf0[\xf1\xf2]{2,30}",
    r"\xf1\x00{1,60}\xf1",
    r"[^\x01-\xff]{50}\xf2",
]


@pytest.fixture(scope="module")
def laid() -> Iterator[Layout]:
    with layout() as process:
        yield process


def look(
    pid: int,
    needles: NeedleSet,
    *,
    sizes: Sizes = Sizes(),  # noqa: B008  (immutable)
    span: Span = Span(),  # noqa: B008  (immutable)
    work: Callable[[int], None] = lambda _size: None,
    mounts: Mounts | None = None,
) -> Found:
    finder = MemoryFinder(
        needles, most_addresses=MOST_MATCHES, work=work, check=lambda: None, sizes=sizes, mounts=mounts
    )
    with Process(pid) as process:
        return finder.look(process, frozenset(range(len(needles.needles))), span)


def needle_set(strings: list[bytes], expressions: list[str]) -> NeedleSet:
    return NeedleSet(
        [
            *(Needle(one.hex(), is_bytes=True) for one in strings),
            *(Needle(one, is_bytes=False) for one in expressions),
        ]
    )


def runs_of(kinds: str, content: bytes) -> Iterator[tuple[int, bytes]]:
    for run in re.finditer(f"{READABLE}+", kinds):
        start, end = (place * PAGE_BYTES for place in run.span())
        yield start, content[start:end]


def expected_at(needle: Needle, kinds: str, content: bytes) -> list[int]:
    """Return where an independent engine finds something."""
    source = re.escape(bytes.fromhex(needle.value)) if needle.is_bytes else needle.value.encode()
    pattern = re.compile(source, re.MULTILINE)
    return [at + match.start() for at, run in runs_of(kinds, content) for match in pattern.finditer(run)]


def found_at(found: Found, index: int, start: int, size: int) -> list[int]:
    """Return where something was found within a layout; Python keeps copies of what it was sent elsewhere."""
    matches = found.matches[index]
    assert matches.number == len(matches.addresses) < MOST_MATCHES
    return [address - start for address in matches.addresses if start <= address < start + size]


def plant(kinds: str, pieces: list[tuple[int, bytes]], *, filler: bytes = b".") -> bytes:
    content = bytearray(filler * (len(kinds) * PAGE_BYTES))
    for place, piece in pieces:
        at = place % len(content)
        content[at : at + len(piece)] = piece[: len(content) - at]
    return bytes(content)


# Where buffers, pages and what is kept of them begin and end, and a little off.
AWKWARD = st.builds(
    lambda base, number, off: base * number + off,
    st.sampled_from([PAGE_BYTES, SMALL.fresh_bytes, SMALL.buffer_bytes]),
    st.integers(0, 8),
    st.integers(-110, 110),
)
PIECE = st.one_of(
    st.sampled_from([*STRINGS, b"\xf3\n\xf3", b"\n\xf1", b"\xf2\n", b"\xf0" + b"\xf1" * 40 + b"\xf2"]),
    st.binary(min_size=1, max_size=30).map(
        lambda data: bytes(b"\xf0\xf1\xf2\xf3\na"[byte % 6] for byte in data)
    ),
)


@settings(
    max_examples=USUAL_EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(
    kinds=st.text("rrrrnut", min_size=1, max_size=8).filter(lambda kinds: READABLE in kinds),
    pieces=st.lists(st.tuples(AWKWARD, PIECE), max_size=40),
    filler=st.sampled_from([b".", b"\0"]),
)
def test_all_that_is_in_what_can_be_read_is_found_once_and_nothing_else(
    laid: Layout, kinds: str, pieces: list[tuple[int, bytes]], filler: bytes
) -> None:
    content = plant(kinds, pieces, filler=filler)
    start = laid.lay(kinds, content)
    try:
        needles = needle_set(STRINGS, EXPRESSIONS)
        readable = kinds.count(READABLE) * PAGE_BYTES
        found = look(laid.pid, needles, sizes=SMALL, span=Span(start, readable))
        assert found.bytes_read == readable
        for index, needle in enumerate(needles.needles):
            expected = expected_at(needle, kinds, content)
            assert found_at(found, index, start, len(content)) == expected, needle
        # The last page that can be read is where it ends.
        assert found.holes.get(UNREADABLE, 0) == kinds[: kinds.rindex(READABLE)].count("t") * PAGE_BYTES
    finally:
        laid.unmap(start - PAGE_BYTES, len(content) + 2 * PAGE_BYTES)


@pytest.mark.slow
def test_matches_at_the_borders_of_real_buffers_are_found_once(laid: Layout) -> None:
    sizes = Sizes()
    kinds = READABLE * (3 * sizes.buffer_bytes // PAGE_BYTES)
    borders = [sizes.buffer_bytes, sizes.fresh_bytes, sizes.buffer_bytes + sizes.fresh_bytes]
    longest = b"\xf0" + b"\xf1" * (sizes.overlap_bytes - 2) + b"\xf2"
    for off in (-len(longest), -len(longest) + 1, -sizes.overlap_bytes // 2, -1, 0, 1):
        content = plant(kinds, [(border + off, longest) for border in borders])
        start = laid.lay(kinds, content)
        needles = needle_set([], [r"\xf0(?:\xf1{1000})*\xf1*\xf2"])
        found = look(laid.pid, needles, span=Span(start, len(content)))
        expected = [match.start() for match in re.finditer(rb"\xf0\xf1*\xf2", content)]
        assert found_at(found, 0, start, len(content)) == expected
        laid.unmap(start - PAGE_BYTES, len(content) + 2 * PAGE_BYTES)


def test_zeros_are_found_where_they_are_looked_for(laid: Layout) -> None:
    content = bytes(4 * PAGE_BYTES)
    start = laid.lay("rrrr", content)
    needles = needle_set([bytes(70)], [r"\x00{60}", r"[^\x00]"])
    found = look(laid.pid, needles, sizes=SMALL, span=Span(start, len(content)))
    for index, needle in enumerate(needles.needles):
        assert found_at(found, index, start, len(content)) == expected_at(needle, "rrrr", content)


def test_a_place_is_told_with_its_mapping(laid: Layout) -> None:
    content = plant("rr", [(PAGE_BYTES - 1, STRINGS[4])])
    start = laid.lay("rr", content)
    found = look(laid.pid, needle_set([STRINGS[4]], []), span=Span(start, 2 * PAGE_BYTES))
    assert found.matches[0].addresses == (start + PAGE_BYTES - 1,)
    region = found.regions[start + PAGE_BYTES - 1]
    assert (region.start, region.end, region.permissions) == (start, start + 2 * PAGE_BYTES, "rw-p")


def test_a_span_bounds_what_is_read(laid: Layout) -> None:
    content = plant("rrrr", [(100, STRINGS[4]), (PAGE_BYTES + 7, STRINGS[4]), (3 * PAGE_BYTES, STRINGS[4])])
    start = laid.lay("rrrr", content)
    needles = needle_set([STRINGS[4]], [])
    for span, expected, size in (
        (Span(start, 4 * PAGE_BYTES), [100, PAGE_BYTES + 7, 3 * PAGE_BYTES], 4 * PAGE_BYTES),
        (Span(start + 101, PAGE_BYTES), [PAGE_BYTES + 7], PAGE_BYTES),
        (Span(start, PAGE_BYTES + 8), [100], PAGE_BYTES + 8),
    ):
        found = look(laid.pid, needles, sizes=SMALL, span=span)
        assert found_at(found, 0, start, len(content)) == expected
        assert (found.bytes_read, found.holes) == (size, {})


def test_more_matches_than_are_counted_end_the_looking(laid: Layout) -> None:
    kinds = "r" * 64
    start = laid.lay(kinds, b"\xf0\xf1" * (64 * PAGE_BYTES // 2))
    found = look(laid.pid, needle_set([b"\xf0\xf1"], []), sizes=SMALL, span=Span(start, 64 * PAGE_BYTES))
    assert found.matches[0].number == MOST_MATCHES
    assert found.bytes_read < 64 * PAGE_BYTES
    laid.unmap(start, 64 * PAGE_BYTES)


def test_many_strings_and_expressions_are_looked_for_as_one_and_told_apart(laid: Layout) -> None:
    strings = [b"\xf4\xf5" + bytes([200 + number]) * 3 for number in range(20)]
    expressions = [rf"[\xf6\xf7]\x{200 + number:x}{{2,4}}" for number in range(20)]
    pieces = [(PAGE_BYTES * 3 - 2, strings[7]), (SMALL.fresh_bytes, b"\xf7\xcb\xcb"), (9000, strings[19])]
    content = plant("rrrr", pieces)
    start = laid.lay("rrrr", content)
    needles = needle_set(strings, expressions)
    found = look(laid.pid, needles, sizes=SMALL, span=Span(start, len(content)))
    told = {
        needle.value: found_at(found, at, start, len(content)) for at, needle in enumerate(needles.needles)
    }
    assert {value: places for value, places in told.items() if places} == {
        strings[7].hex(): [PAGE_BYTES * 3 - 2],
        strings[19].hex(): [9000],
        expressions[3]: [SMALL.fresh_bytes],
    }


def test_a_mapping_that_vanishes_while_it_is_looked_at_is_a_hole(laid: Layout) -> None:
    content = plant("r" * 16, [(10, STRINGS[4]), (15 * PAGE_BYTES, STRINGS[4])])
    start = laid.lay("r" * 16, content)
    taken: list[int] = []

    def take_away(size: int) -> None:
        if not taken:
            laid.unmap(start + 4 * PAGE_BYTES, 4 * PAGE_BYTES)
        taken.append(size)

    found = look(laid.pid, needle_set([STRINGS[4]], []), sizes=SMALL, span=Span(offset=start), work=take_away)
    assert found_at(found, 0, start, len(content)) == [10, 15 * PAGE_BYTES]
    assert found.holes == {UNREADABLE: 4 * PAGE_BYTES}


@pytest.mark.parametrize("end", ["kill", "exec"])
def test_who_ends_or_starts_another_program_meanwhile_keeps_what_was_found(end: str) -> None:
    with layout() as process:
        content = plant("r" * 64, [(10, STRINGS[4]), (60 * PAGE_BYTES, STRINGS[4])])
        start = process.lay("r" * 64, content)
        done: list[int] = []

        def work(size: int) -> None:
            done.append(size)
            if len(done) == 8 and end == "kill":
                os.kill(process.pid, signal.SIGKILL)
                process.process.wait()
            elif len(done) == 8:
                process.start_another_program()

        found = look(
            process.pid, needle_set([STRINGS[4]], []), sizes=SMALL, span=Span(start, len(content)), work=work
        )
        assert found_at(found, 0, start, len(content)) == [10]
        assert found.holes == {GONE: 0}


def test_a_large_mapping_of_nothing_is_passed_over_in_growing_steps(laid: Layout) -> None:
    pages = 16384
    start = laid.lay("t" * 1200 + "r" + "t" * 16, bytes(1217 * PAGE_BYTES))
    found = look(laid.pid, needle_set([STRINGS[4]], []), span=Span(start, pages * PAGE_BYTES))
    # After a mebibyte of it steps are doubled: what can be read behind that is met at some step.
    assert found.holes[UNREADABLE] >= 1216 * PAGE_BYTES
    laid.unmap(start, 1217 * PAGE_BYTES)


def test_what_lies_on_another_machine_is_not_touched(laid: Layout, tmp_path: Path) -> None:
    program = os.path.realpath(sys.executable)
    table = tmp_path / "mountinfo"
    table.write_text(
        f"1 1 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:99 / {Path(program).parent} rw - nfs4 server:/bin rw\n"
    )
    found = look(laid.pid, needle_set([b"\x7fELF"], []), mounts=Mounts(str(table)))
    with Process(laid.pid) as process:
        mapped = [one for one in process.regions() if one.path == os.fsencode(program) and one.is_readable]
    assert found.holes[REMOTE] == sum(one.end - one.start for one in mapped)
    assert not any(one.path == os.fsencode(program) for one in found.regions.values())

"""Hash-chained logs: any change, gap or cut shows, and says where."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.audit import (
    NO_HEAD,
    Chain,
    Entry,
    Head,
    Landmarks,
    Witnessed,
    checkpoint,
    compare_heads,
    decode_entry,
    encode_entry,
)
from protocol.errors import InvalidInput


def make_log(count: int) -> list[bytes]:
    """Return the entries of a log."""
    head, lines = NO_HEAD, []
    for number in range(count):
        line, head = encode_entry(
            head, time="2026-11-20T12:00:00Z", kind="action", who=("A" * 40,), what={"number": number}
        )
        lines.append(line)
    return lines


def check(lines: list[bytes]) -> Head:
    """Check a whole log."""
    chain = Chain()
    for line in lines:
        chain.add(line)
    chain.require_complete()
    return chain.head


def test_a_log_as_it_was_written_is_accepted_up_to_its_head() -> None:
    lines = make_log(5)
    assert check(lines).seq == 5
    assert decode_entry(lines[2]) == Entry(
        3,
        "2026-11-20T12:00:00Z",
        "action",
        ("A" * 40,),
        {"number": 2},
        check(lines[:2]).sha256,
    )


def test_an_empty_log_has_no_head() -> None:
    assert check([]) == NO_HEAD


@given(st.integers(0, 6), st.data())
def test_a_change_of_any_byte_is_noticed_at_the_next_entry_at_the_latest(
    position: int, data: st.DataObject
) -> None:
    lines = make_log(8)
    line = bytearray(lines[position])
    offset = data.draw(st.integers(0, len(line) - 1))
    line[offset] ^= data.draw(st.integers(1, 255))
    lines[position] = bytes(line)
    with pytest.raises(InvalidInput, match=r"broken-chain") as caught:
        check(lines)
    assert any(f"entry {number}" in str(caught.value) for number in (position, position + 1, position + 2))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: lines[:2] + lines[3:], "entry 2 is followed by entry 4"),
        (lambda lines: [lines[0], lines[2], lines[1]], "entry 1 is followed by entry 3"),
        (lambda lines: lines[:2] + lines[1:], "entry 2 is followed by entry 2"),
        (lambda lines: lines[2:], "it begins at entry 3, and no checkpoint allows that"),
        (lambda lines: [lines[0], b"{}", *lines[1:]], "what follows entry 1 is no entry"),
        (lambda lines: [lines[0].replace(b"0" * 64, b"1" * 64)], "entry 1 names an entry before it"),
    ],
)
def test_what_is_missing_moved_or_added_is_said_exactly(damage: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check(damage(make_log(4)))  # type: ignore[operator]


def test_a_log_may_lose_its_beginning_after_a_checkpoint_that_says_so() -> None:
    lines = make_log(4)
    what = checkpoint(decode_entry(lines[2]))
    line, head = encode_entry(check(lines), time="2026-11-20T12:00:00Z", kind="checkpoint", who=(), what=what)
    assert check([*lines, line]) == head
    assert check([*lines[2:], line]) == head
    with pytest.raises(InvalidInput, match="begins at entry 4"):
        check([*lines[3:], line])


def test_heads_that_others_saw_are_confirmed_contradicted_or_out_of_reach() -> None:
    lines = make_log(4)
    third = check(lines[:3])
    witnessed = Witnessed([("web1", third), ("web2", Head(2, "e" * 64)), ("web3", Head(9, "f" * 64))])
    chain = Chain()
    for line in lines:
        chain.add(line)
        witnessed.passed(chain.head)
    assert witnessed.confirmed == [("web1", third)]
    assert witnessed.contradictions == [("web2", Head(2, "e" * 64))]
    assert witnessed.left() == [("web3", Head(9, "f" * 64))]


@given(st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_are_refused(data: bytes) -> None:
    try:
        decode_entry(data)
    except InvalidInput as error:
        assert error.code in {"bad-json", "bad-document", "too-large"}  # noqa: PT017


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 0},
        {"seq": True},
        {"seq": "1"},
        {"who": "ada"},
        {"who": [1]},
        {"what": []},
        {"previous": "0" * 63},
        {"previous": "G" * 64},
        {"time": 1},
        {"kind": None},
        {"more": 1},
    ],
)
def test_an_entry_of_another_shape_is_refused(change: dict[str, object]) -> None:
    members = {**json.loads(make_log(1)[0]), **change}
    with pytest.raises(InvalidInput, match="bad-document"):
        decode_entry(json.dumps(members).encode())


def test_an_entry_that_nobody_could_read_again_is_not_written() -> None:
    with pytest.raises(InvalidInput, match="too-large"):
        encode_entry(NO_HEAD, time="", kind="", who=(), what={"much": "x" * 65536})


def heads_of(lines: list[bytes]) -> list[Head]:
    """Return the head at each entry."""
    chain = Chain()
    found = []
    for line in lines:
        chain.add(line)
        found.append(chain.head)
    return found


def repeated(heads: list[Head]) -> list[Head]:
    """Return what a log that has grown to this repeats."""
    landmarks = Landmarks()
    for head in heads:
        landmarks.add(head)
    return landmarks.heads()


@given(st.integers(1, 2000), st.integers(0, 2000))
def test_two_sets_of_heads_of_one_log_meet_not_far_before_the_earlier_one(length: int, growth: int) -> None:
    heads = [Head(seq, f"{seq:064x}") for seq in range(1, length + growth + 1)]
    before, after = repeated(heads[:length]), repeated(heads)
    assert compare_heads(before, after) == ""
    assert (before[-1].seq, after[-1].seq) == (length, length + growth)
    met = max((head.seq for head in {*before} & {*after}), default=0)
    assert met > length - max(1, 2 * growth)
    assert len(after) <= (length + growth).bit_length() + 2


@given(st.integers(2, 300), st.integers(1, 40), st.data())
def test_a_log_that_was_written_anew_before_where_they_meet_shows(
    length: int, growth: int, data: st.DataObject
) -> None:
    changed = data.draw(st.integers(1, length))
    before = repeated([Head(seq, f"{seq:064x}") for seq in range(1, length + 1)])
    after = repeated(
        [Head(seq, f"{seq + (1 << 100) * (seq >= changed):064x}") for seq in range(1, length + growth + 1)]
    )
    met = max(({head.seq for head in before} & {head.seq for head in after}), default=0)
    assert ("was written anew" in compare_heads(before, after)) == (changed <= met)


def test_a_log_that_went_back_or_is_gone_shows() -> None:
    heads = heads_of(make_log(9))
    assert compare_heads(repeated(heads), repeated(heads[:7])) == (
        "it ended at entry 9 and ends at 7 now: it went back"
    )
    assert compare_heads(repeated(heads), []) == "it ended at entry 9 and ends at 0 now: it went back"
    assert compare_heads([], repeated(heads)) == compare_heads([], []) == ""
    assert compare_heads(repeated(heads), repeated(heads)) == ""

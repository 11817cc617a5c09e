"""Tests of reading DNS questions: as resolvers send them, and as nobody should."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.dns_questions import Question, parse_questions


def name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def query(*questions: bytes, flags: int = 0x0100, count: int | None = None) -> bytes:
    header = struct.pack(">HHHHHH", 7, flags, len(questions) if count is None else count, 0, 0, 0)
    return header + b"".join(questions)


WWW = name(b"WWW", b"Example", b"org") + struct.pack(">HH", 28, 1)


def test_a_question_is_a_name_in_lower_case_and_a_type() -> None:
    assert parse_questions(query(WWW)) == [Question("www.example.org", "AAAA")]
    assert parse_questions(struct.pack(">H", 33) + query(WWW), is_stream=True) == [
        Question("www.example.org", "AAAA")
    ]
    assert parse_questions(query(b"\0" + struct.pack(">HH", 4711, 1))) == [Question("", "TYPE4711")]


def test_several_questions_may_share_the_end_of_a_name() -> None:
    other = b"\x04mail" + struct.pack(">H", 0xC000 | 16) + struct.pack(">HH", 15, 1)
    assert parse_questions(query(WWW, other)) == [
        Question("www.example.org", "AAAA"),
        Question("mail.example.org", "MX"),
    ]


@pytest.mark.parametrize("flags", [0x8180, 0x2800, 0x8000])
def test_answers_and_updates_ask_nothing(flags: int) -> None:
    assert parse_questions(query(WWW, flags=flags)) == []


def test_bytes_that_are_no_letters_are_told_as_numbers() -> None:
    hostile = name(b"a.b", b"\x1b[31m", b"\xff") + struct.pack(">HH", 1, 1)
    assert parse_questions(query(hostile)) == [Question("a\\046b.\\027\\09131m.\\255", "A")]


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"\x03ww",
        b"\x40" + b"x" * 64 + b"\0" + b"\0\1\0\1",
        name(*[b"x" * 63] * 4) + b"\0\1\0\1",
        b"\xc0",
        b"\xc0\x0c\0\1\0\1",
        b"\xc0\x00\0\1\0\1",
        b"\x01a\xc0\x0c\0\1\0\1",
        b"\xc0\xff\0\1\0\1",
        name(b"a") + b"\0\1\0",
    ],
    ids=[
        "nothing",
        "cut",
        "long-label",
        "long-name",
        "half-pointer",
        "itself",
        "header",
        "loop",
        "ahead",
        "no-class",
    ],
)
def test_what_is_no_question_ends_the_look(question: bytes) -> None:
    assert parse_questions(query(question, count=1)) == []


def test_more_questions_than_anybody_asks_are_none() -> None:
    assert parse_questions(query(*[WWW] * 9)) == []
    assert parse_questions(query(WWW, count=0)) == []


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_questions_with_plain_names_or_none(data: bytes, is_stream: bool) -> None:  # noqa: FBT001
    for found in parse_questions(data, is_stream=is_stream):
        assert found.name.isascii()
        assert found.name.isprintable()
        assert len(found.name) <= 4 * 255


@given(
    st.lists(
        st.sampled_from([b"\xc0\x0c", b"\xc0\x0e", b"\xc0\x10", b"\x01a", b"\0", b"\0\1\0\1"]), max_size=30
    )
)
def test_pointers_in_any_order_end(pieces: list[bytes]) -> None:
    parse_questions(query(b"".join(pieces), count=8))

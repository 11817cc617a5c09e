"""Frames: any split gives the same frames, and nobody is made to hold more than a kind allows."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime import frames
from agent.runtime.frames import HEADER, MAX_BODY_BYTES, Frame, FrameReader, encode_frame
from protocol.errors import InvalidInput

ALL = frozenset(MAX_BODY_BYTES)
BODIES = st.lists(
    st.sampled_from(sorted(ALL)).flatmap(
        lambda kind: st.builds(Frame, st.just(kind), st.binary(max_size=min(64, MAX_BODY_BYTES[kind])))
    ),
    max_size=6,
)


@given(BODIES, st.lists(st.integers(1, 40)))
def test_however_the_bytes_are_cut_the_frames_are_the_same(sent: list[Frame], sizes: list[int]) -> None:
    data = b"".join(encode_frame(*frame) for frame in sent)
    reader = FrameReader(ALL)
    received: list[Frame] = []
    for size in sizes:
        received += reader.feed(data[:size])
        data = data[size:]
    received += reader.feed(data)
    assert received == sent


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_refusal(data: bytes) -> None:
    try:
        list(FrameReader(frozenset({frames.VERDICT, frames.ANSWER})).feed(data))
    except InvalidInput as error:
        assert error.code in {"bad-document", "too-large"}  # noqa: PT017  (both outcomes are right)


@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_length_over_the_kinds_limit_is_refused_before_its_body_is_read(kind: bytes) -> None:
    header = HEADER.pack(kind, MAX_BODY_BYTES[kind] + 1)
    with pytest.raises(InvalidInput, match="too-large"):
        list(FrameReader(ALL).feed(header))
    with pytest.raises(ValueError, match="frame"):
        encode_frame(kind, bytes(MAX_BODY_BYTES[kind] + 1))


def test_a_kind_that_is_not_expected_is_refused() -> None:
    with pytest.raises(InvalidInput, match="bad-document"):
        list(FrameReader(frozenset({frames.READY})).feed(encode_frame(frames.PERMIT)))


def test_frames_cross_a_pipe_and_its_end_is_told() -> None:
    reader, writer = os.pipe()
    frames.write_frame(writer, frames.VERDICT, b"{}")
    frames.write_frame(writer, frames.READY)
    os.close(writer)
    assert frames.read_frame(reader, frames.VERDICT) == (frames.VERDICT, b"{}")
    assert frames.read_frame(reader, frames.READY, frames.ANSWER) == (frames.READY, b"")
    with pytest.raises(EOFError):
        frames.read_frame(reader, frames.READY)
    os.close(reader)

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.sse import MAX_EVENT_BYTES, ServerEvent, decode_events
from protocol.errors import InvalidInput

STREAM = (
    b": ping\n\nevent: result\nid: 7\ndata: one\ndata: two\n\n"
    b"data:bare\r\n\r\nid: 9\n\nevent: done\ndata: {}\n\nda"
)
EVENTS = [
    ServerEvent("result", b"one\ntwo", "7"),
    ServerEvent("message", b"bare", "7"),
    ServerEvent("done", b"{}", "9"),
]


@given(st.lists(st.integers(0, len(STREAM))))
def test_events_do_not_depend_on_how_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert list(decode_events(STREAM[start:end] for start, end in pairwise(edges))) == EVENTS


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_give_events_or_nothing(chunks: list[bytes]) -> None:
    for event in decode_events(chunks):
        assert isinstance(event.data, bytes)


def test_an_event_id_given_at_the_start_is_kept_until_another_comes() -> None:
    assert next(decode_events([b"data: x\n\n"], "4")).last_id == "4"


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 65536, b"data: " + b"x" * 65536 + b"\n"])
def test_an_endless_event_is_refused(chunk: bytes) -> None:
    with pytest.raises(InvalidInput, match="too-large"):
        list(decode_events(chunk for _ in range(MAX_EVENT_BYTES // 65536 + 1)))

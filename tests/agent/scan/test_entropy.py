"""Tests of entropy: the sum of its definition, however the bytes come in."""

from math import log2
from os import urandom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.entropy import EntropyScan


def entropy(*chunks: bytes) -> float:
    scan = EntropyScan()
    for chunk in chunks:
        scan.feed(chunk)
    return scan.bits_per_byte()


@given(st.lists(st.binary(max_size=50)))
def test_entropy_is_the_sum_over_the_bytes_and_never_beyond_its_bounds(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    shares = [data.count(value) / len(data) for value in set(data)]
    assert entropy(*chunks) == pytest.approx(-sum(share * log2(share) for share in shares), abs=1e-9)
    assert 0.0 <= entropy(*chunks) <= 8.0


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0.0), (b"\x00" * 1000, 0.0), (b"ab" * 500, 1.0), (bytes(range(256)) * 10, 8.0)],
    ids=["nothing", "one value", "two values", "all values alike"],
)
def test_entropy_of_bytes_whose_entropy_is_known(data: bytes, expected: float) -> None:
    assert entropy(data) == expected


def test_what_is_random_has_nearly_all_there_can_be() -> None:
    assert entropy(urandom(1 << 16)) > 7.9

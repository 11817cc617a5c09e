"""Tests of how facts of a file are written."""

import stat
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.texts import mode_text, path_base64, path_text, path_texts, time_text


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (stat.S_IFREG | 0o644, "-rw-r--r--"),
        (stat.S_IFREG | 0o4755, "urwxr-xr-x"),
        (stat.S_IFREG | 0o6711, "ugrwx--x--x"),
        (stat.S_IFDIR | 0o1777, "dtrwxrwxrwx"),
        (stat.S_IFLNK | 0o777, "Lrwxrwxrwx"),
        (stat.S_IFIFO | 0o600, "prw-------"),
        (stat.S_IFSOCK | 0, "S---------"),
        (stat.S_IFBLK | 0o660, "Drw-rw----"),
        (stat.S_IFCHR | 0o666, "Dcrw-rw-rw-"),
    ],
)
def test_a_mode_is_written_as_investigators_know_it(mode: int, text: str) -> None:
    assert mode_text(mode) == text


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_423_273_867_178_506_010, "2015-02-07T01:51:07.178506Z"),
        (-1_000_000_000, "1969-12-31T23:59:59Z"),
        (10**12 * 10**9, "@1000000000000"),
        (-(10**11) * 10**9, "@-100000000000"),
    ],
)
def test_a_time_is_rfc_3339_where_that_can_say_it(time_ns: int, text: str) -> None:
    assert time_text(time_ns) == text


@given(st.datetimes(timezones=st.just(UTC)), st.integers(0, 999))
def test_any_time_that_rfc_3339_can_say_is_written_as_the_library_does(
    moment: datetime, rest_ns: int
) -> None:
    time_ns = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000 + rest_ns
    assert time_text(time_ns) == moment.isoformat().replace("+00:00", "Z")


def test_a_path_that_is_text_is_itself() -> None:
    assert (path_text("/tmp/é\\x".encode()), path_base64("/tmp/é\\x".encode())) == ("/tmp/é\\x", None)


def test_a_path_that_is_no_text_is_escaped_and_its_bytes_are_given() -> None:
    assert (path_text(b"/a\\b\xff"), path_base64(b"/a\\b\xff")) == (r"/a\\b\xff", "L2FcYv8=")


@given(st.binary(max_size=20))
def test_a_path_asked_for_at_once_is_written_the_same(path: bytes) -> None:
    assert path_texts(path) == (path_text(path), path_base64(path))


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_no_two_paths_are_written_alike(one: bytes, other: bytes) -> None:
    written = [(path_text(path), path_base64(path) is not None) for path in (one, other)]
    assert (written[0] == written[1]) is (one == other)

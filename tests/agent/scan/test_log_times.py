"""Tests of telling when a line of a log was written."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.log_times import LineDater, Yearless
from agent.scan.texts import time_text

MTIME_NS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture
def _berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CET-1CEST,M3.5.0,M10.5.0/3"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def dated(line: bytes, mtime_ns: int = MTIME_NS) -> tuple[str, str]:
    dater = LineDater(mtime_ns)
    stamp = dater.date(line)
    assert stamp is not None
    time_ns = dater.resolve(stamp)
    assert time_ns is not None
    return dater.form, time_text(time_ns)


@pytest.mark.usefixtures("_berlin")
@pytest.mark.parametrize(
    ("line", "form", "expected"),
    [
        (b"2026-01-02T03:04:05Z x", "iso", "2026-01-02T03:04:05Z"),
        (b"2026-01-02T03:04:05.678+05:30 x", "iso", "2026-01-01T21:34:05.678000Z"),
        (b"2026-01-02 03:04:05,678 INFO x", "iso", "2026-01-02T02:04:05.678000Z"),
        (b"2026-07-02 03:04:05 summer", "iso", "2026-07-02T01:04:05Z"),
        (b"[2026-01-02 03:04:05] x", "iso", "2026-01-02T02:04:05Z"),
        (b"2026/01/02 03:04:05 [error] 7#7: nginx", "iso", "2026-01-02T02:04:05Z"),
        (b"<34>1 2026-01-02T03:04:05.000003Z h su - ID47 - x", "iso", "2026-01-02T03:04:05.000003Z"),
        (b"Jan  2 03:04:05 host sshd[7]: x", "rfc3164", "2026-01-02T02:04:05Z"),
        (b"<34>Oct 11 22:14:15 mymachine su: x", "rfc3164", "2025-10-11T20:14:15Z"),
        (b"Jan 02 2026 03:04:05 asa : x", "rfc3164", "2026-01-02T02:04:05Z"),
        (b"[Fri Jan 02 03:04:05.123456 2026] [core:error] x", "ctime", "2026-01-02T02:04:05.123456Z"),
        (b'203.0.113.7 - eve [02/Jan/2026:03:04:05 -0700] "GET /"', "common", "2026-01-02T10:04:05Z"),
        (b"1767323045.678    120 203.0.113.7 TCP_MISS/200", "epoch", "2026-01-02T03:04:05.678000Z"),
        (b"1767323045678 x", "epoch", "2026-01-02T03:04:05.678000Z"),
        (b"type=USER_AUTH msg=audit(1767323045.678:99): pid=1", "audit", "2026-01-02T03:04:05.678000Z"),
        (
            b'{"log":"x\\n","stream":"stderr","time":"2026-01-02T03:04:05.6Z"}',
            "json",
            "2026-01-02T03:04:05.600000Z",
        ),
        (b'{"level":"info","ts":1767323045.678,"msg":"x"}', "json", "2026-01-02T03:04:05.678000Z"),
    ],
)
def test_every_form_of_a_time_is_told(line: bytes, form: str, expected: str) -> None:
    assert dated(line) == (form, expected)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"nothing",
        b"2026-13-02T03:04:05Z",
        b"2026-01-02T25:04:05Z",
        b"0000-01-02T03:04:05Z",
        b"Foo  2 03:04:05 host",
        b"Jan 32 03:04:05 host",
        b"[   12.345678] the kernel, since it started",
        b"12345678901234567890 a number",
        b'{"time":"soon"}',
        b"x" * 2000 + b" [02/Jan/2026:03:04:05 -0700]",
    ],
)
def test_what_is_no_time_is_none(line: bytes) -> None:
    assert LineDater(MTIME_NS).date(line) is None


def test_years_are_counted_by_the_order_of_lines_and_end_when_the_file_was_changed() -> None:
    dater = LineDater(MTIME_NS)
    days = [b"Nov  1", b"Dec 31", b"Jan  1", b"Jun  1", b"Nov 30", b"Jan  2", b"Feb 28"]
    stamps = [dater.date(day + b" 00:00:00 h x") for day in days]
    years = [stamp.year for stamp in stamps if isinstance(stamp, Yearless)]
    assert years == [0, 0, 1, 1, 1, 2, 2]
    resolved = [time_text(dater.resolve(stamp) or 0)[:4] for stamp in stamps if stamp is not None]
    assert resolved == ["2024", "2024", "2025", "2025", "2025", "2026", "2026"]


def test_a_line_that_comes_a_little_late_around_new_year_is_of_the_old_one() -> None:
    dater = LineDater(MTIME_NS)
    stamps = [
        dater.date(line) for line in (b"Jan  1 00:00:01 h x", b"Dec 31 23:59:59 h x", b"Jan  1 00:00:02 h x")
    ]
    assert [stamp.year for stamp in stamps if isinstance(stamp, Yearless)] == [0, -1, 0]


def test_the_last_line_of_a_file_is_not_of_the_future() -> None:
    assert dated(b"Mar  1 12:00:00 h x", MTIME_NS)[1].startswith("2026")
    assert dated(b"Mar  3 12:00:00 h x", MTIME_NS)[1].startswith("2025")


@given(st.binary(max_size=200), st.integers(-(2**62), 2**62))
def test_any_line_has_a_time_or_none(line: bytes, mtime_ns: int) -> None:
    dater = LineDater(mtime_ns // 10**3)
    stamp = dater.date(line)
    assert stamp is None or isinstance(dater.resolve(stamp), (int, type(None)))


@given(
    st.integers(1, 9999),
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from([b"Z", b"", b"+99:99", b"-00:00"]),
)
def test_any_digits_give_a_time_or_none(year: int, month: int, day: int, zone: bytes) -> None:
    dater = LineDater(MTIME_NS)
    for line in (
        b"%04d-%02d-%02dT00:00:60%s" % (year, month, day, zone),
        b"Feb %2d 00:00:00 h" % day,
        b"[%02d/Feb/%04d:00:00:00 +9999]" % (day, year),
    ):
        stamp = dater.date(line)
        assert stamp is None or isinstance(dater.resolve(stamp), (int, type(None)))

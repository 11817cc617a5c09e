"""Tests of asking for the time: a real server on loopback that tells the truth, and all kinds of lies."""

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.net_ping import Destination
from agent.platform.sntp import Measurement, NoTime, Reply, ask, best, is_answer_to, measure, parse_reply
from tests.support.sntp_server import FORM, Answer, reply, sntp_server, stamp

HERE = Destination(socket.AF_INET, ("127.0.0.1", 0))


def never() -> None:
    """Be what `check` is where nobody ends the wait."""


def asked(answer: Answer, timeout_s: float = 5.0) -> Measurement:
    with sntp_server(answer) as port:
        return ask(HERE, port, timeout_s, never)


@pytest.mark.parametrize("ahead_s", [0.0, 3600.0, -86400.0 * 365])
def test_the_offset_is_what_the_server_is_ahead(ahead_s: float) -> None:
    measured = asked(lambda request: [reply(request, ahead_s=ahead_s)])
    # Both ends are one clock: what is left is the round trip.
    assert abs(measured.offset_s - ahead_s) <= measured.delay_s / 2 + 0.001
    assert (measured.stratum, measured.reference) == (2, "192.0.2.1")


def test_the_round_trip_is_taken_out_of_the_offset() -> None:
    # Half a second there and half a second back, a tenth of a second to answer; this clock is 10 s behind.
    told = Reply(4, 2, b"\0\0\0\0", 0.0, 1000.0 + 10 + 0.5, 1000.0 + 10 + 0.6)
    measured = measure(told, 1000.0, 1.1)
    assert measured.offset_s == pytest.approx(10.0)
    assert measured.delay_s == pytest.approx(1.0)
    assert measured.server_time_s == pytest.approx(1010.6)


def test_a_request_tells_nothing_of_this_clock() -> None:
    requests: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        requests.append(request)
        return [reply(request)]

    for _ in range(2):
        asked(answer)
    # Version 4, client, and nothing else but a transmit time, which is another random number each time.
    assert {one[:40] for one in requests} == {b"\x23" + bytes(39)}
    assert len({one[40:] for one in requests}) == 2
    assert {len(one) for one in requests} == {48}


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"stratum": 0, "reference": b"RATE"}, "kiss of death: RATE"),
        ({"stratum": 0, "reference": b"\x1b[2J"}, r"kiss of death: \?\[2J"),
        ({"stratum": 16}, "not synchronised .stratum 16"),
        ({"stratum": 255}, "not synchronised"),
        ({"flags": 0xE4}, "leap indicator 3"),
        ({"flags": 0x23}, "mode 3, version 4: that is no server's"),
        ({"flags": 0x25}, "mode 5"),
        ({"flags": 0x04}, "version 0"),
        ({"sent": 0}, "without a time"),
        ({"received": 0}, "without a time"),
        ({"root_dispersion": 20 << 16}, "uncertain by 20.0 s"),
        ({"root_delay": 40 << 16}, "uncertain by 20.0 s"),
    ],
)
def test_an_answer_without_a_time_is_none_and_says_why(lie: dict[str, Any], reason: str) -> None:
    with pytest.raises(NoTime, match=reason) as raised:
        asked(lambda request: [reply(request, **lie)])
    assert raised.value.is_kiss is ("kiss" in reason)


@pytest.mark.parametrize("processing_s", [3600.0, -3600.0])
def test_times_that_cannot_be_are_refused(processing_s: float) -> None:
    now = time.time()
    with pytest.raises(NoTime, match="times that cannot be"):
        asked(lambda request: [reply(request, received=stamp(now), sent=stamp(now + processing_s))])


Strange = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "strange",
    [
        lambda request: reply(request, originate=0),
        lambda request: reply(request, originate=FORM.unpack(request)[10] ^ 1),
        lambda _: b"",
        lambda request: reply(request)[:47],
        lambda _: b"x" * 2000,
        lambda request: request,
    ],
    ids=["no-origin", "wrong-origin", "empty", "short", "long", "our-own"],
)
def test_what_does_not_answer_our_question_is_passed_over(strange: Strange) -> None:
    honest = asked(lambda request: [strange(request), reply(request, ahead_s=100.0)])
    assert round(honest.offset_s) == 100
    with pytest.raises(NoTime, match="no answer to what was asked, but 1 others"):
        asked(lambda request: [strange(request)], timeout_s=0.05)


def test_a_server_that_is_silent_or_not_there_gives_no_time() -> None:
    with pytest.raises(NoTime, match="^no answer$"):
        asked(lambda _: [], timeout_s=0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(NoTime, match="Connection refused"):
        ask(HERE, port, 5, never)


def test_what_follows_the_fixed_part_does_not_matter() -> None:
    assert asked(lambda request: [reply(request) + b"\0" * 20]).stratum == 2


def test_a_source_that_is_a_clock_is_told_by_its_code() -> None:
    assert asked(lambda request: [reply(request, stratum=1, reference=b"GPS\0")]).reference == "GPS"
    assert asked(lambda request: [reply(request, stratum=1, reference=b"\x1b\n\xffX")]).reference == "???X"


@pytest.mark.parametrize("now_s", [1_800_000_000.0, 2_085_978_495.0, 2_085_978_497.0, 3_000_000_000.0])
def test_the_era_is_the_one_nearest_to_this_clock(now_s: float) -> None:
    # 2,085,978,496 s after 1970, in February 2036, the seconds of NTP return to 0.
    answer = FORM.pack(0x24, 2, 0, 0, 0, 0, b"", 0, 7, stamp(now_s + 5), stamp(now_s + 5))
    assert measure(parse_reply(answer), now_s, 0.0).offset_s == pytest.approx(5.0, abs=1e-4)


def test_a_wait_ends_when_it_is_told_to() -> None:
    class Ended(Exception):
        pass

    def end() -> None:
        raise Ended

    with pytest.raises(Ended), sntp_server(lambda _: []) as port:
        ask(HERE, port, 3600, end)


def test_the_shortest_round_trip_is_the_best() -> None:
    slow, quick = (Measurement(0.0, delay, 1, "", 0.0, 0.0) for delay in (0.5, 0.1))
    assert best([slow, quick]) == quick
    assert best([]) is None


@given(st.binary(max_size=100))
def test_any_answer_is_a_time_or_none(data: bytes) -> None:
    is_answer_to(data, 7)
    try:
        told = parse_reply(data)
        measured = measure(told, 1_800_000_000.0, 0.1)
    except NoTime:
        return
    assert abs(measured.offset_s) <= 2**31
    assert 1 <= measured.stratum <= 15


@given(
    st.integers(0, 255), st.integers(0, 16), st.binary(min_size=4, max_size=4), st.integers(0, 2**64 - 1),
    st.integers(-(2**33), 2**33),
)  # fmt: skip
def test_an_answer_of_the_right_form_is_a_time_or_none(
    flags: int, stratum: int, reference: bytes, received: int, later: int
) -> None:
    sent = (received + later) % 2**64
    answer = FORM.pack(flags, stratum, 0, 0, 0, 0, reference, 0, 7, received, sent)
    assert is_answer_to(answer, 7)
    try:
        measured = measure(parse_reply(answer), 1_800_000_000.0, 0.1)
    except NoTime:
        return
    assert abs(measured.offset_s) <= 2**31
    assert measured.delay_s >= 0
    assert measured.reference.isprintable()

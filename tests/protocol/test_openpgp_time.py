"""The clock of whoever checks: before the key was made, at each edge, in every zone, at the ends of time."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate, require_usable_certificate
from tests.protocol.test_openpgp import refusal
from tests.support.openpgp_forge import (
    BIRTH_S,
    GOOD,
    NOW,
    NOW_S,
    SUBKEY,
    WITH_SUBKEY,
    YEAR_S,
    bind,
    certify,
    created,
    expires_after,
    flags,
    half,
    key_expires_after,
    name,
    sign,
    subkey,
)

AHEAD_S = 300
SIGNED_S = NOW_S - 60
SHORT_LIVED = half(name(), certify(flags(3), key_expires_after(YEAR_S)))
END_S = BIRTH_S + YEAR_S
EARLY = sign(at=BIRTH_S + 1)
BORN_WITH_SUBKEY = half(name(), certify(), subkey(), bind(flags(2), key_expires_after(YEAR_S)))


def at(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


EDGES = {
    "the signature's hour": (GOOD, sign(), SIGNED_S, None),
    "five minutes before it was made": (GOOD, sign(), SIGNED_S - AHEAD_S, None),
    "a second more than five minutes before": (GOOD, sign(), SIGNED_S - AHEAD_S - 1, "from the future"),
    "almost a second more": (GOOD, sign(), SIGNED_S - AHEAD_S - 0.001, "from the future"),
    "before the key was made": (GOOD, EARLY, BIRTH_S - AHEAD_S - 1, "from the future"),
    "long before the key was made": (GOOD, sign(), BIRTH_S - YEAR_S, "from the future"),
    "just before the key, within five minutes": (GOOD, sign(at=BIRTH_S), BIRTH_S - AHEAD_S, None),
    "a second before the signature expires": (GOOD, sign(expires_after(60)), NOW_S - 0.001, None),
    "exactly when the signature expires": (GOOD, sign(expires_after(60)), NOW_S, "signature has expired"),
    "just before the key expires": (SHORT_LIVED, EARLY, END_S - 0.001, None),
    "exactly when the key expires": (SHORT_LIVED, EARLY, END_S, "primary key has expired"),
    "just before the subkey expires": (BORN_WITH_SUBKEY, sign(by=SUBKEY, at=BIRTH_S), END_S - 0.001, None),
    "exactly when the subkey expires": (
        BORN_WITH_SUBKEY,
        sign(by=SUBKEY, at=BIRTH_S),
        END_S,
        "subkey has expired",
    ),
    "just before the self-signature expires": (
        half(name(), certify(flags(3), expires_after(YEAR_S))),
        EARLY,
        END_S - 0.001,
        None,
    ),
    "exactly when the self-signature expires": (
        half(name(), certify(flags(3), expires_after(YEAR_S))),
        EARLY,
        END_S,
        "the signature has expired",
    ),
    "longest life, last second that OpenPGP can state": (
        half(name(), certify(flags(3), key_expires_after(0xFFFFFFFF))),
        sign(),
        0xFFFFFFFF,
        None,
    ),
    "beyond what 32 bits can state": (GOOD, sign(), 1 << 33, None),
    "signed in the last second of OpenPGP": (GOOD, sign(created(0xFFFFFFFF), at=None), NOW_S, "future"),
    "signed at the epoch": (GOOD, sign(created(0), at=None), NOW_S, "before the key"),
    "expires in 136 years": (GOOD, sign(expires_after(0xFFFFFFFF)), NOW_S, None),
}


@pytest.mark.parametrize("edge", EDGES)
def test_each_edge_of_time_falls_where_it_should(edge: str) -> None:
    certificate, made, seconds, reason = EDGES[edge]
    why = refusal(certificate, made, now=at(seconds))
    if reason is None:
        assert why is None
    else:
        assert reason in str(why)


@pytest.mark.parametrize("now", [datetime.min, datetime.max, datetime(1970, 1, 1)])  # noqa: DTZ901, DTZ001
def test_a_clock_at_the_ends_of_time_gives_an_answer(now: datetime) -> None:
    why = refusal(GOOD, sign(), now=now.replace(tzinfo=UTC))
    assert why is None or "from the future" in why


@given(st.integers(-23 * 60, 23 * 60), st.integers(-400, 400))
def test_the_zone_in_which_a_time_is_told_changes_nothing(offset: int, seconds: int) -> None:
    now = at(SIGNED_S + seconds)
    elsewhere = now.astimezone(timezone(timedelta(minutes=offset)))
    assert refusal(GOOD, sign(expires_after(200)), now=now) == refusal(
        GOOD, sign(expires_after(200)), now=elsewhere
    )


class EndOfSummer(tzinfo):
    """The hour of the last Sunday in October that clocks in Berlin show twice; needs no zone database."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=2 - (when.fold if when else 0))

    def dst(self, when: datetime | None) -> timedelta:
        return timedelta(hours=1 - (when.fold if when else 0))

    def tzname(self, when: datetime | None) -> str:
        return "CET" if when and when.fold else "CEST"


def test_an_hour_that_a_clock_shows_twice_is_two_hours() -> None:
    summer = datetime(2026, 10, 25, 2, 30, tzinfo=EndOfSummer())
    winter = summer.replace(fold=1)
    made = sign(expires_after(1800), at=int(summer.timestamp()))
    assert refusal(GOOD, made, now=summer) is None
    assert "signature has expired" in str(refusal(GOOD, made, now=winter))
    made = sign(at=int(winter.timestamp()))
    assert "from the future" in str(refusal(GOOD, made, now=summer))
    assert refusal(GOOD, made, now=winter) is None


@given(st.integers(BIRTH_S - 2 * YEAR_S, NOW_S + 2 * YEAR_S), st.integers(BIRTH_S, NOW_S + YEAR_S))
def test_a_time_is_believed_only_between_birth_and_end(now_s: int, made_s: int) -> None:
    made = sign(expires_after(YEAR_S), by=SUBKEY, at=made_s)
    expected = max(made_s, BIRTH_S) - AHEAD_S <= now_s < made_s + YEAR_S
    assert (refusal(WITH_SUBKEY, made, now=at(now_s)) is None) == expected


def test_a_certificate_is_usable_from_five_minutes_before_its_birth_to_its_end() -> None:
    certificate = parse_certificate(SHORT_LIVED)
    require_usable_certificate(certificate, at(BIRTH_S - AHEAD_S))
    require_usable_certificate(certificate, at(END_S - 0.001))
    for seconds in (BIRTH_S - AHEAD_S - 1, END_S):
        with pytest.raises(InvalidInput, match=r"bad-key: .*(future|expired)"):
            require_usable_certificate(certificate, at(seconds))
    assert at(NOW_S) == NOW

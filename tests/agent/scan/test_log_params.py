"""Tests of how a window of time is written."""

from datetime import UTC, datetime

import pytest

from agent.scan.log_params import require_moment, window_of

NOW_NS = 1_767_323_045_000_000_000


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [("<90s", 90), ("2m", 120), ("<1h", 3600), ("3d", 3 * 86_400)],
)
def test_an_age_counts_back_from_now(moment: str, seconds: int) -> None:
    require_moment(moment, "since")
    assert window_of(moment, None, NOW_NS) == (NOW_NS - seconds * 10**9, None)


@pytest.mark.parametrize(
    "moment", ["2026-01-02T03:04:05Z", "2026-01-02T05:04:05+02:00", "2026-01-02t03:04:05.000z"]
)
def test_a_time_has_its_zone(moment: str) -> None:
    require_moment(moment, "until")
    expected = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()) * 10**9
    assert window_of(None, moment, NOW_NS) == (None, expected)
    assert window_of(None, "2026-01-02T03:04:05.123456789Z", NOW_NS).until_ns == expected + 123_456_789


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="an age here is written <1h"):
        require_moment(">1h", "since")
    with pytest.raises(ValueError, match="an age here is written >1h"):
        require_moment("<1h", "until")
    with pytest.raises(ValueError, match="is no time"):
        require_moment("2026-02-30T03:04:05Z", "since")
    require_moment(None, "since")

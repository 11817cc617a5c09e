"""When paced commands are let out and when no more, decided without a database or a clock."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.documents import Pacing
from server.pacing import MIN_ANSWERS, Decision, Standing, decide

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def stand(**members: object) -> Standing:
    """Return how a campaign of a hundred stands of which nothing was let out, but for what a test names."""
    return Standing(**{"wave": 1, "next_release": NOW, "held": 100, **members})  # type: ignore[arg-type]


def test_a_wave_lets_out_as_many_as_it_says_and_the_last_one_all_the_rest() -> None:
    pacing = Pacing(waves=(1, 10))
    assert decide(pacing, stand(), NOW)[:2] == (1, 1)
    assert decide(pacing, stand(held=99, in_wave=1), NOW)[:2] == (2, 10)
    assert decide(pacing, stand(wave=2, held=89, in_wave=10), NOW)[:2] == (3, 89)
    assert decide(pacing, stand(held=5), NOW)[:2] == (1, 1)
    assert decide(pacing, stand(held=4, in_wave=1), NOW)[:2] == (2, 4)


def test_a_wave_waits_for_those_that_were_sent_and_no_longer_than_its_time() -> None:
    pacing = Pacing(waves=(2,), wave_wait_s=30)
    waiting = stand(in_wave=2, open_in_wave=1, last_sent=NOW)
    assert decide(pacing, waiting, NOW + 29 * SECOND) == Decision(1, 0, NOW, look_again=NOW + 30 * SECOND)
    assert decide(pacing, waiting, NOW + 30 * SECOND)[:2] == (2, 100)


def test_what_the_broker_has_not_taken_holds_its_wave_up() -> None:
    pacing = Pacing(waves=(2,), wave_wait_s=30)
    waiting = stand(in_wave=2, open_in_wave=2, unsent=1, last_sent=NOW)
    assert decide(pacing, waiting, NOW + timedelta(hours=1)) == Decision(1, 0, NOW)


def test_no_more_than_the_concurrency_allows_are_under_way() -> None:
    pacing = Pacing(concurrency=10, wave_wait_s=30)
    assert decide(pacing, stand(), NOW).release == 10
    assert decide(pacing, stand(in_wave=10, under_way=7), NOW).release == 3
    full = decide(pacing, stand(in_wave=10, under_way=10, oldest_sent=NOW), NOW + SECOND)
    assert (full.release, full.look_again) == (0, NOW + 30 * SECOND)
    assert decide(pacing, stand(in_wave=12, under_way=12), NOW).release == 0


def test_a_clock_that_was_set_back_holds_the_next_one_up_no_longer_than_the_rate_does() -> None:
    decided = decide(Pacing(rate=0.5), stand(next_release=NOW + timedelta(days=1)), NOW)
    assert decided == Decision(1, 0, NOW + 2 * SECOND, look_again=NOW + 2 * SECOND)


def test_a_low_rate_lets_one_out_at_its_time() -> None:
    pacing = Pacing(rate=0.5)
    first = decide(pacing, stand(), NOW)
    assert first == Decision(1, 1, NOW + 2 * SECOND, look_again=NOW + 2 * SECOND)
    early = decide(pacing, stand(held=99, next_release=first.next_release), NOW + SECOND)
    assert early == Decision(1, 0, NOW + 2 * SECOND, look_again=NOW + 2 * SECOND)


def test_what_could_not_go_out_is_not_made_up_for() -> None:
    later = NOW + timedelta(hours=1)
    assert decide(Pacing(rate=10), stand(), later).release == 11


@pytest.mark.parametrize(
    ("standing", "is_stopped"),
    [
        pytest.param(stand(in_wave=1, answered=1, failed=1), True, id="the first wave of one"),
        pytest.param(stand(in_wave=1, answered=1), False, id="a first wave that did well"),
        pytest.param(stand(in_wave=1), False, id="a wave of which nobody said anything"),
        pytest.param(
            stand(wave=2, in_wave=50, open_in_wave=41, last_sent=NOW, answered=9, failed=9),
            False,
            id="too few to judge while a wave is under way",
        ),
        pytest.param(
            stand(wave=2, in_wave=50, open_in_wave=40, last_sent=NOW, answered=10, failed=2),
            True,
            id="enough to judge while a wave is under way",
        ),
        pytest.param(
            stand(wave=2, in_wave=50, open_in_wave=40, last_sent=NOW, answered=11, failed=2),
            False,
            id="less than the share",
        ),
    ],
)
def test_a_campaign_is_stopped_at_its_share_of_failures(standing: Standing, is_stopped: bool) -> None:  # noqa: FBT001
    decision = decide(Pacing(waves=(1, 50), stop_at=20), standing, NOW)
    assert (decision.stop_reason is not None) == is_stopped
    if decision.stop_reason:
        assert decision.release == 0
        assert f"{standing.failed} of {standing.answered} answers failed" in decision.stop_reason


PACINGS = st.builds(
    Pacing,
    waves=st.lists(st.integers(1, 20), max_size=3).map(tuple),
    concurrency=st.none() | st.integers(1, 30),
    rate=st.none() | st.floats(0.1, 50),
    stop_at=st.none() | st.floats(1, 100),
    wave_wait_s=st.integers(1, 30),
).filter(lambda pacing: pacing.holds_back)


@dataclass
class Line:
    """One command that was let out."""

    wave: int
    sent: datetime
    ended: str = ""


class Fleet:
    """Agents that answer, fail or keep silent, and the account that the database would keep of them."""

    def __init__(self, pacing: Pacing, size: int) -> None:
        self.pacing = pacing
        self.now = NOW
        self.wave, self.next_release = 1, NOW
        self.held = size
        self.out: list[Line] = []
        self.released: list[datetime] = []
        self.stop_reason: str | None = None

    def look(self) -> Decision:
        """Decide, and do it."""
        mine = [line for line in self.out if line.wave == self.wave]
        is_open = [line for line in self.out if not line.ended]
        fresh = self.now - timedelta(seconds=self.pacing.wave_wait_s)
        under_way = [line.sent for line in is_open if line.sent > fresh]
        standing = Standing(
            wave=self.wave,
            next_release=self.next_release,
            held=self.held,
            in_wave=len(mine),
            open_in_wave=sum(not line.ended for line in mine),
            last_sent=max((line.sent for line in mine if not line.ended), default=None),
            under_way=len(under_way),
            oldest_sent=min(under_way, default=None),
            answered=sum(bool(line.ended) for line in self.out),
            failed=sum(line.ended == "failed" for line in self.out),
        )
        decision = decide(self.pacing, standing, self.now)
        if self.pacing.concurrency is not None:
            assert decision.release + len(under_way) <= max(self.pacing.concurrency, len(under_way))
        self.stop_reason = decision.stop_reason
        self.wave, self.next_release = decision.wave, decision.next_release
        self.held -= decision.release
        self.out += [Line(self.wave, self.now) for _ in range(decision.release)]
        self.released += [self.now] * decision.release
        return decision


@given(
    pacing=PACINGS,
    size=st.integers(1, 60),
    moves=st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(["done", "failed", ""])), max_size=60),
)
def test_limits_hold_whatever_the_agents_do_and_nobody_is_held_back_for_ever(
    pacing: Pacing, size: int, moves: list[tuple[int, str]]
) -> None:
    fleet = Fleet(pacing, size)
    for pause_ms, ends in moves:
        fleet.look()
        if fleet.stop_reason or not fleet.held:
            break
        fleet.now += timedelta(milliseconds=pause_ms)
        for line in fleet.out:
            if not line.ended and ends:
                line.ended = ends
                break
    looks = 0
    while fleet.held and not fleet.stop_reason:  # from here on everybody is silent
        looks += 1
        decision = fleet.look()
        if not decision.release and not decision.stop_reason:
            # Whoever waits is told until when, and that time comes.
            assert decision.look_again is not None
            assert decision.look_again > fleet.now
        fleet.now = max(fleet.now, decision.look_again or fleet.now)
        assert looks <= 20 * size + 100
    sizes = [sum(line.wave == number for line in fleet.out) for number in range(1, len(pacing.waves) + 1)]
    assert all(size <= limit for size, limit in zip(sizes, pacing.waves, strict=True))
    if pacing.rate is not None:
        for first, start in enumerate(fleet.released):
            within = [time for time in fleet.released[first:] if time < start + SECOND]
            assert len(within) <= 2 * pacing.rate + 1 + 1e-6
    if fleet.stop_reason:
        failed = sum(line.ended == "failed" for line in fleet.out)
        answered = sum(bool(line.ended) for line in fleet.out)
        assert pacing.stop_at is not None
        assert failed * 100 >= pacing.stop_at * answered
        assert answered >= MIN_ANSWERS or all(
            line.ended or line.sent + timedelta(seconds=pacing.wave_wait_s) <= fleet.now
            for line in fleet.out
            if line.wave == fleet.wave
        )

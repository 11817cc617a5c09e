"""Limits on logins: a burst, then a rate, in memory of bounded size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.throttle import RateLimited, Throttle, address_key


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def make(clock: Clock, **changes: int) -> Throttle:
    """Return a throttle of three at once and one more every two seconds."""
    return Throttle(clock=clock, **{"burst": 3, "refill_s": 2, **changes})


def use(throttle: Throttle, key: str, times: int) -> None:
    for _ in range(times):
        throttle.require_room(key)
        throttle.count(key)


def test_beyond_a_burst_a_key_waits_as_long_as_it_is_told() -> None:
    clock = Clock()
    throttle = make(clock)
    use(throttle, "a", 3)
    with pytest.raises(RateLimited, match="rate-limited: asked too often; ask again in 2 s") as caught:
        throttle.require_room("a")
    throttle.require_room("b")
    clock.now_s += caught.value.retry_after_s
    use(throttle, "a", 1)
    with pytest.raises(RateLimited, match="in 2 s"):
        throttle.require_room("a")
    clock.now_s += 60
    use(throttle, "a", 3)


def test_what_is_refused_does_not_make_the_wait_longer() -> None:
    clock = Clock()
    throttle = make(clock)
    use(throttle, "a", 3)
    for _ in range(100):
        with pytest.raises(RateLimited, match="in 2 s"):
            use(throttle, "a", 1)


@given(st.lists(st.integers(0, 50), max_size=200))
def test_memory_is_bounded_whoever_asks(keys: list[int]) -> None:
    throttle = make(Clock(), max_keys=10)
    for key in keys:
        throttle.count(str(key))
    assert len(throttle) <= 10


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("", ""),
        ("x" * 500, "x" * 64),
    ],
)
def test_who_holds_a_network_counts_once(host: str, key: str) -> None:
    assert address_key(host) == key

"""Challenges: each good once, for two minutes, and never more than are kept."""

from datetime import timedelta

from server.sessions import CHALLENGE_LIFE, Challenges
from tests.support.fleet import NOW


def test_a_challenge_is_random_and_good_once() -> None:
    challenges = Challenges()
    first, second = challenges.make(NOW), challenges.make(NOW)
    assert first != second
    assert len(bytes.fromhex(first)) == 32
    assert challenges.burn(first, NOW)
    assert not challenges.burn(first, NOW)
    assert challenges.burn(second, NOW + CHALLENGE_LIFE - timedelta(seconds=1))


def test_an_old_challenge_is_burnt_but_not_good() -> None:
    challenges = Challenges()
    nonce = challenges.make(NOW)
    assert not challenges.burn(nonce, NOW + CHALLENGE_LIFE)
    assert not challenges.burn(nonce, NOW)


def test_the_oldest_challenges_make_room() -> None:
    challenges = Challenges(max_challenges=3)
    made = [challenges.make(NOW) for _ in range(5)]
    assert [challenges.burn(nonce, NOW) for nonce in made] == [False, False, True, True, True]


def test_challenges_that_have_expired_are_forgotten() -> None:
    challenges = Challenges()
    for _ in range(100):
        challenges.make(NOW)
    challenges.make(NOW + CHALLENGE_LIFE)
    assert len(challenges) == 1

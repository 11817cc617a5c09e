"""A login is good once: alone, beside others, and beside itself."""

from datetime import timedelta

from server.store import Store
from server.store_logins import LOGIN_TAKES, LOGIN_TOLERANCE, NewLogin
from tests.support.fleet import NOW, FleetAgent

SKEW = timedelta(seconds=90)


def login(agent: FleetAgent, number: int = 0, *, questions: int = 1) -> NewLogin:
    """Make a login; the agent's clock is ahead."""
    return NewLogin(agent.id, number.to_bytes(16, "big"), NOW + SKEW, questions)


def test_a_login_is_good_once(store: Store) -> None:
    agent = FleetAgent(store)
    assert store.record_logins([login(agent)], NOW) == [1]
    assert store.record_logins([login(agent)], NOW) == [0]
    assert store.record_logins([login(agent, 1)], NOW) == [1]


def test_a_login_that_is_asked_about_twice_is_good_for_two_questions(store: Store) -> None:
    agent, other = FleetAgent(store), FleetAgent(store, "web2")
    twice = login(agent, questions=2)
    assert [store.record_logins([twice], NOW) for _ in range(4)] == [[1], [2], [0], [0]]
    assert store.record_logins([login(agent)], NOW) == [0]
    # What another broker asks once is used up by one question, whoever asks the second.
    assert store.record_logins([login(other)], NOW) == [1]
    assert store.record_logins([login(other)], NOW) == [0]


def test_a_second_question_counts_only_while_the_broker_may_still_be_at_that_login(store: Store) -> None:
    agent = FleetAgent(store)
    for number, (after, expected) in enumerate([(LOGIN_TAKES, 0), (LOGIN_TAKES - timedelta(seconds=1), 2)]):
        one = login(agent, number, questions=2)
        assert store.record_logins([one], NOW) == [1]
        assert store.record_logins([one], NOW + after) == [expected]


def test_logins_of_both_kinds_of_brokers_are_kept_in_one_batch(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(4)]
    batch = [login(agent, questions=1 + number % 2) for number, agent in enumerate(agents)]
    assert store.record_logins(batch, NOW) == [1, 1, 1, 1]
    assert store.record_logins(batch, NOW) == [0, 2, 0, 2]
    assert store.record_logins(batch, NOW) == [0, 0, 0, 0]


def test_of_the_same_login_several_times_in_one_batch_one_is_good(store: Store) -> None:
    agent, other = FleetAgent(store), FleetAgent(store, "web2")
    one = login(agent)
    batch = [one, login(other), one, login(agent, 1), login(agent)]
    assert store.record_logins(batch, NOW) == [1, 1, 0, 1, 0]
    assert store.record_logins(batch, NOW) == [0] * 5


def test_a_login_that_was_used_spoils_no_other_of_its_batch(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(5)]
    store.record_logins([login(agents[2])], NOW)
    assert store.record_logins(list(map(login, agents)), NOW) == [1, 1, 0, 1, 1]


def test_a_batch_of_a_fleet_is_kept_as_a_whole(store: Store) -> None:
    agent = FleetAgent(store)
    batch = [login(agent, number) for number in range(2500)]
    assert store.record_logins(batch, NOW) == [1] * 2500
    assert store.record_logins(batch, NOW) == [0] * 2500


def test_a_login_says_how_far_off_the_agents_clock_is(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(3)]
    store.record_logins([login(agent) for agent in agents[:2]], NOW)
    rows = store.get_agents([agent.id for agent in agents])
    assert [rows[agent.id].clock_skew_s for agent in agents] == [90, 90, 0]


def test_a_login_is_forgotten_when_its_time_is_too_old_to_come_again(store: Store) -> None:
    agent = FleetAgent(store)
    later = NOW + SKEW + LOGIN_TOLERANCE
    store.record_logins([login(agent)], NOW)
    assert store.record_logins([login(agent)], later) == [0]
    assert store.record_logins([login(agent)], later + timedelta(seconds=1)) == [1]


def test_no_login_is_none(store: Store) -> None:
    assert store.record_logins([], NOW) == []

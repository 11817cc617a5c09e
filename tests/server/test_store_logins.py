"""A login is good once: alone, beside others, and beside itself."""

from datetime import timedelta

from server.store import Store
from server.store_logins import LOGIN_TOLERANCE, NewLogin
from tests.support.fleet import NOW, FleetAgent

SKEW = timedelta(seconds=90)


def login(agent: FleetAgent, number: int = 0) -> NewLogin:
    """Make a login; the agent's clock is ahead."""
    return NewLogin(agent.id, number.to_bytes(16, "big"), NOW + SKEW)


def test_a_login_is_good_once(store: Store) -> None:
    agent = FleetAgent(store)
    assert store.record_logins([login(agent)], NOW) == [True]
    assert store.record_logins([login(agent)], NOW) == [False]
    assert store.record_logins([login(agent, 1)], NOW) == [True]


def test_of_the_same_login_several_times_in_one_batch_one_is_good(store: Store) -> None:
    agent, other = FleetAgent(store), FleetAgent(store, "web2")
    one = login(agent)
    batch = [one, login(other), one, login(agent, 1), login(agent)]
    assert store.record_logins(batch, NOW) == [True, True, False, True, False]
    assert store.record_logins(batch, NOW) == [False] * 5


def test_a_login_that_was_used_spoils_no_other_of_its_batch(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(5)]
    store.record_logins([login(agents[2])], NOW)
    assert store.record_logins(list(map(login, agents)), NOW) == [True, True, False, True, True]


def test_a_batch_of_a_fleet_is_kept_as_a_whole(store: Store) -> None:
    agent = FleetAgent(store)
    batch = [login(agent, number) for number in range(2500)]
    assert store.record_logins(batch, NOW) == [True] * 2500
    assert store.record_logins(batch, NOW) == [False] * 2500


def test_a_login_says_how_far_off_the_agents_clock_is(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(3)]
    store.record_logins([login(agent) for agent in agents[:2]], NOW)
    rows = store.get_agents([agent.id for agent in agents])
    assert [rows[agent.id].clock_skew_s for agent in agents] == [90, 90, 0]


def test_a_login_is_forgotten_when_its_time_is_too_old_to_come_again(store: Store) -> None:
    agent = FleetAgent(store)
    later = NOW + SKEW + LOGIN_TOLERANCE
    store.record_logins([login(agent)], NOW)
    assert store.record_logins([login(agent)], later) == [False]
    assert store.record_logins([login(agent)], later + timedelta(seconds=1)) == [True]


def test_no_login_is_none(store: Store) -> None:
    assert store.record_logins([], NOW) == []

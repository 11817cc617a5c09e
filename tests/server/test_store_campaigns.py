"""Paced actions in the store, on each database."""

import json
import threading
from collections import Counter
from datetime import timedelta

import pytest

from protocol.action import Action
from protocol.documents import Pacing
from server.store import Store
from tests.support.fleet import ADA, NOW, FleetAgent, create, make_action, states

MINUTE = timedelta(minutes=1)


def make_fleet(store: Store, count: int) -> list[FleetAgent]:
    return [FleetAgent(store, f"web{number:02}") for number in range(count)]


def waiting(store: Store, action: Action) -> list[str]:
    """Return the agents whose commands are to be published now."""
    return sorted(row.agent_id for row in store.pending_commands(NOW, 1000) if row.action_id == action.id)


def waves(store: Store, action: Action) -> Counter[int]:
    return Counter(row.wave for row in store.list_commands(action.id))


def test_a_paced_action_is_held_back_and_goes_out_in_its_waves(store: Store) -> None:
    fleet = make_fleet(store, 5)
    action = make_action()
    pacing = Pacing(waves=(1, 2))
    assert create(store, action, *fleet, pacing=pacing).commands == 5
    assert waiting(store, action) == []
    assert store.running_campaigns() == [action.id]
    row = store.get_action(action.id)
    assert row is not None
    assert row.campaign == store.get_campaign(action.id)
    assert row.campaign is not None
    assert (row.campaign.pacing, row.campaign.state, row.campaign.held) == (pacing, "running", 5)

    assert store.advance_campaign(action.id, NOW).released == 1
    assert store.advance_campaign(action.id, NOW).released == 0
    [first] = [agent for agent in fleet if agent.id in waiting(store, action)]
    store.mark_sent([first.command(action)], NOW)
    store.save_results([first.answer(action)], NOW)
    assert store.advance_campaign(action.id, NOW).released == 2
    assert waves(store, action) == {0: 2, 1: 1, 2: 2}
    second = [agent for agent in fleet if agent.id in waiting(store, action)]
    store.mark_sent([agent.command(action) for agent in second], NOW)
    store.save_results([second[0].answer(action)], NOW)
    silent = store.advance_campaign(action.id, NOW)
    assert (silent.released, silent.look_again) == (0, NOW + MINUTE)
    assert store.advance_campaign(action.id, NOW + MINUTE).released == 2
    assert store.running_campaigns() == []
    campaign = store.get_campaign(action.id)
    assert campaign is not None
    assert (campaign.state, campaign.wave, campaign.held) == ("ended", 3, 0)
    assert waves(store, action) == {1: 1, 2: 2, 3: 2}


def test_agents_that_are_online_go_first(store: Store) -> None:
    away = [FleetAgent(store, f"away{number}", now=NOW - timedelta(hours=1)) for number in range(6)]
    here = FleetAgent(store, "here")
    action = make_action()
    create(store, action, *away, here, pacing=Pacing(waves=(1,)))
    store.advance_campaign(action.id, NOW)
    assert waiting(store, action) == [here.id]


def test_an_action_like_any_other_is_no_campaign(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    assert waiting(store, action) == [agent.id]
    assert store.running_campaigns() == []
    assert store.get_campaign(action.id) is None
    assert store.advance_campaign(action.id, NOW).released == 0


def test_a_failing_first_wave_cancels_all_that_was_not_sent_and_says_why(store: Store) -> None:
    fleet = make_fleet(store, 4)
    action = make_action()
    create(store, action, *fleet, pacing=Pacing(waves=(1,), stop_at=50))
    store.advance_campaign(action.id, NOW)
    [first] = [agent for agent in fleet if agent.id in waiting(store, action)]
    store.save_results([first.answer(action, status="failed", results=[])], NOW)
    stopped = store.advance_campaign(action.id, NOW)
    assert {change.state.value for change in stopped.changes} == {"cancelled"}
    assert (len(stopped.changes), stopped.released) == (3, 0)
    assert Counter(states(store, action).values()) == {"failed": 1, "cancelled": 3}
    campaign = store.get_campaign(action.id)
    assert campaign is not None
    assert (campaign.state, campaign.held) == ("stopped", 0)
    assert campaign.reason == "1 of 1 answers failed, which is 50% or more; wave 1"
    problems = [row.problem for row in store.list_commands(action.id) if row.state.value == "cancelled"]
    assert {(problem.code, problem.detail) for problem in problems if problem} == {
        ("stopped", campaign.reason)
    }
    assert store.advance_campaign(action.id, NOW).changes == []
    assert waiting(store, action) == []
    entries = [json.loads(data) for _, data in store.list_audit(0, 100)[0]]
    [asked] = [entry["what"] for entry in entries if entry["kind"] == "action"]
    assert asked["pacing"] == {
        "waves": [1],
        "concurrency": None,
        "rate": None,
        "stop_at": 50,
        "wave_wait_s": 60,
    }
    [said] = [entry["what"] for entry in entries if entry["kind"] == "stopped"]
    assert said == {"action": action.id, "wave": 1, "answered": 1, "failed": 1, "cancelled": 3}


def test_what_was_sent_when_a_campaign_is_stopped_may_still_answer(store: Store) -> None:
    fleet = make_fleet(store, 3)
    action = make_action()
    create(store, action, *fleet, pacing=Pacing(waves=(2,), stop_at=50, wave_wait_s=10))
    store.advance_campaign(action.id, NOW)
    first, second = (agent for agent in fleet if agent.id in waiting(store, action))
    store.mark_sent([first.command(action), second.command(action)], NOW)
    store.save_results([first.answer(action, status="timed-out", results=[])], NOW)
    assert store.advance_campaign(action.id, NOW).changes == []
    assert len(store.advance_campaign(action.id, NOW + timedelta(seconds=10)).changes) == 1
    [change] = store.save_results([second.answer(action)], NOW + MINUTE)
    assert change.state.value == "done"


def test_a_cancel_ends_what_is_held_back(store: Store) -> None:
    fleet = make_fleet(store, 3)
    action = make_action()
    create(store, action, *fleet, pacing=Pacing(rate=1))
    store.advance_campaign(action.id, NOW)
    changes = store.save_cancel(action.id, b"envelope", [ADA], ADA, store.list_concerned(action.id), NOW)
    assert len(changes) == 3
    assert store.advance_campaign(action.id, NOW).released == 0
    assert store.running_campaigns() == []


def test_what_is_held_back_expires_with_its_action(store: Store) -> None:
    fleet = make_fleet(store, 3)
    action = make_action()
    create(store, action, *fleet, pacing=Pacing(concurrency=1))
    store.advance_campaign(action.id, NOW)
    assert len(store.expire_commands(action.expireafter)) == 3
    assert store.advance_campaign(action.id, action.expireafter).released == 0
    assert store.running_campaigns() == []


def test_pacing_that_comes_with_the_same_action_again_changes_nothing(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    assert not create(store, action, agent, pacing=Pacing(rate=1)).is_new
    assert store.get_campaign(action.id) is None
    assert waiting(store, action) == [agent.id]


@pytest.mark.slow
def test_servers_that_look_at_once_let_out_no_more_than_one_would(store: Store) -> None:
    fleet = make_fleet(store, 40)
    action = make_action()
    create(store, action, *fleet, pacing=Pacing(waves=(5,), concurrency=8))
    released: list[int] = []
    together = threading.Barrier(4)

    def look() -> None:
        together.wait()
        released.extend(store.advance_campaign(action.id, NOW).released for _ in range(5))

    for expected in (5, 0):
        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(released) == expected
        released.clear()
    for agent in fleet:
        if agent.id in waiting(store, action):
            store.save_results([agent.answer(action)], NOW)
    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(released) == 8
    assert waves(store, action) == {0: 27, 1: 5, 2: 8}

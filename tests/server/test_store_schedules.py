"""Recurring actions and cancels in the store, on each database."""

from datetime import datetime, timedelta

import msgspec

from protocol.action import Action
from protocol.names import command_id
from protocol.schedule import Schedule, format_occurrence
from protocol.target import parse_target
from server.store import Store
from tests.support.fleet import ADA, NOW, FleetAgent, create, make_action, states

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def make_hourly(**schedule: object) -> Action:
    """Return an action that recurs an hour after its validity begins, which is a minute ago."""
    members = {"every_s": 3600, "grace_s": 600, **schedule}
    return msgspec.structs.replace(make_action(minutes=7200), schedule=msgspec.convert(members, Schedule))


def at(action: Action, number: int) -> datetime:
    return action.validfrom + number * HOUR


def test_an_action_with_a_schedule_makes_commands_when_its_occurrences_are_started(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_hourly()
    assert create(store, action, agent).commands == 0
    assert store.pending_commands(NOW, 10) == []
    start = store.next_start()
    assert start == at(action, 1) + 2 * SECOND
    assert store.recurrences_to_start(start - SECOND) == []
    (recurrence,) = store.recurrences_to_start(start)
    assert (recurrence.action, recurrence.occurrence) == (action, "")
    assert store.start_occurrence(action, [agent.id], start) == 1
    (command,) = store.pending_commands(start, 10)
    assert command.id == command_id(action.id, agent.id, format_occurrence(at(action, 1)))
    assert command.expireafter == at(action, 1) + timedelta(seconds=600)
    assert store.next_start() == at(action, 2) + 2 * SECOND
    row = store.get_action(action.id)
    assert row is not None
    assert (row.occurrence, row.next_start) == (format_occurrence(at(action, 1)), store.next_start())


def test_an_occurrence_is_started_once_for_each_agent(store: Store) -> None:
    first, late = FleetAgent(store), FleetAgent(store, "web2")
    action = make_hourly()
    create(store, action)
    now = at(action, 1) + 3 * SECOND
    occurrence = format_occurrence(at(action, 1))
    assert store.start_occurrence(action, [first.id], now) == 1
    assert store.start_occurrence(action, [first.id], now) == 0
    target = parse_target(action.target)
    everyone = [first.id, late.id]
    missing = store.find_without_occurrence(action.id, occurrence, target, everyone, now)
    assert missing == [late.id]
    assert store.start_occurrence(action, missing, now) == 1
    assert len(store.list_commands(action.id, occurrence)) == 2
    nobody = parse_target("os = 'plan9'")
    assert store.find_without_occurrence(action.id, "2026-11-20T00:00:00Z", nobody, everyone, now) == []


def test_what_was_missed_is_not_made_up_for(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_hourly()
    create(store, action, agent)
    now = at(action, 5) + timedelta(minutes=30)
    assert store.start_occurrence(action, [agent.id], now) == 0
    assert store.recurrences_due(now) == []
    assert store.next_start() == at(action, 6) + 2 * SECOND


def test_a_schedule_ends_with_its_last_occurrence(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_hourly(max_runs=1)
    create(store, action, agent)
    assert store.start_occurrence(action, [agent.id], at(action, 1) + 3 * SECOND) == 1
    assert store.next_start() is None


def test_answers_belong_to_their_occurrence(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_hourly()
    create(store, action, agent)
    names = [format_occurrence(at(action, number)) for number in (1, 2)]
    for number, name in enumerate(names, start=1):
        now = at(action, number) + 3 * SECOND
        store.start_occurrence(action, [agent.id], now)
        assert len(store.save_results([agent.answer(action, occurrence=name)], now)) == 1
    assert store.save_results([agent.answer(action, occurrence="2026-11-20T00:00:00Z")], NOW) == []
    assert [row.occurrence for row in store.list_results(action.id, 0, 10)] == names
    assert [row.occurrence for row in store.list_results(action.id, 0, 10, names[1])] == names[1:]


def test_a_cancel_ends_what_waits_and_is_kept_for_those_who_hold_the_rest(store: Store) -> None:
    waiting, told, ran = (FleetAgent(store, name) for name in ("waiting", "told", "ran"))
    action = make_action()
    create(store, action, waiting, told, ran)
    store.mark_sent([told.command(action), ran.command(action)], NOW)
    store.save_results([ran.answer(action)], NOW)
    concerned = store.list_concerned(action.id)
    assert set(concerned) == {waiting.id, told.id}
    changes = store.save_cancel(action.id, b"envelope", [ADA], ADA, concerned, NOW)
    assert [change.agent_id for change in changes] == [waiting.id]
    assert states(store, action) == {"waiting": "cancelled", "told": "sent", "ran": "done"}
    (cancel,) = store.cancels_to_send(NOW)
    assert (cancel.envelope, set(cancel.agent_ids)) == (b"envelope", {waiting.id, told.id})
    store.mark_cancel_sent(action.id, [told.id])
    assert [cancel.agent_ids for cancel in store.cancels_to_send(NOW)] == [(told.id,)]
    store.mark_cancel_sent(action.id, [])
    assert store.cancels_to_send(NOW) == []
    assert [cancel.agent_ids for cancel in store.cancels_for(told.id, NOW)] == [(told.id,)]
    assert store.cancels_for(ran.id, NOW) == []
    row = store.get_action(action.id)
    assert row is not None
    assert row.cancelled == NOW


def test_what_ran_before_the_cancel_came_is_shown_as_it_ended(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    store.save_cancel(action.id, b"envelope", [ADA], ADA, [agent.id], NOW)
    assert states(store, action) == {"web1": "cancelled"}
    store.save_results([agent.answer(action)], NOW)
    assert states(store, action) == {"web1": "done"}


def test_a_cancelled_schedule_starts_nothing_more(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_hourly()
    create(store, action, agent)
    store.save_cancel(action.id, b"envelope", [ADA], ADA, [agent.id], NOW)
    now = at(action, 1) + 3 * SECOND
    assert store.next_start() is None
    assert store.recurrences_to_start(now) == []
    assert store.start_occurrence(action, [agent.id], now) == 0
    assert store.next_start() is None

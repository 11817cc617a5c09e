"""Deleting what is old, on each database."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from protocol.documents import Pacing
from protocol.schedule import Schedule, format_occurrence
from server.config import ServerConfig
from server.database import Database
from server.retention import Retention
from server.store import Store
from tests.support.fleet import ADA, NOW, FleetAgent, create, digest, make_action, states

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def delete_old(
    database: Database,
    now: datetime,
    *,
    answers: int = 0,
    actions: int = 0,
    is_clock_right: bool = True,
) -> None:
    """Delete what is old by some time, as a server does with these settings; an agent tells that time too."""
    config = ServerConfig(
        name="mig",
        url="http://127.0.0.1:1664",
        listen="127.0.0.1:1664",
        broker_auth_listen="127.0.0.1:1665",
        database="sqlite:///unused",
        relay="amqp://unused",
        state_dir="/unused",
        agents_dir="/unused",
        keep_answers_days=answers,
        keep_actions_days=actions,
    )
    store = Store(database)
    if is_clock_right:
        FleetAgent(store, "clock", now=now)
    retention = Retention(config=config, database=database, store=store, clock=lambda: now)
    asyncio.run(retention.delete_old())


def deletions(store: Store) -> list[dict[str, Any]]:
    """Return what the audit log says of deletions."""
    entries = [json.loads(data) for _, data in store.list_audit(0, 1000)[0]]
    return [entry["what"] for entry in entries if entry["kind"] == "deleted"]


def test_without_a_word_of_the_operator_nothing_is_ever_deleted(store: Store, database: Database) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    store.save_results([agent.answer(action)], NOW)
    delete_old(database, NOW + 36500 * DAY)
    assert len(store.list_results(action.id, 0, 10)) == 1
    assert deletions(store) == []


def test_old_answers_go_and_are_counted_and_their_roster_stays(store: Store, database: Database) -> None:
    fleet = [FleetAgent(store, f"web{number}") for number in range(3)]
    action = make_action()
    create(store, action, *fleet)
    store.save_results([agent.answer(action) for agent in fleet[:2]], NOW)
    store.save_results([fleet[2].answer(action)], NOW + 5 * DAY)
    delete_old(database, NOW + 7 * DAY, answers=7)
    assert len(store.list_results(action.id, 0, 10)) == 3
    delete_old(database, NOW + 8 * DAY, answers=7)
    assert [row.agent_name for row in store.list_results(action.id, 0, 10)] == ["web2"]
    row = store.get_action(action.id)
    assert row is not None
    assert (row.deleted_answers, set(states(store, action).values())) == (2, {"done"})
    assert deletions(store) == [{"answers": [[action.id, 2]]}]
    assert store.save_results([fleet[0].answer(action)], NOW + 8 * DAY) == []  # the same answer, once more


def test_old_actions_go_with_all_that_belongs_to_them_and_are_remembered(
    store: Store, database: Database
) -> None:
    fleet = [FleetAgent(store, f"web{number}") for number in range(3)]
    old, young = make_action(), make_action(now=NOW + 40 * DAY)
    create(store, old, *fleet, pacing=Pacing(waves=(2,)))
    store.advance_campaign(old.id, NOW)
    store.save_results([fleet[0].answer(old)], NOW)
    store.save_cancel(old.id, b"envelope", [ADA], ADA, [], NOW)
    store.expire_commands(old.expireafter)
    create(store, young, *fleet, now=NOW + 40 * DAY)
    delete_old(database, NOW + 45 * DAY, answers=30, actions=30)
    assert store.get_action(old.id) is None
    assert store.list_commands(old.id) == []
    assert store.list_results(old.id, 0, 10) == []
    assert store.find_deletion(old.id) == NOW + 45 * DAY
    assert store.find_deletion(young.id) is None
    assert set(states(store, young).values()) == {"pending"}
    assert deletions(store) == [
        {"answers": [[old.id, 1]]},
        {"commands": [[old.id, 3]]},
        {"actions": [[old.id, digest(old)]]},
    ]


@pytest.mark.parametrize("state", ["pending", "sent", "acknowledged"])
def test_what_has_not_ended_is_never_deleted(store: Store, database: Database, state: str) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    if state != "pending":
        store.mark_sent([agent.command(action)], NOW)
    if state == "acknowledged":
        store.save_heartbeat(agent.heartbeat(commands=(agent.command(action),)), NOW)
    delete_old(database, NOW + 400 * DAY, answers=30, actions=30)
    assert states(store, action) == {"web1": state}


def test_an_action_that_is_still_valid_stays_though_it_was_answered_long_ago(
    store: Store, database: Database
) -> None:
    agent = FleetAgent(store)
    action = make_action(minutes=30 * 24 * 60)
    create(store, action, agent)
    store.save_results([agent.answer(action)], NOW)
    delete_old(database, NOW + 20 * DAY, answers=1, actions=1)
    assert states(store, action) == {"web1": "done"}


def test_a_late_answer_keeps_its_command(store: Store, database: Database) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    store.expire_commands(action.expireafter)
    store.save_results([agent.answer(action)], NOW + 29 * DAY)
    delete_old(database, NOW + 45 * DAY, answers=30, actions=30)
    assert len(store.list_results(action.id, 0, 10)) == 1
    delete_old(database, NOW + 60 * DAY, answers=30, actions=30)
    assert store.get_action(action.id) is None


def test_old_occurrences_of_an_action_that_still_recurs_go_and_it_stays(
    store: Store, database: Database
) -> None:
    agent = FleetAgent(store)
    action = msgspec.structs.replace(
        make_action(minutes=60 * 24 * 60), schedule=Schedule(every_s=3600, grace_s=600)
    )
    create(store, action)
    times = [action.validfrom + HOUR, action.validfrom + 24 * 40 * HOUR]
    for time in times:
        now = time + timedelta(seconds=3)
        store.start_occurrence(action, [agent.id], now)
        store.save_results([agent.answer(action, occurrence=format_occurrence(time))], now)
    delete_old(database, times[1] + HOUR, answers=7, actions=30)
    assert [row.occurrence for row in store.list_commands(action.id)] == [format_occurrence(times[1])]
    assert [row.occurrence for row in store.list_results(action.id, 0, 10)] == [format_occurrence(times[1])]
    row = store.get_action(action.id)
    assert row is not None
    assert row.deleted_answers == 1


@pytest.mark.parametrize("ahead", [2 * DAY, 3650 * DAY])
def test_a_clock_that_nobody_else_has_deletes_nothing(
    store: Store, database: Database, ahead: timedelta
) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(3)]
    action = make_action()
    create(store, action, *agents)
    store.save_results([agent.answer(action) for agent in agents], NOW)
    wrong = NOW + ahead
    delete_old(database, wrong, answers=1, actions=1, is_clock_right=False)
    assert deletions(store) == []  # nobody was heard: their last heartbeats came before the clock jumped
    for agent in agents:
        store.save_heartbeat(agent.heartbeat(NOW), wrong)
    delete_old(database, wrong, answers=1, actions=1, is_clock_right=False)
    assert deletions(store) == []
    for agent in agents[1:]:  # one clock that is wrong says nothing
        store.save_heartbeat(agent.heartbeat(wrong), wrong)
    delete_old(database, wrong, answers=1, actions=1, is_clock_right=False)
    assert deletions(store)


def test_more_than_one_batch_is_deleted(store: Store, database: Database) -> None:
    agent = FleetAgent(store)
    for _ in range(7):
        action = make_action()
        create(store, action, agent)
        store.save_results([agent.answer(action)], NOW)
    now = NOW + 60 * DAY
    assert store.delete_answers(now, now, 3) == 3
    assert [store.delete_commands(now, now, 3) for _ in range(4)] == [3, 3, 1, 0]
    assert [store.delete_actions(now, now, 3) for _ in range(4)] == [3, 3, 1, 0]
    assert store.list_actions(10, 0) == (0, [])


def test_the_size_of_the_database_is_told(store: Store, database: Database) -> None:
    size, free = store.size_bytes()
    assert size > 0
    assert 0 <= free < size
    if database.dialect == "sqlite":
        with database.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE filler (x)")
            connection.exec_driver_sql("INSERT INTO filler VALUES (zeroblob(1000000))")
            connection.exec_driver_sql("DROP TABLE filler")
        assert store.size_bytes()[1] > free + 900_000

"""Actions in the store, on each database."""

import threading
from datetime import timedelta

import msgspec
import pytest

from protocol.envelope import ACTION, decode_envelope
from protocol.errors import InvalidInput
from server import store_actions
from server.store import Store
from tests.support.fleet import ADA, LATER, NOW, FleetAgent, create, digest, make_action, states

BOB = "B" * 40


def test_an_action_and_its_commands_are_stored_together(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(3)]
    action = make_action(name="käfer \N{SNOWMAN}")
    created = create(store, action, *agents)
    assert (created.commands, created.is_new) == (3, True)
    row = store.get_action(action.id)
    assert row is not None
    assert (row.name, row.target, row.validfrom, row.expireafter) == (
        action.name,
        action.target,
        action.validfrom,
        action.expireafter,
    )
    assert (row.signers, row.submitter, row.digest, row.counts) == (
        (ADA,),
        ADA,
        digest(action),
        {"pending": 3},
    )
    assert states(store, action) == {"web0": "pending", "web1": "pending", "web2": "pending"}


def test_the_same_action_twice_makes_no_second_commands(store: Store) -> None:
    agent, late = FleetAgent(store), FleetAgent(store, "late")
    action = make_action()
    create(store, action, agent)
    again = create(store, action, agent, late)
    assert (again.commands, again.is_new) == (0, False)
    assert states(store, action) == {"web1": "pending"}


def test_the_same_id_with_another_payload_is_a_conflict(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    with pytest.raises(InvalidInput, match="conflict: action"):
        create(store, msgspec.structs.replace(action, name="other"), agent)
    row = store.get_action(action.id)
    assert row is not None
    assert row.name == "look"


def test_of_many_who_create_one_action_at_once_one_does(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(5)]
    action = make_action()
    created = []
    threads = [
        threading.Thread(target=lambda: created.append(create(store, action, *agents))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((item.is_new, item.commands) for item in created) == [(False, 0)] * 3 + [(True, 5)]


def test_agents_that_are_not_enrolled_get_no_command(store: Store) -> None:
    enrolled, waiting, out = (
        FleetAgent(store, "in"),
        FleetAgent(store, "wait", policy="approval"),
        FleetAgent(store),
    )
    store.revoke_agent(out.id, NOW)
    action = make_action()
    assert create(store, action, enrolled, waiting, out, enrolled).commands == 1
    assert states(store, action) == {"in": "pending"}


@pytest.mark.parametrize("name", ["nul\0byte", "lone \ud800 surrogate"])
def test_an_action_that_no_database_can_hold_is_refused(store: Store, name: str) -> None:
    action = make_action()
    with pytest.raises(InvalidInput, match="bad-action: name holds a character"):
        store.create_action(
            msgspec.structs.replace(action, name=name), b"{}", digest(action), [ADA], ADA, [], NOW
        )


def test_a_second_signature_is_added_and_asks_those_again_who_refused(store: Store) -> None:
    refusing, done = FleetAgent(store, "refusing"), FleetAgent(store, "done")
    action = make_action()
    create(store, action, refusing, done)
    problem = {"code": "acl-refused", "step": 9, "detail": "needs weight 2"}
    refusal = refusing.answer(action, status="refused", problem=problem, results=[])
    store.save_results([refusal, done.answer(action)], NOW)
    assert states(store, action) == {"refusing": "refused", "done": "done"}
    again = create(store, action, signers=(BOB,))
    assert (again.commands, again.is_new) == (1, False)
    row = store.get_action(action.id)
    assert row is not None
    assert row.signers == (ADA, BOB)
    assert [signature.keyid for signature in decode_envelope(row.envelope, ACTION).signatures] == [ADA, BOB]
    assert states(store, action) == {"refusing": "pending", "done": "done"}
    [pending] = store.pending_commands(NOW, 10)
    assert pending.body == row.envelope
    assert create(store, action, signers=(BOB,)).commands == 0


def test_actions_are_listed_newest_first_and_in_pages(store: Store) -> None:
    made = [make_action(name=f"action {number}") for number in range(3)]
    for number, action in enumerate(made):
        create(store, action, now=NOW + timedelta(seconds=number))
    total, rows = store.list_actions(2, 0)
    assert (total, [row.name for row in rows]) == (3, ["action 2", "action 1"])
    assert [row.name for row in store.list_actions(2, 2)[1]] == ["action 0"]
    assert store.get_action("0" * 36) is None


def test_answers_come_in_the_order_of_their_arrival_behind_the_last_one_seen(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(4)]
    action, other = make_action(), make_action()
    create(store, action, *agents)
    create(store, other, *agents)
    for agent in agents:
        store.save_results([agent.answer(other), agent.answer(action)], LATER)
    rows = store.list_results(action.id, 0, 100)
    assert [row.agent_name for row in rows] == ["web0", "web1", "web2", "web3"]
    assert [row.seq for row in rows] == sorted({row.seq for row in rows})
    assert [row.agent_name for row in store.list_results(action.id, rows[1].seq, 1)] == ["web2"]
    assert store.list_results(action.id, rows[3].seq, 10) == []
    assert rows[0].public_key == agents[0].public_key


def test_a_page_of_large_answers_is_cut_but_never_empty(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(3)]
    action = make_action()
    create(store, action, *agents)
    store.save_results([agent.answer(action) for agent in agents], LATER)
    monkeypatch.setattr(store_actions, "MAX_PAGE_BYTES", 1)
    assert [row.agent_name for row in store.list_results(action.id, 0, 100)] == ["web0"]


def test_open_commands_are_those_that_have_not_ended(store: Store) -> None:
    first, second = FleetAgent(store, "first"), FleetAgent(store, "second")
    action = make_action()
    create(store, action, first, second)
    store.mark_sent([second.command(action)], NOW)
    assert store.open_commands(action.id) == {first.command(action), second.command(action)}
    store.save_results([first.answer(action)], NOW)
    assert store.open_commands(action.id) == {second.command(action)}
    assert store.count_commands(action.id) == {"done": 1, "sent": 1}

"""Agents in the store, on each database."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from protocol.documents import Agent, AgentStatus
from protocol.errors import InvalidInput
from protocol.target import parse_target
from server.api.documents import agent_document
from server.rows import Said
from server.store import Store
from tests.support.fleet import NOW, FleetAgent, create, make_action, states

UNSTORABLE = ["nul\0byte", "lone \ud800 surrogate"]


def names(store: Store, text: str) -> list[str]:
    total, rows = store.find_agents(parse_target(text), NOW, 100, 0)
    assert total == len(rows)
    return [row.name for row in rows]


def test_an_agent_is_enrolled_once_and_keeps_what_it_was(store: Store) -> None:
    agent = FleetAgent(store)
    again = store.enrol_agent(agent.id, agent.public_key, "approval", NOW + timedelta(days=1))
    assert (again.enrolment, again.enrolled, again.public_key) == ("enrolled", NOW, agent.public_key)
    assert store.get_agent(agent.id) == again
    assert store.get_agent("0" * 32) is None


def test_a_heartbeat_is_kept_with_the_skew_of_its_clock(store: Store) -> None:
    agent = FleetAgent(store)
    store.save_heartbeat(agent.heartbeat(NOW + timedelta(minutes=7), tags={"a": "b"}), NOW)
    row = store.get_agent(agent.id)
    assert row is not None
    assert (row.clock_skew_s, row.heartbeattime, row.tags, row.environment) == (
        420,
        NOW,
        {"a": "b"},
        {"init": "systemd"},
    )
    assert row.modules == ("agentinfo", "file")


@pytest.mark.parametrize("text", UNSTORABLE)
@pytest.mark.parametrize("member", ["name", "ident", "tag", "tag key", "environment", "module"])
def test_text_that_no_database_can_hold_is_refused_and_changes_nothing(
    store: Store, member: str, text: str
) -> None:
    agent = FleetAgent(store)
    changed: dict[str, dict[str, Any]] = {
        "name": {"name": text},
        "ident": {"ident": text},
        "tag": {"tags": {"operator": text}},
        "tag key": {"tags": {text: "it"}},
        "environment": {"environment": {"init": text}},
        "module": {"modules": (text,)},
    }
    before = store.get_agent(agent.id)
    with pytest.raises(InvalidInput, match="bad-document: heartbeat holds a character"):
        store.save_heartbeat(agent.heartbeat(**changed[member]), NOW + timedelta(minutes=1))
    assert store.get_agent(agent.id) == before


def test_a_heartbeat_of_an_unknown_or_revoked_agent_changes_nothing(store: Store) -> None:
    agent = FleetAgent(store)
    assert store.save_heartbeat(agent.heartbeat(agent="0" * 32), NOW) == []
    store.revoke_agent(agent.id, NOW)
    store.save_heartbeat(agent.heartbeat(name="other"), NOW)
    row = store.get_agent(agent.id)
    assert row is not None
    assert row.name == "web1"


@pytest.mark.parametrize(
    ("age_s", "status"),
    [(0, "online"), (149, "online"), (150, "idle"), (1199, "idle"), (1200, "offline"), (-60, "online")],
)
def test_the_status_follows_the_age_of_the_heartbeat(store: Store, age_s: int, status: str) -> None:
    row = store.get_agent(FleetAgent(store).id)
    assert row is not None
    assert row.status(NOW + timedelta(seconds=age_s)) == AgentStatus(status)


def test_enrolment_overrules_the_heartbeat(store: Store) -> None:
    agent = FleetAgent(store, policy="approval")
    row = store.get_agent(agent.id)
    assert row is not None
    assert row.status(NOW) is AgentStatus.PENDING
    assert store.approve_agent(agent.id, NOW).status(NOW) is AgentStatus.ONLINE
    assert store.revoke_agent(agent.id, NOW).status(NOW) is AgentStatus.REVOKED


def test_an_agent_that_never_said_anything_is_offline(store: Store) -> None:
    assert store.enrol_agent("1" * 32, b"k" * 32, "open", NOW).status(NOW) is AgentStatus.OFFLINE


def test_approving_or_revoking_nobody_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput, match="not-found: no agent"):
        store.approve_agent("0" * 32, NOW)
    with pytest.raises(InvalidInput, match="not-found: no agent"):
        store.revoke_agent("0" * 32, NOW)


def test_agents_are_found_by_target_and_in_pages(store: Store) -> None:
    for name in ("web1", "web2", "db1"):
        FleetAgent(store, name)
    assert names(store, "name LIKE 'web%'") == ["web1", "web2"]
    assert names(store, "tags->>'operator' = 'it' AND NOT name = 'web2'") == ["db1", "web1"]
    assert names(store, "status = 'online'") == ["db1", "web1", "web2"]
    assert names(store, "os = 'windows'") == []
    assert [row.name for row in store.find_agents(None, NOW, 2, 1)[1]] == ["web1", "web2"]
    total, page = store.find_agents(parse_target("os = 'linux'"), NOW, 1, 1)
    assert (total, [row.name for row in page]) == (3, ["web1"])


def test_a_stranger_cannot_choose_a_name_that_spoils_the_list_of_agents(store: Store) -> None:
    """Its login may hold 511 letters, a client reads 255, and refuses a whole page for one."""
    store.enrol_agent("1" * 32, b"k" * 32, "approval", NOW, said=Said(name="\U0001f600" * 511))
    _, [row] = store.find_agents(None, NOW, 10, 0)
    shown = msgspec.json.encode(agent_document(row, NOW, ()))
    assert msgspec.json.decode(shown, type=Agent).name == "\U0001f600" * 255


def test_a_target_finds_agents_that_are_not_enrolled_only_where_it_names_a_status(store: Store) -> None:
    FleetAgent(store, "in")
    FleetAgent(store, "waiting", policy="approval")
    store.revoke_agent(FleetAgent(store, "out").id, NOW)
    assert names(store, "os = 'linux'") == ["in"]
    assert names(store, "status = 'pending'") == ["waiting"]
    assert names(store, "os = 'linux' AND status <> 'online'") == ["out", "waiting"]
    assert store.find_agents(None, NOW, 10, 0)[0] == 3
    assert store.find_commanded(parse_target("status = 'pending'"), NOW) == []


def test_a_heartbeat_acknowledges_the_agents_own_commands_only(store: Store) -> None:
    mine, other = FleetAgent(store, "mine"), FleetAgent(store, "other")
    action = make_action()
    create(store, action, mine, other)
    ids = (mine.command(action), other.command(action), "f" * 32)
    changes = store.save_heartbeat(mine.heartbeat(commands=ids), NOW)
    assert [(change.agent_name, change.state.value, change.seq) for change in changes] == [
        ("mine", "acknowledged", None)
    ]
    assert states(store, action) == {"mine": "acknowledged", "other": "pending"}
    assert store.save_heartbeat(mine.heartbeat(commands=ids), NOW) == []


def test_revoking_an_agent_cancels_what_waits_for_it(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    store.revoke_agent(agent.id, NOW)
    assert states(store, action) == {"web1": "cancelled"}
    assert store.pending_commands(NOW, 10) == []


def beat(store: Store, agent: FleetAgent, process: int, second: int) -> bool:
    """Send a heartbeat of one of several processes, and tell whether the agent is marked."""
    time, started = NOW + timedelta(seconds=second), NOW - timedelta(hours=process)
    store.save_heartbeat(agent.heartbeat(time, started=started), NOW)
    row = store.get_agent(agent.id)
    assert row is not None
    return row.is_duplicate(NOW)


@pytest.mark.parametrize(
    ("heard", "is_marked"),
    [
        ([(1, 1), (1, 2), (1, 3)], False),
        ([(1, 1), (2, 2), (2, 3), (3, 4)], False),
        ([(2, 5), (1, 1), (1, 2)], False),
        ([(1, 1), (2, 2), (1, 1), (2, 2)], False),
        ([(1, 1), (2, 2), (1, 3)], True),
        ([(1, 101), (2, 2), (1, 102)], True),
        ([(1, 1), (2, 2), (3, 3), (1, 4)], True),
    ],
    ids=["one", "restarts", "clock set back", "delivered twice", "two", "two, clocks apart", "three"],
)
def test_processes_that_speak_in_turn_under_one_id_are_noticed_and_restarts_are_not(
    store: Store, *, heard: list[tuple[int, int]], is_marked: bool
) -> None:
    agent = FleetAgent(store)
    assert [beat(store, agent, *each) for each in heard][-1] is is_marked
    row = store.get_agent(agent.id)
    assert row is not None
    assert not row.is_duplicate(NOW + timedelta(days=2))


def test_an_agent_that_says_it_removes_itself_takes_part_no_more(store: Store) -> None:
    agent = FleetAgent(store)
    store.save_heartbeat(agent.heartbeat(NOW + timedelta(seconds=1), leaving=True), NOW)
    row = store.get_agent(agent.id)
    assert row is not None
    assert (row.enrolment, row.status(NOW).value) == ("removed", "removed")
    assert store.find_commanded(parse_target("os = 'linux'"), NOW) == []
    assert store.enrolled_keys([agent.id]) == {agent.id: agent.public_key}
    assert store.count_agents(NOW)["removed"] == 1


def test_an_agent_that_was_revoked_does_not_become_one_that_left(store: Store) -> None:
    agent = FleetAgent(store)
    store.revoke_agent(agent.id, NOW)
    store.save_heartbeat(agent.heartbeat(NOW + timedelta(seconds=1), leaving=True), NOW)
    row = store.get_agent(agent.id)
    assert row is not None
    assert row.enrolment == "revoked"
    assert store.enrolled_keys([agent.id]) == {}

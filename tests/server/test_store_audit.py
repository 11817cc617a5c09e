"""The audit log in the store: what is recorded, in the same transaction, in one chain."""

import hashlib
import threading
from collections import Counter

import pytest

from protocol.audit import NO_HEAD, Chain, Entry
from protocol.errors import InvalidInput
from server.database import Database
from server.rows import AuditEvent
from server.store import Store
from tests.support.fleet import ADA, LATER, NOW, FleetAgent, create, digest, make_action

BOB = "B" * 40


def read_log(store: Store) -> list[Entry]:
    """Return the log, checked."""
    chain = Chain()
    entries = [chain.add(entry) for _, entry in store.list_audit(0, 1000)[0]]
    chain.require_complete()
    assert chain.head == store.audit_head()
    return entries


def said(store: Store, kind: str) -> list[tuple[tuple[str, ...], dict[str, object]]]:
    """Return who and what of the entries of one kind."""
    return [(entry.who, entry.what) for entry in read_log(store) if entry.kind == kind]


def test_an_empty_log_has_no_head(store: Store) -> None:
    assert store.audit_head() == NO_HEAD
    assert store.list_audit(0, 10) == ([], NO_HEAD)


def test_the_standing_of_investigators_and_agents_is_recorded(store: Store) -> None:
    store.add_investigator(ADA, "Ada", b"key", ("read", "submit"), NOW)
    store.create_session("0" * 64, ADA, LATER, NOW, address="192.0.2.1")
    store.set_investigator_status(ADA, "disabled", NOW)
    agent = FleetAgent(store, policy="approval")
    store.enrol_agent(agent.id, agent.public_key, "approval", NOW)
    store.approve_agent(agent.id, NOW)
    store.revoke_agent(agent.id, NOW)
    key = hashlib.sha256(b"key").hexdigest()
    assert [(entry.kind, entry.who, entry.what) for entry in read_log(store)] == [
        (
            "investigator",
            ("operator",),
            {"fingerprint": ADA, "rights": ["read", "submit"], "status": "active", "key_sha256": key},
        ),
        ("login", (ADA,), {"address": "192.0.2.1"}),
        ("investigator", ("operator",), {"fingerprint": ADA, "status": "disabled"}),
        ("enrolment", ("server",), {"agent": agent.id, "enrolment": "pending"}),
        ("enrolment", ("operator",), {"agent": agent.id, "enrolment": "enrolled"}),
        ("enrolment", ("operator",), {"agent": agent.id, "enrolment": "revoked"}),
    ]


def test_an_action_is_recorded_with_signers_digest_and_whom_it_was_for(store: Store) -> None:
    agents = [FleetAgent(store, name) for name in ("web1", "web2")]
    action = make_action()
    create(store, action, *agents)
    create(store, action, *agents)
    ids = "".join(f"{ident}\n" for ident in sorted(agent.id for agent in agents))
    asked = {"action": action.id, "sha256": digest(action), "signers": [ADA], "commands": 2}
    assert said(store, "action") == [
        ((ADA,), {**asked, "agents_sha256": hashlib.sha256(ids.encode()).hexdigest()})
    ]
    create(store, action, *agents, signers=(BOB,))
    assert said(store, "signature") == [((BOB,), {**asked, "signers": [BOB], "commands": 0})]


def test_how_commands_end_is_recorded_with_the_digests_of_their_answers(store: Store) -> None:
    agents = [FleetAgent(store, name) for name in ("web1", "web2", "web3")]
    action = make_action()
    create(store, action, *agents)
    answers = [agent.answer(action) for agent in agents[:2]]
    store.save_results(answers, NOW)
    store.save_results(answers, NOW)
    store.revoke_agent(agents[2].id, NOW)
    [(_, first), (_, second)] = said(store, "ended")
    assert first == {
        "action": action.id,
        "commands": [
            [agent.command(action), agent.id, "done", answer.digest]
            for agent, answer in zip(agents, answers, strict=False)
        ],
    }
    assert second["commands"] == [[agents[2].command(action), agents[2].id, "cancelled", ""]]


def test_expiry_is_recorded_by_action_in_entries_of_bounded_size(store: Store) -> None:
    agent = FleetAgent(store)
    actions = [make_action() for _ in range(3)]
    for action in actions:
        create(store, action, agent)
    store.expire_commands(LATER)
    ended = said(store, "ended")
    assert {str(what["action"]) for _, what in ended} == {action.id for action in actions}
    assert len(ended) == 3


def test_what_is_refused_is_not_recorded(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    before = store.audit_head()
    with pytest.raises(InvalidInput, match="conflict"):
        store.create_action(
            action,
            b'{"payloadType":"application/vnd.mig.action+json","payload":"","signatures":[]}',
            "0" * 64,
            (ADA,),
            ADA,
            (),
            NOW,
        )
    with pytest.raises(InvalidInput, match="not-found"):
        store.revoke_agent("f" * 32, NOW)
    assert store.audit_head() == before


def test_several_servers_append_to_one_chain(database: Database) -> None:
    stores = [Store(database) for _ in range(4)]
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for count in range(25):
                event = AuditEvent(kind="read", who=(f"server {number}",), what={"count": count})
                stores[number].record(event, NOW)
        except BaseException as error:  # noqa: BLE001  (told by the test)
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    entries = read_log(stores[0])
    assert Counter(entry.who for entry in entries) == {(f"server {number}",): 25 for number in range(4)}


def test_pages_of_the_log_follow_each_other(store: Store) -> None:
    for count in range(5):
        store.record(AuditEvent(kind="read", who=(ADA,), what={"count": count}), NOW)
    first, head = store.list_audit(0, 3)
    assert ([seq for seq, _ in first], head.seq) == ([1, 2, 3], 5)
    assert [seq for seq, _ in store.list_audit(3, 3)[0]] == [4, 5]

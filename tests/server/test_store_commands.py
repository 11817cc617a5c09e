"""Commands and answers in the store, on each database."""

import tempfile
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from protocol.command import CommandState, is_transition
from protocol.heartbeat import RunningCommand
from protocol.result import SealedResult
from server import schema
from server.checking import facts_of
from server.database import Database
from server.store import Store
from server.store_commands import ANSWER_GRACE
from tests.support.database import migrated_database
from tests.support.fleet import ADA, LATER, NOW, FleetAgent, create, make_action, states

SECOND = timedelta(seconds=1)


def test_pending_commands_carry_the_signed_envelope_and_come_in_order_of_expiry(store: Store) -> None:
    agent = FleetAgent(store)
    late, soon = make_action(minutes=9), make_action(minutes=2)
    create(store, late, agent)
    create(store, soon, agent)
    pending = store.pending_commands(NOW, 10)
    assert [command.id for command in pending] == [agent.command(soon), agent.command(late)]
    row = store.get_action(soon.id)
    assert row is not None
    assert (pending[0].body, pending[0].agent_id, pending[0].expireafter) == (
        row.envelope,
        agent.id,
        soon.expireafter,
    )
    assert len(store.pending_commands(NOW, 1)) == 1
    assert [command.action_id for command in store.pending_commands(soon.expireafter, 10)] == [late.id]


def test_the_body_of_an_action_stands_in_memory_once(store: Store) -> None:
    create(store, make_action(), *(FleetAgent(store, f"web{number}") for number in range(3)))
    assert len({id(command.body) for command in store.pending_commands(NOW, 10)}) == 1


def test_of_a_sealed_answer_the_state_is_known_and_nothing_else(store: Store, database: Database) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    plain = agent.answer(action)
    sealed = SealedResult(
        action=action.id,
        action_sha256=plain.facts.action_sha256,
        occurrence="",
        agent=agent.id,
        status="done",
        sealed_to=("A" * 40,),
        sealed=b"x",
    )
    [change] = store.save_results([msgspec.structs.replace(plain, facts=facts_of(sealed))], NOW)
    assert change.state.value == "done"
    assert [row.seq for row in store.list_results(action.id, 0, 10)] == [change.seq]
    with database.reading() as connection:
        row = connection.execute(sa.select(schema.results)).one()
    assert (row.state, row.found, row.started, row.finished) == ("done", None, None, None)


def test_sent_commands_are_no_longer_pending_and_may_become_so_again(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    ident = agent.command(action)
    assert [change.state.value for change in store.mark_sent([ident], NOW)] == ["sent"]
    assert store.mark_sent([ident], NOW) == []
    assert store.pending_commands(NOW, 10) == []
    assert [change.state.value for change in store.mark_pending([ident], NOW)] == ["pending"]
    assert [command.id for command in store.pending_commands(NOW, 10)] == [ident]


def test_an_answer_that_overtakes_the_brokers_confirmation_stays(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    store.save_results([agent.answer(action)], NOW)
    assert store.mark_sent([agent.command(action)], NOW) == []
    assert store.mark_pending([agent.command(action)], NOW) == []
    assert states(store, action) == {"web1": "done"}


def test_a_refused_command_does_not_become_pending_because_a_message_came_back(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    store.save_results([agent.answer(action, status="refused", results=[])], NOW)
    assert store.mark_pending([agent.command(action)], NOW) == []


def test_what_was_sent_long_ago_and_never_acknowledged_is_sent_again(store: Store) -> None:
    agent, other = FleetAgent(store), FleetAgent(store, "other")
    sent, held, expired, others = make_action(), make_action(), make_action(minutes=1), make_action()
    for action in (sent, held, expired):
        create(store, action, agent)
    create(store, others, other)
    store.mark_sent(
        [agent.command(action) for action in (sent, held, expired)] + [other.command(others)], NOW
    )
    store.save_heartbeat(agent.heartbeat(commands=(agent.command(held),)), NOW)
    assert store.requeue_agent(agent.id, NOW, NOW) == 0
    later = NOW + timedelta(minutes=2)
    assert store.requeue_agent(agent.id, later, later) == 1
    assert store.requeue_agent(agent.id, later, later) == 0
    assert [command.action_id for command in store.pending_commands(later, 10)] == [sent.id]


def test_an_answer_is_stored_as_it_came_and_ends_its_command(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    answer = agent.answer(action)
    [change] = store.save_results([answer], LATER)
    assert (change.action_id, change.command_id, change.agent_id, change.agent_name, change.state) == (
        action.id,
        agent.command(action),
        agent.id,
        "web1",
        CommandState.DONE,
    )
    [row] = store.list_results(action.id, 0, 10)
    assert (row.seq, row.envelope, row.state) == (change.seq, answer.envelope_bytes, CommandState.DONE)


def test_an_answer_that_is_delivered_twice_is_stored_once(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    assert len(store.save_results([agent.answer(action), agent.answer(action)], NOW)) == 1
    assert store.save_results([agent.answer(action)], LATER) == []
    assert len(store.list_results(action.id, 0, 10)) == 1


def test_an_answer_that_fits_no_command_is_left_out_and_the_others_are_kept(store: Store) -> None:
    agent, stranger = FleetAgent(store), FleetAgent(store, "stranger")
    action = make_action()
    create(store, action, agent)
    received = [
        stranger.answer(action),
        agent.answer(make_action()),
        agent.answer(action, action_sha256="0" * 64),
        agent.answer(action, occurrence="2026-11-20T12:00:00Z"),
        agent.answer(action),
    ]
    assert [change.agent_id for change in store.save_results(received, NOW)] == [agent.id]


def test_an_answer_replaces_an_earlier_refusal_under_a_new_number(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    problem = {"code": "acl-refused", "step": 9, "detail": "one signature is missing\0"}
    [refused] = store.save_results([agent.answer(action, status="refused", problem=problem, results=[])], NOW)
    [line] = store.list_commands(action.id)
    assert line.problem is not None
    assert (line.problem.code, line.problem.step) == ("acl-refused", 9)
    assert line.problem.detail == "one signature is missing\N{REPLACEMENT CHARACTER}"
    [done] = store.save_results([agent.answer(action)], LATER)
    assert refused.seq is not None
    assert done.seq is not None
    assert done.seq > refused.seq
    assert [row.state.value for row in store.list_results(action.id, 0, 10)] == ["done"]
    [line] = store.list_commands(action.id)
    assert line.problem is None


def test_an_answer_replaces_a_refusal_after_which_the_action_was_signed_once_more(store: Store) -> None:
    agents = [FleetAgent(store, f"web{number}") for number in range(3)]
    action = make_action()
    create(store, action, *agents)
    store.save_results([agent.answer(action, status="refused", results=[]) for agent in agents], NOW)
    create(store, action, signers=("B" * 40,))
    assert set(states(store, action).values()) == {"pending"}
    store.mark_sent([agent.command(action) for agent in agents[1:]], NOW)
    store.save_heartbeat(agents[2].heartbeat(commands=(agents[2].command(action),)), NOW)
    assert list(states(store, action).values()) == ["pending", "sent", "acknowledged"]
    assert len(store.save_results([agent.answer(action) for agent in agents], LATER)) == 3
    assert [row.state.value for row in store.list_results(action.id, 0, 10)] == ["done"] * 3


@pytest.mark.slow
def test_many_answers_in_one_batch_are_numbered_in_their_order(store: Store) -> None:
    agents = [FleetAgent(store, f"host{number:04}") for number in range(300)]
    action = make_action()
    create(store, action, *agents)
    refused = agents[0].answer(action, status="refused", results=[])
    changes = store.save_results([refused, *(agent.answer(action) for agent in agents)], LATER)
    assert [change.agent_name for change in changes] == [agent.name for agent in agents]
    numbers = [change.seq for change in changes]
    assert numbers == [row.seq for row in store.list_results(action.id, 0, 1000)]
    assert {row.state for row in store.list_results(action.id, 0, 1000)} == {CommandState.DONE}
    assert set(states(store, action).values()) == {"done"}


def test_numbers_of_answers_are_never_given_twice(store: Store) -> None:
    agent = FleetAgent(store)
    first, second = make_action(), make_action()
    create(store, first, agent)
    create(store, second, agent)
    [refused] = store.save_results([agent.answer(first, status="refused", results=[])], NOW)
    [done] = store.save_results([agent.answer(first)], NOW)
    [last] = store.save_results([agent.answer(second)], NOW)
    assert len({refused.seq, done.seq, last.seq}) == 3


def test_commands_expire_with_their_action_and_started_ones_after_a_grace(store: Store) -> None:
    waiting, started = FleetAgent(store, "waiting"), FleetAgent(store, "started")
    action = make_action()
    create(store, action, waiting, started)
    store.save_heartbeat(started.heartbeat(commands=(started.command(action),)), NOW)
    assert store.next_expiry() == action.expireafter
    assert store.expire_commands(action.expireafter - SECOND) == []
    changes = store.expire_commands(action.expireafter)
    assert [(change.agent_name, change.state.value) for change in changes] == [("waiting", "expired")]
    assert store.next_expiry() == action.expireafter + ANSWER_GRACE
    changes = store.expire_commands(action.expireafter + ANSWER_GRACE)
    assert [change.agent_name for change in changes] == ["started"]
    assert store.next_expiry() is None


def test_an_answer_that_comes_after_the_server_gave_up_is_kept(store: Store) -> None:
    agent = FleetAgent(store)
    action = make_action()
    create(store, action, agent)
    store.expire_commands(action.expireafter)
    [change] = store.save_results([agent.answer(action)], action.expireafter + SECOND)
    assert change.state is CommandState.DONE
    assert states(store, action) == {"web1": "done"}


class CommandMachine(RuleBasedStateMachine):
    """Whatever the parts of the server do, in whatever order, commands follow the table of transitions."""

    directory: Path

    def __init__(self) -> None:
        super().__init__()
        # Of its own: the id of a machine that is gone may be this one's, and what it left is there.
        place = Path(tempfile.mkdtemp(dir=self.directory))
        self.database = migrated_database(f"sqlite:///{place / 'mig.sqlite'}")
        self.store = Store(self.database)
        self.agents = [FleetAgent(self.store, f"web{number}") for number in range(2)]
        self.action = make_action()
        create(self.store, self.action, *self.agents)
        self.now: datetime = NOW
        self.before = {agent.command(self.action): CommandState.PENDING for agent in self.agents}

    @property
    def ids(self) -> list[str]:
        return [agent.command(self.action) for agent in self.agents]

    @rule(seconds=st.sampled_from([1, 100, 400, 900]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(which=st.sets(st.integers(0, 1)))
    def sent(self, which: set[int]) -> None:
        self.store.mark_sent([self.ids[number] for number in which], self.now)

    @rule(which=st.sets(st.integers(0, 1)))
    def returned(self, which: set[int]) -> None:
        self.store.mark_pending([self.ids[number] for number in which], self.now)

    @rule(number=st.integers(0, 1))
    def heartbeat(self, number: int) -> None:
        self.store.save_heartbeat(self.agents[number].heartbeat(commands=tuple(self.ids)), self.now)

    @rule(number=st.integers(0, 1))
    def login(self, number: int) -> None:
        self.store.requeue_agent(self.agents[number].id, self.now, self.now)

    @rule(number=st.integers(0, 1), status=st.sampled_from(["done", "failed", "refused", "timed-out"]))
    def answer(self, number: int, status: str) -> None:
        self.store.save_results([self.agents[number].answer(self.action, status=status)], self.now)

    @rule()
    def expire(self) -> None:
        self.store.expire_commands(self.now)

    @rule(signer=st.sampled_from([ADA, "B" * 40]))
    def submitted_again(self, signer: str) -> None:
        create(self.store, self.action, signers=(signer,), now=self.now)

    @invariant()
    def states_follow_the_table_and_answers_their_commands(self) -> None:
        roster = {row.id: row.state for row in self.store.list_commands(self.action.id)}
        for ident, state in roster.items():
            assert state is self.before[ident] or is_transition(self.before[ident], state)
        self.before = roster
        counts = Counter(row.command_id for row in self.store.list_results(self.action.id, 0, 100))
        assert all(number == 1 for number in counts.values())
        answered = {CommandState.DONE, CommandState.FAILED, CommandState.TIMED_OUT, CommandState.REFUSED}
        assert {ident for ident, state in roster.items() if state in answered} <= set(counts)

    def teardown(self) -> None:
        self.database.close()


@pytest.mark.system
def test_commands_follow_the_table_in_any_order_of_events(tmp_path: Path) -> None:
    machine = type("Machine", (CommandMachine,), {"directory": tmp_path})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20))


def test_progress_is_known_of_an_agents_own_commands_while_they_are_open(store: Store) -> None:
    agent, other = FleetAgent(store, "web1"), FleetAgent(store, "web2")
    action = make_action()
    create(store, action, agent, other)
    mine, others = agent.command(action), other.command(action)
    running = tuple(
        RunningCommand(command=command, elapsed_s=3.5, operation=1, statistics={"files_seen": 9})
        for command in (mine, others, "f" * 32)
    )
    says = agent.heartbeat(LATER, commands=(mine, others), running=running)
    assert store.find_progress([says], LATER) == []  # nothing of it is acknowledged yet
    store.save_heartbeats([says], LATER)
    store.save_heartbeats([other.heartbeat(LATER, commands=(others,))], LATER)
    (change,) = store.find_progress([says], LATER)
    assert (change.command_id, change.agent_name, change.action_id) == (mine, "web1", action.id)
    assert change.progress is not None
    assert (change.progress.operation, change.progress.statistics) == (1, {"files_seen": 9})
    store.save_results([agent.answer(action)], LATER)
    assert store.find_progress([says], LATER) == []

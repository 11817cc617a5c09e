"""Recurring actions and cancels on an endpoint: real children, real signatures, a clock that is moved."""

import resource
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentLimits, Baked
from agent.runtime.audit import AuditLog
from agent.runtime.canceller import Canceller
from agent.runtime.gate import Gate, Refusal, make_endpoint
from agent.runtime.journal import MAX_TOMBSTONES, Journal, Tombstone, read_journal
from agent.runtime.launch import ChildProcess
from agent.runtime.loop import SelectorLoop
from agent.runtime.supervisor import Answer, Supervisor
from agent.runtime.trust import make_trust
from protocol.cancel import Cancel, encode_cancel
from protocol.envelope import ACTION, CANCEL, Envelope, decode_envelope, encode_envelope
from protocol.names import command_id
from protocol.result import Result, decode_result
from protocol.schedule import format_occurrence
from tests.support.endpoint import AGENT_ID, FACTS, make_baked, sign_action, utc_now
from tests.support.gpg import Investigator
from tests.support.resident import LONGEST_S

GRACE = 60
EVERY = 600


class Endpoint:
    """A resident without a link, whose clock is `ahead` of the real one."""

    def __init__(self, directory: Path, baked: Baked) -> None:
        self.ahead = timedelta()
        self.directory = directory
        self.baked = baked
        self.loop = SelectorLoop()
        self.answers: list[Answer] = []
        self.acknowledged: list[bytes] = []
        self._open()

    def _open(self) -> None:
        self.journal = Journal(self.directory / "journal", clock=self.now)
        self.audit = AuditLog(self.directory, clock=self.now)
        self.supervisor = Supervisor(
            loop=self.loop,
            journal=self.journal,
            baked=self.baked,
            agent_id=AGENT_ID,
            facts=lambda: FACTS,
            clock=self.now,
            on_answer=self._keep,
            audit=self.audit,
        )
        self.canceller = Canceller(
            loop=self.loop,
            journal=self.journal,
            trust_frame=self.supervisor.trust_frame,
            clock=self.now,
            on_cancelled=lambda stone: self.supervisor.stop_cancelled(stone.digest),
            count_silently=self.supervisor.count_silently,
        )

    def now(self) -> datetime:
        return utc_now() + self.ahead

    def restart(self) -> None:
        self.supervisor.close()
        self.audit.close()
        self.canceller.close()
        self.journal.close()
        self._open()
        self.supervisor.start()

    def _keep(self, answer: Answer) -> None:
        self.answers.append(answer)
        if not answer.is_refusal:
            self.journal.mark_answered(answer.digest, answer.occurrence)

    def submit(self, body: bytes) -> None:
        self.supervisor.submit(body, lambda: self.acknowledged.append(body))

    def cancel(self, body: bytes) -> None:
        """Deliver a cancel and wait until it is dealt with."""
        self.canceller.submit(body, lambda: self.acknowledged.append(body))
        self.run_until(lambda: self.canceller.is_idle)

    def run_until(self, is_done: Callable[[], bool]) -> None:
        over: list[bool] = []
        timer = self.loop.call_later(LONGEST_S, lambda: over.append(True))
        self.loop.run_until(lambda: is_done() or bool(over))
        self.loop.cancel(timer)
        assert is_done(), f"nothing came of it in {LONGEST_S} s"

    def ask(self, body: bytes) -> Result | None:
        """Submit one delivery and return the answer to it, if there is one."""
        before = len(self.answers)
        self.submit(body)
        self.run_until(lambda: self.supervisor.is_idle)
        results = [decode_result(answer.payload) for answer in self.answers[before:]]
        assert len(results) <= 1
        return results[0] if results else None

    def verdict(self, body: bytes) -> str:
        """Submit one delivery and return how it ended: a status, or the code of the problem."""
        result = self.ask(body)
        if result is None:
            return "silent"
        return result.problem.code if result.problem else result.status

    def close(self) -> None:
        self.supervisor.close()
        self.canceller.close()
        self.journal.close()
        self.loop.close()


MakeEndpoint = Callable[..., Endpoint]


@pytest.fixture
def make_endpoint_of(tmp_path: Path) -> Iterator[MakeEndpoint]:
    tmp_path.chmod(0o700)
    made: list[Endpoint] = []

    def make(*investigators: Investigator, **config: Any) -> Endpoint:
        made.append(Endpoint(tmp_path, make_baked(investigators, warm_child=False, **config)))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


@pytest.fixture
def endpoint(make_endpoint_of: MakeEndpoint, ada: Investigator, bob: Investigator) -> Endpoint:
    """Trusts Ada and Bob."""
    return make_endpoint_of(ada, bob)


class Recurring:
    """A signed action that recurs every ten minutes, from a moment ago, and where its occurrences are."""

    def __init__(self, *signers: Investigator, operations: Any = None, **schedule: Any) -> None:
        self.start = utc_now().replace(microsecond=0) - timedelta(seconds=10)
        self.body = sign_action(
            *signers,
            validfrom=self.start.isoformat(),
            expireafter=(self.start + timedelta(days=30)).isoformat(),
            **({"operations": operations} if operations else {}),
            schedule={"every_s": EVERY, "grace_s": GRACE, **schedule},
        )
        self.digest = decode_envelope(self.body, ACTION).digest

    def at(self, number: int, late_s: float = 5) -> timedelta:
        """Return how far a clock must be ahead to be `late_s` behind an occurrence."""
        return self.start + timedelta(seconds=number * EVERY + late_s) - utc_now()

    def name(self, number: int) -> str:
        return format_occurrence(self.start + timedelta(seconds=number * EVERY))


def sign_cancel(signer: Investigator, body: bytes, **changes: Any) -> bytes:
    """Return the delivery of a cancel of a delivered action."""
    envelope = decode_envelope(body, ACTION)
    members = {
        "action": "018f0000-0000-7000-8000-000000000000",
        "action_sha256": envelope.digest,
        "expireafter": utc_now() + timedelta(hours=1),
        "time": utc_now(),
        **changes,
    }
    return encode_envelope(signer.sign(CANCEL, encode_cancel(Cancel(**members))))


# -- recurring -------------------------------------------------------------------------------------------


def test_each_occurrence_runs_once_when_it_is_due_and_never_otherwise(
    endpoint: Endpoint, ada: Investigator
) -> None:
    nightly = Recurring(ada)
    assert endpoint.verdict(nightly.body) == "not-due"
    endpoint.ahead = nightly.at(1)
    result = endpoint.ask(nightly.body)
    assert result is not None
    assert (result.status, result.occurrence) == ("done", nightly.name(1))
    assert endpoint.answers[-1].command_id == command_id(result.action, AGENT_ID, nightly.name(1))
    assert endpoint.verdict(nightly.body) == "replayed"
    endpoint.ahead = nightly.at(1, GRACE + 5)
    late = endpoint.ask(nightly.body)
    assert late is None  # the same envelope was refused for the same occurrence before
    endpoint.ahead = nightly.at(2)
    assert endpoint.verdict(nightly.body) == "done"
    states = [entry.occurrence for entry in read_journal(endpoint.directory / "journal").entries]
    assert states == [nightly.name(1), nightly.name(2)]


def test_a_server_that_fires_all_missed_occurrences_at_once_gets_the_latest_once(
    endpoint: Endpoint, ada: Investigator
) -> None:
    nightly = Recurring(ada)
    endpoint.ahead = nightly.at(9)
    for _ in range(9):
        endpoint.submit(nightly.body)
    endpoint.run_until(lambda: endpoint.supervisor.is_idle)
    endpoint.submit(nightly.body)
    endpoint.run_until(lambda: endpoint.supervisor.is_idle)
    ran = [decode_result(answer.payload) for answer in endpoint.answers if not answer.is_refusal]
    assert [(result.status, result.occurrence) for result in ran] == [("done", nightly.name(9))]
    assert len(endpoint.acknowledged) == 10


@pytest.mark.usefixtures("trouble")
def test_what_is_delivered_while_an_occurrence_runs_is_judged_when_it_has_ended(
    make_endpoint_of: MakeEndpoint, ada: Investigator
) -> None:
    endpoint = make_endpoint_of(ada, limits=AgentLimits(wall_s=2))
    operations = [{"module": "trouble", "parameters": {"how": "dawdle", "path": ""}}]
    nightly = Recurring(ada, operations=operations)
    endpoint.ahead = nightly.at(1)
    endpoint.submit(nightly.body)
    endpoint.run_until(lambda: len(endpoint.acknowledged) == 1)
    endpoint.submit(nightly.body)
    endpoint.ahead = nightly.at(2)
    endpoint.run_until(lambda: endpoint.supervisor.is_idle)
    results = [decode_result(answer.payload) for answer in endpoint.answers]
    assert [(result.status, result.occurrence) for result in results] == [
        ("done", nightly.name(1)),
        ("done", nightly.name(2)),
    ]
    assert len(endpoint.acknowledged) == 2


def test_an_occurrence_that_is_late_by_more_than_its_grace_is_refused_under_its_name(
    endpoint: Endpoint, ada: Investigator
) -> None:
    nightly = Recurring(ada)
    endpoint.ahead = nightly.at(3, GRACE + 1)
    result = endpoint.ask(nightly.body)
    assert result is not None
    assert result.problem is not None
    assert (result.problem.step, result.problem.code, result.occurrence) == (5, "not-due", nightly.name(3))


def test_a_clock_set_back_runs_no_earlier_occurrence_even_one_that_was_missed(
    endpoint: Endpoint, ada: Investigator
) -> None:
    nightly = Recurring(ada)
    endpoint.ahead = nightly.at(5)
    assert endpoint.verdict(nightly.body) == "done"
    endpoint.ahead = nightly.at(3)
    assert endpoint.verdict(nightly.body) == "replayed"
    endpoint.ahead = nightly.at(3)
    endpoint.restart()
    assert endpoint.verdict(nightly.body) == "replayed"


def test_no_more_occurrences_run_than_were_signed(endpoint: Endpoint, ada: Investigator) -> None:
    twice = Recurring(ada, max_runs=2)
    endpoint.ahead = twice.at(2)
    assert endpoint.verdict(twice.body) == "done"
    endpoint.ahead = twice.at(3)
    assert endpoint.verdict(twice.body) == "not-due"


def test_an_occurrence_accepted_before_a_crash_runs_only_while_it_is_still_the_latest(
    endpoint: Endpoint, ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    nightly = Recurring(ada, grace_s=2 * EVERY)
    endpoint.ahead = nightly.at(1)

    def crash(*_key: str) -> None:
        raise SystemExit

    with monkeypatch.context() as crashing:
        crashing.setattr(endpoint.journal, "mark_started", crash)
        with pytest.raises(SystemExit):
            endpoint.ask(nightly.body)
    endpoint.ahead = nightly.at(2)
    endpoint.restart()
    endpoint.run_until(lambda: endpoint.supervisor.is_idle)
    (answer,) = endpoint.answers
    result = decode_result(answer.payload)
    assert result.problem is not None
    assert (result.problem.code, result.occurrence) == ("not-due", nightly.name(1))
    assert endpoint.verdict(nightly.body) == "done"


def test_the_gate_bounds_how_long_a_schedule_may_last(ada: Investigator) -> None:
    body = Recurring(ada).body
    baked = make_baked([ada])
    config = baked.config
    for days, expected in ((30, "not-due"), (29, "validity-too-long")):
        trust = make_trust(baked.keys, baked.acl, config.max_validity_s, config.limits)
        trust = trust._replace(max_schedule=timedelta(days=days))
        with pytest.raises(Refusal, match=expected):
            Gate(body, trust=trust, endpoint=make_endpoint(FACTS), now=utc_now()).admit()


# -- cancels ---------------------------------------------------------------------------------------------


def test_a_cancel_that_comes_first_refuses_the_action_when_it_comes_also_after_a_restart(
    endpoint: Endpoint, ada: Investigator
) -> None:
    body = sign_action(ada)
    endpoint.cancel(sign_cancel(ada, body))
    endpoint.restart()
    result = endpoint.ask(body)
    assert result is not None
    assert result.problem is not None
    assert (result.status, result.problem.step, result.problem.code) == ("cancelled", 6, "cancelled")
    assert read_journal(endpoint.directory / "journal").entries == ()


def test_a_cancel_by_somebody_who_did_not_sign_the_action_does_not_count(
    endpoint: Endpoint, ada: Investigator, bob: Investigator
) -> None:
    body = sign_action(ada)
    endpoint.cancel(sign_cancel(bob, body))
    assert endpoint.verdict(body) == "done"


def test_a_cancel_by_one_of_two_signers_counts(
    endpoint: Endpoint, ada: Investigator, bob: Investigator
) -> None:
    body = sign_action(ada, bob)
    endpoint.cancel(sign_cancel(bob, body))
    assert endpoint.verdict(body) == "cancelled"


def test_cancels_by_two_people_are_both_kept(
    endpoint: Endpoint, ada: Investigator, bob: Investigator
) -> None:
    body = sign_action(ada)
    endpoint.cancel(sign_cancel(ada, body))
    endpoint.cancel(sign_cancel(bob, body))
    assert endpoint.verdict(body) == "cancelled"


def test_a_cancel_ends_all_later_occurrences_of_a_schedule(endpoint: Endpoint, ada: Investigator) -> None:
    nightly = Recurring(ada)
    endpoint.ahead = nightly.at(1)
    assert endpoint.verdict(nightly.body) == "done"
    endpoint.cancel(sign_cancel(ada, nightly.body, expireafter=nightly.start + timedelta(days=30)))
    endpoint.ahead = nightly.at(2)
    assert endpoint.verdict(nightly.body) == "cancelled"


@pytest.mark.parametrize(
    "changes",
    [
        {"time": utc_now() + timedelta(hours=1)},
        {"expireafter": utc_now() - timedelta(seconds=1)},
        {"expireafter": utc_now() + timedelta(days=365)},
        {"action_sha256": "0" * 64},
    ],
    ids=["from the future", "expired", "for a year", "of another action"],
)
def test_a_cancel_that_is_not_in_order_stops_nothing(
    changes: dict[str, Any], endpoint: Endpoint, ada: Investigator
) -> None:
    body = sign_action(ada)
    endpoint.cancel(sign_cancel(ada, body, **changes))
    assert endpoint.verdict(body) == "done"
    assert len(endpoint.acknowledged) == 2


@pytest.mark.usefixtures("trouble")
def test_a_running_action_that_is_cancelled_answers_with_what_it_has_found(
    endpoint: Endpoint, ada: Investigator
) -> None:
    operations = [
        {"module": "trouble", "parameters": {"how": "dawdle", "path": ""}},
        {"module": "agentinfo", "parameters": {}, "when": "found"},
    ]
    body = sign_action(ada, operations=operations)
    endpoint.submit(body)
    endpoint.run_until(lambda: endpoint.acknowledged == [body])
    endpoint.cancel(sign_cancel(ada, body))
    endpoint.run_until(lambda: endpoint.supervisor.is_idle)
    (answer,) = endpoint.answers
    result = decode_result(answer.payload)
    assert result.status == "cancelled"
    assert [operation.status for operation in result.results] == ["cancelled", "cancelled"]
    assert all(operation.truncated for operation in result.results)
    assert endpoint.journal.state_of(result.action_sha256, "") == "answered"
    assert endpoint.verdict(body) == "replayed"


@pytest.mark.usefixtures("trouble")
def test_a_running_action_that_does_not_end_when_told_is_killed(
    endpoint: Endpoint, ada: Investigator, tmp_path: Path
) -> None:
    body = sign_action(
        ada, operations=[{"module": "trouble", "parameters": {"how": "hang", "path": str(tmp_path / "pid")}}]
    )
    endpoint.submit(body)
    endpoint.run_until(lambda: endpoint.acknowledged == [body])
    endpoint.cancel(sign_cancel(ada, body))
    endpoint.run_until(lambda: endpoint.supervisor.is_idle)
    result = decode_result(endpoint.answers[0].payload)
    assert result.problem is not None
    assert (result.status, result.problem.code) == ("cancelled", "cancelled")


@pytest.mark.usefixtures("trouble")
def test_a_cancel_by_a_stranger_to_it_leaves_a_running_action_alone(
    make_endpoint_of: MakeEndpoint, ada: Investigator, bob: Investigator
) -> None:
    endpoint = make_endpoint_of(ada, bob, limits=AgentLimits(wall_s=2))
    body = sign_action(ada, operations=[{"module": "trouble", "parameters": {"how": "dawdle", "path": ""}}])
    endpoint.submit(body)
    endpoint.run_until(lambda: endpoint.acknowledged == [body])
    endpoint.cancel(sign_cancel(bob, body))
    endpoint.run_until(lambda: endpoint.supervisor.is_idle)
    assert decode_result(endpoint.answers[0].payload).status == "done"


def test_a_tombstone_that_finds_no_room_on_the_disk_leaves_the_cancel_with_the_broker(
    endpoint: Endpoint, ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runtime.canceller._RETRY_S", 0.05)
    body = sign_action(ada)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (endpoint.directory / "journal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
    try:
        endpoint.canceller.submit(sign_cancel(ada, body), lambda: endpoint.acknowledged.append(b"cancel"))
        endpoint.run_until(
            lambda: endpoint.canceller._timer is not None and not endpoint.canceller._is_asking
        )
        assert endpoint.acknowledged == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    endpoint.run_until(lambda: endpoint.acknowledged == [b"cancel"])
    assert endpoint.verdict(body) == "cancelled"


# -- floods ----------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ChildProcess]:
    """Every child that is started from here on."""
    made: list[ChildProcess] = []
    plain = ChildProcess.__init__

    def start(child: ChildProcess, **arguments: Any) -> None:
        made.append(child)
        plain(child, **arguments)

    monkeypatch.setattr(ChildProcess, "__init__", start)
    return made


def test_a_flood_of_forged_actions_leaves_nothing_in_the_journal_and_costs_no_process_each(
    endpoint: Endpoint, ada: Investigator, started: list[ChildProcess]
) -> None:
    true = sign_action(ada)
    signature = decode_envelope(true, ACTION).signatures[0]
    before = (endpoint.directory / "journal").read_bytes()
    for number in range(60):
        endpoint.submit(encode_envelope(Envelope(ACTION, b'{"number": %d}' % number, (signature,))))
    endpoint.run_until(lambda: endpoint.supervisor.is_idle)
    assert len(started) == 1
    assert endpoint.answers == []
    assert (endpoint.directory / "journal").read_bytes() == before
    assert endpoint.supervisor.refused_silently == 60
    assert endpoint.verdict(true) == "done"


def test_a_flood_of_forged_cancels_leaves_nothing_in_the_journal_and_holds_up_no_action(
    endpoint: Endpoint, ada: Investigator, started: list[ChildProcess]
) -> None:
    true = sign_action(ada)
    genuine = decode_envelope(sign_cancel(ada, true), CANCEL)
    before = (endpoint.directory / "journal").read_bytes()
    for number in range(60):
        payload = genuine.payload.replace(b"018f", b"%04x" % number)
        endpoint.canceller.submit(encode_envelope(genuine._replace(payload=payload)), lambda: None)
    assert (endpoint.directory / "journal").read_bytes() == before
    assert endpoint.verdict(true) == "done"
    endpoint.run_until(lambda: endpoint.canceller.is_idle)
    assert len(started) == 2
    assert endpoint.supervisor.refused_silently == 60
    assert read_journal(endpoint.directory / "journal").tombstones == ()


def test_one_signers_cancels_take_no_room_from_anothers(
    endpoint: Endpoint, ada: Investigator, bob: Investigator
) -> None:
    soon = int(utc_now().timestamp()) + 3600
    for number in range(MAX_TOMBSTONES):
        stone = Tombstone(f"{number:064x}", "018f0000-0000-7000-8000-000000000000", (bob.fingerprint,), soon)
        assert endpoint.journal.insert_tombstone(stone)
    body, bobs = sign_action(ada), sign_action(bob)
    endpoint.cancel(sign_cancel(bob, bobs))
    assert endpoint.verdict(bobs) == "done"
    endpoint.cancel(sign_cancel(ada, body))
    assert endpoint.verdict(body) == "cancelled"

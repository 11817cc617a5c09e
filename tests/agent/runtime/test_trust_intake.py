"""Trust bundles that arrive: judged by real children, stored, and in force for the next action."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import Baked
from agent.runtime import trust_intake
from agent.runtime.audit import AuditLog
from agent.runtime.journal import Journal
from agent.runtime.loop import SelectorLoop
from agent.runtime.state import IDENTITY_FILE
from agent.runtime.supervisor import Answer, Supervisor
from agent.runtime.trust_intake import TrustIntake
from agent.runtime.trust_store import TrustStore
from protocol.result import decode_result
from tests.support.endpoint import AGENT_ID, FACTS, make_baked, make_bundle, sign_action, sign_bundle, utc_now
from tests.support.gpg import Investigator, temporary_investigator

LONGEST_S = 60.0


@pytest.fixture(scope="module")
def rita() -> Iterator[Investigator]:
    """A holder of a root key."""
    with temporary_investigator("Rita Root") as investigator:
        yield investigator


class Agent:
    """A resident without a link: deliveries go in by hand."""

    def __init__(self, directory: Path, baked: Baked) -> None:
        directory.chmod(0o700)
        self.loop = SelectorLoop()
        self.journal = Journal(directory / "journal", clock=utc_now)
        self.store = TrustStore(directory, has_roots=bool(baked.config.trust.roots))
        (directory / IDENTITY_FILE).write_text("{}")
        self.answers: list[Answer] = []
        self.acknowledged = 0
        self.supervisor = Supervisor(
            loop=self.loop,
            journal=self.journal,
            baked=baked,
            agent_id=AGENT_ID,
            facts=lambda: FACTS,
            clock=utc_now,
            on_answer=self.answers.append,
            audit=AuditLog(directory, clock=utc_now),
            held=lambda: self.store.held,
        )
        self.intake = TrustIntake(
            loop=self.loop,
            baked=baked,
            store=self.store,
            clock=utc_now,
            on_change=self.supervisor.renew_trust,
        )

    def _acknowledge(self) -> None:
        self.acknowledged += 1

    def run_until(self, is_done: Any) -> None:
        over: list[bool] = []
        timer = self.loop.call_later(LONGEST_S, lambda: over.append(True))
        self.loop.run_until(lambda: is_done() or bool(over))
        self.loop.cancel(timer)
        assert is_done(), f"nothing came of it in {LONGEST_S} s"

    def offer(self, body: bytes) -> int:
        """Deliver a bundle, and return the version that is held when it is dealt with."""
        before = self.acknowledged
        self.intake.submit(body, self._acknowledge)
        self.run_until(lambda: self.acknowledged > before)
        assert self.store.held.mark is not None
        return self.store.held.mark.version

    def is_obeyed(self, *signers: Investigator) -> bool:
        """Tell whether an action by these is run."""
        answered, refused = len(self.answers), self.supervisor.refused_silently
        self.supervisor.submit(sign_action(*signers), lambda: None)
        self.run_until(lambda: self.supervisor.is_idle)
        if self.supervisor.refused_silently > refused:
            return False
        (answer,) = self.answers[answered:]
        return decode_result(answer.payload).status == "done"

    def close(self) -> None:
        self.supervisor.close()
        self.intake.close()
        self.journal.close()
        self.loop.close()


@pytest.fixture
def agent(tmp_path: Path, ada: Investigator, bob: Investigator, rita: Investigator) -> Iterator[Agent]:
    made = Agent(tmp_path, make_baked([ada, bob], roots=[rita], warm_child=True))
    yield made
    made.close()


def test_a_revoked_investigator_is_refused_from_the_next_action_on(
    agent: Agent, ada: Investigator, bob: Investigator, rita: Investigator
) -> None:
    agent.supervisor.start()
    assert agent.is_obeyed(bob)
    assert agent.offer(sign_bundle(make_bundle(1, ada), rita)) == 1
    assert not agent.is_obeyed(bob)
    assert agent.is_obeyed(ada)


def test_an_action_that_is_being_judged_is_judged_anew_by_the_new_bundle(
    agent: Agent, ada: Investigator, bob: Investigator, rita: Investigator
) -> None:
    """A child that knows the old bundle has the action already; its verdict must not count any more."""
    body = sign_bundle(make_bundle(1, ada), rita)
    agent.supervisor.submit(sign_action(bob), lambda: None)
    assert not agent.supervisor.is_idle
    agent.store.keep(body, 1, "0" * 64)
    agent.supervisor.renew_trust()
    agent.run_until(lambda: agent.supervisor.is_idle)
    assert agent.answers == []
    assert agent.supervisor.refused_silently == 1


def test_older_forged_and_expired_bundles_change_nothing(
    agent: Agent, ada: Investigator, bob: Investigator, rita: Investigator
) -> None:
    assert agent.offer(sign_bundle(make_bundle(5, ada), rita)) == 5
    held = agent.store.held
    for refused in (
        sign_bundle(make_bundle(4, ada, bob), rita),  # a rollback
        sign_bundle(make_bundle(5, ada, bob), rita),  # another one of the same version
        sign_bundle(make_bundle(6, ada, bob), bob),  # by somebody who is no root
        sign_bundle(make_bundle(6, ada, bob)),
        sign_bundle(make_bundle(6, ada, bob, expires_s=-60), rita),
        sign_bundle({"version": 6}, rita),
        sign_bundle({"version": "6"}, rita),
        b"{}",
    ):
        assert agent.offer(refused) == 5
    assert agent.store.held == held
    assert agent.intake.refused == 8
    assert not agent.is_obeyed(bob)


def test_a_bundle_that_is_held_already_troubles_no_child(
    agent: Agent, ada: Investigator, rita: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = sign_bundle(make_bundle(5, ada), rita)
    agent.offer(body)
    monkeypatch.delattr(trust_intake, "ChildProcess")
    assert agent.offer(body) == 5
    assert agent.offer(sign_bundle(make_bundle(4, ada), rita)) == 5


def test_without_room_on_the_disk_a_bundle_is_neither_used_nor_acknowledged_but_tried_again(
    agent: Agent, ada: Investigator, bob: Investigator, rita: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, failed = os.fsync, []

    def is_full(descriptor: int) -> None:
        failed.append(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(trust_intake, "_RETRY_S", 0.01)
    monkeypatch.setattr(os, "fsync", is_full)
    agent.intake.submit(sign_bundle(make_bundle(1, ada), rita), agent._acknowledge)
    agent.run_until(lambda: bool(failed))
    assert agent.acknowledged == 0
    assert agent.store.held.mark == (0, "")
    monkeypatch.setattr(os, "fsync", fsync)
    agent.run_until(lambda: agent.acknowledged == 1)
    assert not agent.is_obeyed(bob)


def test_an_agent_that_lost_its_bundle_takes_it_again_and_no_older_one(
    tmp_path: Path, ada: Investigator, bob: Investigator, rita: Investigator
) -> None:
    baked = make_baked([ada, bob], roots=[rita], warm_child=True)
    fifth, fourth = (sign_bundle(make_bundle(version, ada), rita) for version in (5, 4))
    agent = Agent(tmp_path, baked)
    agent.offer(fifth)
    agent.close()
    (tmp_path / "trust-bundle.json").unlink()
    agent = Agent(tmp_path, baked)
    agent.supervisor.start()
    agent.run_until(lambda: agent.supervisor.trust_refusal != "")
    assert not agent.is_obeyed(ada)
    agent.offer(fourth)
    assert not agent.is_obeyed(ada)
    agent.offer(fifth)
    assert agent.is_obeyed(ada)
    assert agent.supervisor.trust_refusal == ""
    agent.close()


def test_an_agent_without_roots_takes_no_bundle(
    tmp_path: Path, ada: Investigator, bob: Investigator, rita: Investigator
) -> None:
    agent = Agent(tmp_path, make_baked([ada]))
    assert agent.offer(sign_bundle(make_bundle(1, bob), rita)) == 0
    assert agent.is_obeyed(ada)
    agent.close()


def test_a_flood_of_forged_bundles_waits_in_bounded_room_and_holds_up_no_action(
    agent: Agent, ada: Investigator
) -> None:
    forged = [
        sign_bundle(make_bundle(version, ada)).replace(b"[]", b'[{"keyid":"x","sig":"eA=="}]')
        for version in range(1, 40)
    ]
    for body in forged:
        agent.intake.submit(body, agent._acknowledge)
    assert agent.acknowledged >= len(forged) - 10
    assert agent.is_obeyed(ada)
    agent.run_until(lambda: agent.acknowledged == len(forged))
    assert agent.store.held.mark == (0, "")


def test_a_bundle_whose_judging_ends_the_child_is_dropped(
    agent: Agent, ada: Investigator, rita: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_intake, "_RETRY_S", 0.01)
    monkeypatch.setattr(trust_intake, "encode_candidate", lambda *_arguments: b"{}")
    assert agent.offer(sign_bundle(make_bundle(1, ada), rita)) == 0


def test_an_investigators_signature_on_an_action_is_no_bundle(agent: Agent, rita: Investigator) -> None:
    assert agent.offer(sign_action(rita)) == 0
    assert agent.store.held.bundle == b""

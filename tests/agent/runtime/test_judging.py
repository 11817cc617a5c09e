"""What follows from a verdict, with real children, real signatures and a real journal."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.config import AgentLimits
from agent.runtime import frames
from protocol.envelope import ACTION, HEARTBEAT, Envelope, decode_envelope, encode_envelope
from protocol.result import decode_result
from tests.support.endpoint import make_baked, sign_action
from tests.support.gpg import Investigator
from tests.support.resident import Agent, MakeAgent, entry_for, in_trouble


def test_a_replayed_action_is_refused_once_and_never_runs_again(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    body = sign_action(ada)
    agent.ask(body)
    refused = agent.ask(body)
    assert refused.status == "refused"
    assert refused.problem is not None
    assert (refused.problem.step, refused.problem.code) == (6, "replayed")
    agent.submit(body)
    agent.run_until_idle()
    assert len(agent.answers) == 2
    assert agent.acknowledged == [body] * 3


def test_what_is_delivered_again_before_it_ran_is_acknowledged_each_time_and_runs_once(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    first, second = sign_action(ada), sign_action(ada)
    for body in (first, second, first, second, second):
        agent.submit(body)
    agent.run_until_idle()
    assert [decode_result(answer.payload).status for answer in agent.answers] == ["done", "done"]
    assert sorted(agent.acknowledged) == sorted([first, second, first, second, second])


@pytest.mark.usefixtures("trouble")
def test_what_is_delivered_again_while_it_runs_is_acknowledged_at_once(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent(limits=AgentLimits(wall_s=1))
    body = in_trouble(ada, "dawdle")
    agent.submit(body)
    agent.run_until(lambda: agent.acknowledged == [body])
    agent.submit(body)
    assert agent.acknowledged == [body, body]
    agent.run_until_idle()
    assert [decode_result(answer.payload).status for answer in agent.answers] == ["done"]


def test_the_same_payload_in_another_envelope_is_a_replay(
    make_agent: MakeAgent, ada: Investigator, bob: Investigator
) -> None:
    agent = make_agent()
    body = sign_action(ada)
    agent.ask(body)
    again = sign_action(ada, bob, payload=decode_envelope(body, ACTION).payload)
    refused = agent.ask(again)
    assert refused.problem is not None
    assert refused.problem.code == "replayed"


def test_deliveries_that_nobody_trusted_made_are_counted_and_never_answered(
    make_agent: MakeAgent, ada: Investigator, bob: Investigator
) -> None:
    agent = make_agent()
    hostile = [
        bytes(100 << 20),
        b"[" * 100_000,
        b"{}",
        encode_envelope(ada.sign(HEARTBEAT, b"{}")),
        encode_envelope(Envelope(ACTION, b"{}", ())),
        sign_action(bob),
    ]
    for body in hostile:
        agent.submit(body)
    agent.run_until_idle()
    assert agent.answers == []
    assert len(agent.acknowledged) == len(hostile)
    assert agent.journal.unanswered() == []


def test_a_later_refusal_is_answered_once_with_its_step_and_leaves_no_trace_in_the_journal(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    body = sign_action(ada, target="os = 'windows'")
    refused = agent.ask(body)
    assert refused.problem is not None
    assert (refused.problem.step, refused.problem.code) == (7, "not-targeted")
    agent.submit(body)
    agent.run_until_idle()
    assert len(agent.answers) == 1
    assert len(agent.acknowledged) == 2
    assert agent.journal.state_of(refused.action_sha256, "") is None


def test_an_action_refused_for_want_of_weight_runs_when_it_comes_with_a_second_signature(
    tmp_path: Path, ada: Investigator, bob: Investigator
) -> None:
    tmp_path.chmod(0o700)
    weights = {ada.fingerprint: 1, bob.fingerprint: 1}
    agent = Agent(
        tmp_path, make_baked([ada, bob], acl={"default": {"minimum_weight": 2, "investigators": weights}})
    )
    body = sign_action(ada)
    refused = agent.ask(body)
    assert refused.problem is not None
    assert (refused.problem.step, refused.problem.code) == (9, "acl-refused")
    both = sign_action(ada, bob, payload=decode_envelope(body, ACTION).payload)
    assert agent.ask(both).status == "done"
    agent.close()


@pytest.mark.usefixtures("trouble")
def test_a_delivery_whose_judging_ends_the_child_twice_is_dropped_and_the_next_is_served(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    fatal = sign_action(ada, operations=[{"module": "fatal", "parameters": {}}])
    agent.submit(fatal)
    agent.run_until_idle()
    assert agent.acknowledged == [fatal]
    assert agent.answers == []
    assert agent.supervisor.refused_silently == 1
    assert agent.ask(sign_action(ada)).status == "done"


@pytest.mark.usefixtures("trouble")
def test_an_accepted_action_whose_judging_ends_the_child_twice_is_answered_failed(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    fatal = sign_action(ada, operations=[{"module": "fatal", "parameters": {}}])
    assert make_agent().journal.insert(entry_for(fatal))
    agent = make_agent()
    agent.supervisor.start()
    agent.run_until_idle()
    (answer,) = agent.answers
    result = decode_result(answer.payload)
    assert result.problem is not None
    assert (result.status, result.problem.code) == ("failed", "child-failed")


@pytest.mark.parametrize(
    "said",
    [
        b"garbage",
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.encode_frame(frames.ANSWER, b"[]"),
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.encode_frame(frames.VERDICT, b"{}"),
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.HEADER.pack(frames.ANSWER, 1 << 30),
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.encode_frame(frames.PERMIT),
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.encode_frame(frames.PROGRESS, b"{}"),
    ],
    ids=[
        "garbage",
        "answer before the permission",
        "no verdict",
        "too long",
        "a frame of the resident's",
        "early progress",
    ],
)
def test_a_child_that_is_out_of_control_gets_no_permission_and_no_answer_out(
    said: bytes, make_agent: MakeAgent, ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import os; os.write(1, {said!r}); os.read(0, 1 << 20); os.read(0, 1)"
    startup = SimpleNamespace(pass_fds=(), child_argv=lambda *_words: [sys.executable, "-I", "-c", code])
    monkeypatch.setitem(sys.modules, "mig_startup", startup)
    agent = make_agent()
    agent.submit(sign_action(ada))
    agent.run_until(lambda: agent.supervisor.is_idle or agent.supervisor.failure is not None)
    assert agent.answers == []
    assert agent.journal.unanswered() == []

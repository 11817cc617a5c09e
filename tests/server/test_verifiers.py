"""Signatures of answers, checked in processes of their own."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.names import heartbeat_key, result_key
from server.checking import Sent
from server.verifiers import Refused, Verdict, Verifiers, verdict_of
from tests.support.broker import AgentKey
from tests.support.fleet import digest, make_action
from tests.support.relay import make_result

AGENT, OTHER = AgentKey(), AgentKey()
ACTION = make_action()
GOOD = make_result(AGENT, ACTION, digest(ACTION))


def sent(body: bytes = GOOD, **changed: Any) -> Sent:
    message = Sent(result_key(AGENT.id), AGENT.id, body, AGENT.public)
    return message._replace(**changed)


def judge(verifiers: Verifiers, *batch: Sent) -> list[Verdict]:
    return asyncio.run(verifiers.judge(batch))


@pytest.fixture(scope="module")
def workers() -> Iterator[Verifiers]:
    verifiers = Verifiers.fork(2)
    yield verifiers
    verifiers.close()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (sent(routing_key=result_key(OTHER.id)), "forbidden"),
        (sent(routing_key=heartbeat_key(AGENT.id)), "forbidden"),
        (sent(user_id="mig-server"), "forbidden"),
        (sent(public_key=None), "forbidden"),
        (sent(public_key=OTHER.public), "bad-signature"),
        (sent(make_result(OTHER, ACTION, digest(ACTION))), "bad-signature"),
        (sent(make_result(AGENT, ACTION, digest(ACTION), agent=OTHER.id)), "forbidden"),
        (sent(GOOD.replace(b'"payload":"', b'"payload":"AAAA')), "bad-signature"),
        (sent(b"{"), "bad-json"),
        (sent(b""), "bad-json"),
        (sent(b"{}"), "bad-envelope"),
    ],
)
def test_what_is_not_an_agents_own_signed_answer_is_refused(message: Sent, code: str) -> None:
    verdict = verdict_of(message)
    assert verdict.refused is not None
    assert (verdict.checked, verdict.refused.code) == (None, code)


def test_an_answer_is_read_as_far_as_the_platform_needs_it() -> None:
    checked = verdict_of(sent()).checked
    assert checked is not None
    assert (checked.facts.action, checked.facts.status, checked.facts.found) == (ACTION.id, "done", True)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_worker_says_what_this_process_would_say(workers: Verifiers, data: st.DataObject) -> None:
    body = data.draw(
        st.one_of(
            st.just(GOOD),
            st.binary(max_size=64),
            st.integers(0, len(GOOD) - 1).map(lambda at: GOOD[:at] + b"x" + GOOD[at + 1 :]),
        )
    )
    batch = [sent(body)] * data.draw(st.integers(1, 5))
    assert judge(workers, *batch) == [verdict_of(message) for message in batch]


def test_verdicts_come_in_the_order_of_the_messages(workers: Verifiers) -> None:
    batch = [sent() if number % 3 else sent(b"{") for number in range(50)]
    assert [verdict.checked is not None for verdict in judge(workers, *batch)] == [
        bool(number % 3) for number in range(50)
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_that_is_killed_loses_nothing(count: int, caplog: pytest.LogCaptureFixture) -> None:
    verifiers = Verifiers.fork(count)
    try:
        os.kill(verifiers.pids[0], signal.SIGKILL)
        assert all(verdict.checked for verdict in judge(verifiers, *[sent()] * 40))
        assert verifiers.count == count - 1
        assert "a verifier is gone" in caplog.text
    finally:
        verifiers.close()


def test_a_worker_that_talks_nonsense_is_not_believed() -> None:
    verifiers = Verifiers.fork(1)
    [worker] = verifiers._workers

    async def twisted() -> list[Verdict]:
        # What it is asked here is no question: it ends, with nothing said.
        await asyncio.get_running_loop().sock_sendall(worker.socket, b"\x00\x00\x00\x01\xc1")
        return await verifiers.judge([sent()])

    assert [verdict.checked is not None for verdict in asyncio.run(twisted())] == [True]
    assert verifiers.count == 0


def test_without_workers_this_process_judges() -> None:
    assert judge(Verifiers(), sent(), sent(b"{}"))[1].refused == Refused("bad-envelope", judge_detail())


def judge_detail() -> str:
    refused = verdict_of(sent(b"{}")).refused
    assert refused is not None
    return refused.detail


@pytest.mark.slow
def test_workers_end_with_the_process_that_forked_them() -> None:
    code = (
        "import os, signal; from server.verifiers import Verifiers;"
        "print(*Verifiers.fork(2).pids, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # The workers hold the pipe too: it ends when the last of them has.
        pids = process.stdout.read().split()
    assert len(pids) == 2

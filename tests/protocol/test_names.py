"""Names of queues and commands, which several programs must make alike."""

import hashlib

import pytest

from protocol.names import (
    agent_queue,
    command_id,
    heartbeat_key,
    is_agent_id,
    is_fingerprint,
    result_key,
)
from tests.support.documents import ACTION_ID, AGENT


def test_a_command_is_one_action_on_one_agent_once() -> None:
    ids = {
        command_id(action, agent, when) for action in ("a", "b") for agent in ("c", "d") for when in ("", "e")
    }
    assert len(ids) == 8
    expected = hashlib.sha256(f"{ACTION_ID}\n{AGENT}\n".encode()).hexdigest()[:32]
    assert command_id(ACTION_ID, AGENT, "") == expected


def test_queues_and_keys_hold_the_agents_id() -> None:
    assert (agent_queue(AGENT), heartbeat_key(AGENT), result_key(AGENT)) == (
        f"mig.agent.{AGENT}",
        f"heartbeat.{AGENT}",
        f"result.{AGENT}",
    )


@pytest.mark.parametrize("text", ["", AGENT[:-1], AGENT + "0", AGENT.upper(), AGENT + "\n", "#", "é" * 32])
def test_what_is_no_id_is_told(text: str) -> None:
    assert is_agent_id(AGENT)
    assert not is_agent_id(text)


@pytest.mark.parametrize("text", ["", "A" * 39, "A" * 41, "a" * 40, "A" * 40 + "\n", "G" * 40])
def test_what_is_no_fingerprint_is_told(text: str) -> None:
    assert is_fingerprint("0123456789ABCDEF0123456789ABCDEF01234567")
    assert not is_fingerprint(text)

"""The table of a command's states."""

import pytest

from protocol.command import FINAL_STATES, TRANSITIONS, CommandState, is_transition

WAITING = set(CommandState) - FINAL_STATES
ANSWERED = {CommandState.DONE, CommandState.FAILED, CommandState.TIMED_OUT}


def test_every_state_has_a_row_and_waits_or_is_final() -> None:
    assert set(TRANSITIONS) == set(CommandState)
    assert {CommandState.PENDING, CommandState.SENT, CommandState.ACKNOWLEDGED} == WAITING


@pytest.mark.parametrize("state", WAITING)
def test_what_waits_can_end_in_every_way(state: CommandState) -> None:
    assert TRANSITIONS[state] >= FINAL_STATES


@pytest.mark.parametrize("state", ANSWERED)
def test_an_answer_is_never_undone(state: CommandState) -> None:
    assert not any(is_transition(state, after) for after in CommandState)


def test_an_answer_overtakes_a_refusal_an_expiry_and_a_cancel() -> None:
    for state in (CommandState.REFUSED, CommandState.EXPIRED, CommandState.CANCELLED):
        assert TRANSITIONS[state] >= ANSWERED


def test_only_a_refused_command_can_be_sent_again_once_it_ended() -> None:
    reopened = {state for state in FINAL_STATES if TRANSITIONS[state] & WAITING}
    assert reopened == {CommandState.REFUSED}


def test_what_an_agent_has_in_its_journal_is_not_sent_again() -> None:
    assert not is_transition(CommandState.ACKNOWLEDGED, CommandState.PENDING)
    assert not is_transition(CommandState.ACKNOWLEDGED, CommandState.SENT)
    assert is_transition(CommandState.SENT, CommandState.PENDING)


@pytest.mark.parametrize("state", CommandState)
def test_no_state_follows_itself_and_all_can_be_reached(state: CommandState) -> None:
    assert not is_transition(state, state)
    assert any(is_transition(before, state) for before in CommandState)

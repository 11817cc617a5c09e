"""How an action is to be sent, as the command line says it."""

from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.main import run_command_line
from client.sending import Sending, campaign_text, choose_sending
from protocol.documents import Campaign, CampaignState, Pacing
from protocol.errors import InvalidInput


def test_an_action_like_any_other_adds_nothing_to_the_query() -> None:
    assert choose_sending({}).query() == {}
    assert not choose_sending({}).is_paced


def test_what_is_chosen_stands_in_the_query() -> None:
    options = {
        "is_wide": True,
        "waves": "1, 10",
        "concurrency": 50,
        "rate": 0.5,
        "stop_at": "20%",
        "wave_wait": "2m",
    }
    sending = choose_sending(options)
    assert sending.query() == {
        "all": "true",
        "waves": "1,10",
        "concurrency": "50",
        "rate": "0.5",
        "stop_at": "20.0",
        "wave_wait": "120",
    }
    assert sending.describe() == (
        "in waves of 1, 10 and the rest, 50 at a time, 0.5 a second, until 20% of the answers are failures"
    )


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"waves": "0,1"}, "numbers of agents"),
        ({"waves": ""}, "numbers of agents"),
        ({"waves": "1,x"}, "numbers of agents"),
        ({"waves": ",".join(["1"] * 17)}, "at most 16"),
        ({"rate": float("nan")}, "not a number"),
        ({"waves": "1", "stop_at": "0%"}, "not a share"),
        ({"waves": "1", "stop_at": "101%"}, "not a share"),
        ({"waves": "1", "stop_at": "-1"}, "not a share"),
        ({"waves": "1", "wave_wait": "8d"}, "at most 7d"),
        ({"waves": "1", "wave_wait": "soon"}, "not a duration"),
        ({"stop_at": "20%"}, "nothing is held back"),
        ({"wave_wait": "20s"}, "nothing is held back"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], refusal: str) -> None:
    with pytest.raises(InvalidInput, match=refusal):
        choose_sending(options)


def test_this_machine_alone_is_not_paced(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["agentinfo", "-t", "local", "--waves", "1"]) == 2
    assert "there is nothing to hold back" in capsys.readouterr().err


def test_a_rate_that_outlasts_the_action_is_told() -> None:
    sending = Sending(rate=2.0)
    assert not sending.too_slow(600, timedelta(minutes=5))
    problem = sending.too_slow(601, timedelta(minutes=5))
    assert problem == "601 agents at 2 a second take 300 s, and the action is valid for 300 s: say --expire"


@given(st.sampled_from(get_args(CampaignState)), st.text(), st.integers(), st.integers())
def test_whatever_a_server_says_of_a_campaign_is_one_safe_line(
    state: CampaignState, reason: str, wave: int, held: int
) -> None:
    campaign = Campaign(state=state, wave=wave, held=held, reason=reason, pacing=Pacing(waves=(1,)))
    assert campaign_text(campaign).isprintable()

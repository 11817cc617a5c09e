"""Tests of the smallest module."""

import pytest

from agent.execute import run_operation
from agent.module import Context, decode_params
from agent.modules.agentinfo import Params
from protocol.errors import InvalidInput


def test_agentinfo_answers_with_the_facts_of_the_agent() -> None:
    facts = {"id": "0" * 32, "name": "web1", "modules": ["agentinfo"], "tags": {"operator": "it"}}
    result = run_operation("agentinfo", {}, Context(facts=facts))
    assert result.found
    assert result.status == "ok"
    assert result.records[0]["name"] == "web1"
    assert result.records[0]["tags"] == {"operator": "it"}


def test_agentinfo_takes_no_parameters() -> None:
    with pytest.raises(InvalidInput, match="unknown field `anything`"):
        decode_params(Params, {"anything": 1})

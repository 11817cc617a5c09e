"""Tests of the declaration of what can be asked of the network: what is taken, and bounds on it."""

from typing import Any

import pytest

from agent.module import decode_params
from agent.modules.netstat import Params
from agent.scan.net_question import ADDRESSES, EXPRESSIONS, PORTS, NetworkQuestion
from protocol.errors import InvalidInput


def test_every_list_is_empty_by_default() -> None:
    question = NetworkQuestion()
    assert all(getattr(question, name) == () for name in (*ADDRESSES, *EXPRESSIONS, *PORTS))
    assert not question.namespaces


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses_are_addresses_or_ranges_in_either_family(name: str) -> None:
    values = ["10.0.0.1", "!10.0.0.0/8", "fd00::/8", "::ffff:192.0.2.1", "0.0.0.0/0"]
    assert getattr(decode_params(Params, {name: values}), name) == tuple(values)
    for wrong in ("host.example", "", "10.0.0.0/99", "!", "1" * 65):
        with pytest.raises(InvalidInput, match=name):
            decode_params(Params, {name: [wrong]})


@pytest.mark.parametrize("name", PORTS)
def test_ports_are_numbers_or_ranges(name: str) -> None:
    values = ["0", "65535", "8000-8100", "!22"]
    assert getattr(decode_params(Params, {name: values}), name) == tuple(values)
    for wrong in ("65536", "http", "", "1-", "!!1", "2-1", "22\n"):
        with pytest.raises(InvalidInput, match=name):
            decode_params(Params, {name: [wrong]})


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_are_those_of_re2(name: str) -> None:
    decode_params(Params, {name: ["^x", "!y$", "!"]})
    for wrong in ("(", "!(", "(?=x)", ""):
        with pytest.raises(InvalidInput, match=name):
            decode_params(Params, {name: [wrong]})


@pytest.mark.parametrize(
    ("parameters", "member"),
    [
        ({"pids": [0]}, "pids"),
        ({"pids": [1 << 23]}, "pids"),
        ({"users": ["a b"]}, "users"),
        ({"containers": ["*x"]}, "containers"),
        ({"families": ["ipx"]}, "families"),
        ({"protocols": ["TCP"]}, "protocols"),
        ({"listeningports": ["1"] * 1001}, "listeningports"),
        ({"connectedips": ["10.0.0.1"] * 10_001}, "connectedips"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_its_name(parameters: dict[str, Any], member: str) -> None:
    with pytest.raises(InvalidInput, match=member):
        decode_params(Params, parameters)

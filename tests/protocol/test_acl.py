"""Access control: weights are added for who signed, and nobody satisfies nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.acl import Acl, convert_acl
from protocol.errors import InvalidInput
from tests.support.documents import decode_or_refuse, json_values

ADA, BOB, EVE = "A" * 40, "B" * 40, "E" * 40
ACL = convert_acl(
    {
        "default": {"minimum_weight": 2, "investigators": {ADA: 2, BOB: 1}},
        "file": {"minimum_weight": 3, "investigators": {ADA: 2, BOB: 1}},
    }
)


@pytest.mark.parametrize(
    ("module", "signers"),
    [("netstat", {ADA}), ("netstat", {ADA, EVE}), ("file", {ADA, BOB}), ("file", {ADA, BOB, EVE})],
)
def test_enough_weight_is_allowed(module: str, signers: set[str]) -> None:
    ACL.require(module, frozenset(signers))


@pytest.mark.parametrize(
    ("module", "signers", "weight"),
    [
        ("netstat", set(), 0),
        ("netstat", {BOB}, 1),
        ("netstat", {EVE}, 0),
        ("file", {ADA}, 2),
        ("file", {ADA, EVE}, 2),
        ("file", {ADA.lower(), BOB}, 1),
    ],
)
def test_too_little_weight_is_refused(module: str, signers: set[str], weight: int) -> None:
    with pytest.raises(InvalidInput, match=f"acl-refused: module {module} needs .* have {weight}$"):
        ACL.require(module, frozenset(signers))


def test_a_module_may_ask_for_more_weight_where_no_entry_is_its_own() -> None:
    with pytest.raises(InvalidInput, match="module sniffer needs weight 3, the signers have 2"):
        ACL.require("sniffer", {ADA}, 3)
    ACL.require("sniffer", {ADA, BOB}, 3)
    with pytest.raises(InvalidInput, match="module sniffer needs weight 2, the signers have 1"):
        ACL.require("sniffer", {BOB}, 1)
    # Who wrote an entry for the module has said what it needs.
    ACL.require("file", {ADA, BOB}, 9)


def test_a_module_of_its_own_entry_does_not_fall_back_to_the_default() -> None:
    acl = convert_acl(
        {
            "default": {"minimum_weight": 1, "investigators": {ADA: 1}},
            "file": {"minimum_weight": 1, "investigators": {BOB: 1}},
        }
    )
    with pytest.raises(InvalidInput, match="acl-refused"):
        acl.require("file", frozenset({ADA}))


def test_without_an_entry_or_default_everybody_is_refused() -> None:
    for acl in (Acl(entries={}), convert_acl({"file": {"minimum_weight": 1, "investigators": {ADA: 1}}})):
        with pytest.raises(InvalidInput, match="no ACL entry for module netstat and no default"):
            acl.require("netstat", frozenset({ADA}))


def test_an_acl_that_nobody_can_satisfy_is_refused_when_it_is_built() -> None:
    ACL.require_satisfiable()
    with pytest.raises(InvalidInput, match="bad-config: the ACL is empty"):
        convert_acl({}).require_satisfiable()
    with pytest.raises(InvalidInput, match=r"bad-config: acl\.file: all investigators together lack"):
        convert_acl({"file": {"minimum_weight": 3, "investigators": {ADA: 2}}}).require_satisfiable()


@pytest.mark.parametrize(
    "entry",
    {
        "nothing": {},
        "no-minimum": {"investigators": {ADA: 1}},
        "no-investigators": {"minimum_weight": 1},
        "empty-investigators": {"minimum_weight": 1, "investigators": {}},
        "minimum-zero": {"minimum_weight": 0, "investigators": {ADA: 1}},
        "minimum-negative": {"minimum_weight": -1, "investigators": {ADA: 1}},
        "minimum-true": {"minimum_weight": True, "investigators": {ADA: 1}},
        "minimum-float": {"minimum_weight": 0.5, "investigators": {ADA: 1}},
        "weight-zero": {"minimum_weight": 1, "investigators": {ADA: 0}},
        "weight-negative": {"minimum_weight": 1, "investigators": {ADA: 2, BOB: -1}},
        "weight-huge": {"minimum_weight": 1, "investigators": {ADA: 1001}},
        "key-id": {"minimum_weight": 1, "investigators": {ADA[-16:]: 1}},
        "lower-case": {"minimum_weight": 1, "investigators": {ADA.lower(): 1}},
        "line-break": {"minimum_weight": 1, "investigators": {ADA + "\n": 1}},
        "unknown": {"minimum_weight": 1, "investigators": {ADA: 1}, "minimum_wieght": 9},
        "no-table": 1,
    }.values(),
)
def test_an_entry_that_is_not_complete_is_refused(entry: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^bad-config: acl: .*file|^bad-config: acl: .*\[\.\.\.\]"):
        convert_acl({"file": entry})


@given(json_values | st.dictionaries(st.text(), json_values))
def test_any_value_gives_an_acl_or_a_refusal(value: Any) -> None:
    acl = decode_or_refuse(convert_acl, value, "bad-config")
    if acl is not None:
        assert acl.entries == {}
        with pytest.raises(InvalidInput, match="acl-refused"):
            acl.require("file", frozenset({ADA}))


weights = st.integers(1, 1000)


@given(
    weights,
    st.dictionaries(st.sampled_from([ADA, BOB]), weights, min_size=1),
    st.sets(st.sampled_from([ADA, BOB, EVE])),
)
def test_signers_are_allowed_exactly_where_their_weights_reach(
    minimum: int, investigators: dict[str, int], signers: set[str]
) -> None:
    acl = convert_acl({"default": {"minimum_weight": minimum, "investigators": investigators}})
    try:
        acl.require("file", frozenset(signers))
    except InvalidInput:
        is_allowed = False
    else:
        is_allowed = True
    assert is_allowed == (sum(investigators.get(signer, 0) for signer in signers) >= minimum)

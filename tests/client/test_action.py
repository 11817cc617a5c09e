import contextlib
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.action import (
    Completion,
    SignedAction,
    complete_action,
    new_action_id,
    parse_duration,
    read_action_file,
)
from protocol.action import convert_action, decode_action, encode_action
from protocol.envelope import ACTION, MAX_ENVELOPE_BYTES, Envelope, encode_envelope
from protocol.errors import InvalidInput

NOW = datetime(2026, 11, 20, 12, 0, 30, 5, tzinfo=UTC)
COMPLETION = Completion(NOW)
OPERATIONS = [{"module": "agentinfo", "parameters": {}}]
TEMPLATE: dict[str, Any] = {"name": "who is there", "operations": OPERATIONS, "syntaxversion": 2}


def test_a_template_becomes_a_complete_action() -> None:
    action = complete_action(TEMPLATE, COMPLETION).action
    assert action.target == "status = 'online'"
    assert action.validfrom == NOW.replace(microsecond=0) - timedelta(seconds=60)
    assert action.expireafter == NOW.replace(microsecond=0) + timedelta(minutes=5)
    assert decode_action(encode_action(action)) == action


def test_ids_are_version_7_and_sort_by_time() -> None:
    first, second = new_action_id(), new_action_id()
    assert re.match(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z", first)
    assert first != second
    assert first[:13] <= second[:13]


def test_the_command_line_sets_target_and_expiry() -> None:
    completion = Completion(NOW, "name = 'web1'", 3600)
    action = complete_action({**TEMPLATE, "target": "os = 'linux'"}, completion).action
    assert action.target == "name = 'web1'"
    assert action.expireafter - NOW.replace(microsecond=0) == timedelta(hours=1)


def test_times_and_id_that_stand_in_a_file_are_kept() -> None:
    complete = json.loads(encode_action(complete_action(TEMPLATE, COMPLETION).action))
    later = Completion(NOW + timedelta(days=3), expire_s=9)
    assert json.loads(encode_action(complete_action(complete, later).action)) == complete


def test_what_the_ancestors_platform_wrote_is_dropped_and_said() -> None:
    old = {
        **TEMPLATE,
        "id": 12345,
        "pgpsignatures": [],
        "counters": {},
        "validfrom": "0001-01-01T00:00:00Z",
        "expireafter": "0001-01-01T00:00:00Z",
        "operations": [{**OPERATIONS[0], "is_compressed": False}],
    }
    completed = complete_action(old, COMPLETION)
    assert completed.notes == ("dropped what a platform wrote into the file: counters, pgpsignatures, id",)
    assert completed.action.operations[0].module == "agentinfo"


def test_the_ancestors_words_in_a_target_are_rewritten() -> None:
    completed = complete_action({**TEMPLATE, "target": "environment->>'os' = 'linux'"}, COMPLETION)
    assert completed.action.target == "os = 'linux'"
    assert completed.notes == ("the target is written os = 'linux' here",)


def test_a_target_without_them_stays_as_it_was_written() -> None:
    target = "agents.os='linux'  AND (name LIKE 'web%')"
    assert complete_action({**TEMPLATE, "target": target}, COMPLETION).action.target == target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"opertions": []}, "unknown member 'opertions'"),
        ({"operations": []}, "at least one operation"),
        ({"operations": [{"parameters": {}}]}, r"operations\[0\] has no module"),
        ({"operations": [{"module": "nothing"}]}, "unknown-module"),
        (
            {"operations": [{"module": "agentinfo", "parameters": {"x": 1}}]},
            r"bad-parameters: operations\[0\]",
        ),
        ({"operations": [{"module": "agentinfo", "paramters": {}}]}, "unknown member 'paramters'"),
        ({"operations": [{"module": "agentinfo", "is_compressed": True}]}, "compressed"),
        ({"name": ""}, "bad-action"),
        ({"target": 5}, "bad-action"),
        ({"target": "os = "}, "bad-target"),
        ({"syntaxversion": 1}, "bad-action"),
        ({"validfrom": "2026-11-20T12:00:00Z"}, "give both times or neither"),
        ({"validfrom": "2026-11-20T12:00:00Z", "expireafter": "2026-11-20T11:00:00Z"}, "not before"),
        ({"description": {"autor": "x"}}, "bad-action"),
    ],
)
def test_a_template_that_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        complete_action({**TEMPLATE, **change}, COMPLETION)


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["id", "name", "target", "operations", "module", "parameters", "validfrom"]),
                inner,
            )
        ),
    )
)
def test_any_document_gives_an_action_or_a_refusal(document: Any) -> None:
    with contextlib.suppress(InvalidInput):
        assert decode_action(encode_action(complete_action(document, COMPLETION).action)).syntaxversion == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("1d1h1m1s", 90061)]
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m5", "5 m", "-5m", "0s", "1.5h", "5w", "9999999d", "5m\n", "٣m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="usage"):
        parse_duration(text)


def test_a_signed_file_is_recognised(tmp_path: Path) -> None:
    action = complete_action(TEMPLATE, COMPLETION).action
    envelope = Envelope(ACTION, encode_action(action), ())
    path = tmp_path / "x.signed.json"
    path.write_bytes(encode_envelope(envelope))
    assert read_action_file(path) == SignedAction(envelope, action)


def test_a_file_that_is_too_large_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b" " * (MAX_ENVELOPE_BYTES + 1))
    with pytest.raises(InvalidInput, match="too-large"):
        read_action_file(path)
    with pytest.raises(InvalidInput, match="No such file"):
        read_action_file(tmp_path / "none.json")


@pytest.mark.parametrize("path", sorted(Path("actions").glob("*.json")), ids=lambda path: path.name)
def test_every_action_that_we_ship_is_complete_and_canonical(path: Path) -> None:
    completed = complete_action(read_action_file(path), COMPLETION)
    assert convert_action(json.loads(encode_action(completed.action))) == completed.action


def yara_template(rules: str) -> dict[str, Any]:
    parameters = {"rules": {"kit": rules}, "searches": {"s": {"paths": ["/srv"]}}}
    return {**TEMPLATE, "operations": [{"module": "yara", "parameters": parameters}]}


def test_rules_are_compiled_before_anything_is_signed() -> None:
    with pytest.raises(
        InvalidInput, match=r"operations\[0\]: rules kit, line 1, column 21: unknown identifier"
    ):
        complete_action(yara_template("rule r { condition: nope }"), COMPLETION)
    slow = "rule r { strings: $a = { 00 [1-9] 01 } condition: $a }"
    assert "slow pattern" in complete_action(yara_template(slow), COMPLETION).notes[0]


def test_without_the_engine_it_is_said_that_nobody_has_compiled_the_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What Python does where there is no such package.
    monkeypatch.setitem(sys.modules, "yara_x", None)
    completed = complete_action(yara_template("rule r { condition: nope }"), COMPLETION)
    assert completed.notes[0].startswith("the rules were not compiled here")

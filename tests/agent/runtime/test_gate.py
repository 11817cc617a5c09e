"""Each step of the gate, with its refusals by name, on signatures that a real gpg made."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import AgentLimits, Baked
from agent.runtime.gate import STEPS, Admission, Gate, Refusal, make_endpoint
from agent.runtime.trust import Trust, make_trust
from protocol.envelope import (
    ACTION,
    MAX_ENVELOPE_BYTES,
    RESULT,
    Envelope,
    Signature,
    decode_envelope,
    encode_envelope,
)
from protocol.errors import InvalidInput
from tests.support.endpoint import FACTS, make_action, make_baked, sign_action, utc_now
from tests.support.gpg import Investigator


def trust_of(baked: Baked) -> Trust:
    return make_trust(baked.keys, baked.acl, baked.config.max_validity_s, baked.config.limits)


def make_gate(body: bytes, trust: Trust, **changes: Any) -> Gate:
    arguments = {"endpoint": make_endpoint(FACTS), "now": utc_now(), **changes}
    return Gate(body, trust=trust, **arguments)


@pytest.fixture(scope="module")
def trust(ada: Investigator) -> Trust:
    """An endpoint that trusts Ada, and nobody else, with everything."""
    return trust_of(make_baked([ada]))


@pytest.fixture(scope="module")
def signed(ada: Investigator) -> bytes:
    """One delivery in order."""
    return sign_action(ada)


def refusal_of(body: bytes, trust: Trust, **changes: Any) -> tuple[int, str]:
    with pytest.raises(Refusal, match=r"^[a-z-]+: .") as caught:
        make_gate(body, trust, **changes).admit()
    return caught.value.step, caught.value.code


def test_an_action_in_order_is_admitted_with_its_digest_and_its_signers(
    trust: Trust, ada: Investigator
) -> None:
    body = sign_action(ada)
    admission = make_gate(body, trust).admit()
    assert isinstance(admission, Admission)
    assert admission.digest == decode_envelope(body, ACTION).digest
    assert admission.signers == {ada.fingerprint}
    assert admission.action.name == "What are you?"


def test_a_verdict_is_given_on_every_step_up_to_the_first_refusal(trust: Trust, ada: Investigator) -> None:
    passed = list(make_gate(sign_action(ada), trust).judge())
    assert [verdict.step for verdict in passed] == list(range(1, len(STEPS) + 1))
    assert all(verdict.refusal is None for verdict in passed)
    stopped = list(make_gate(sign_action(ada, target="os = 'plan9'"), trust).judge())
    assert [verdict.refusal is None for verdict in stopped] == [True] * 6 + [False]


# -- 1 size, 2 envelope ----------------------------------------------------------------------------------


def test_step_1_refuses_what_is_larger_than_an_envelope(trust: Trust) -> None:
    assert refusal_of(bytes(MAX_ENVELOPE_BYTES + 1), trust) == (1, "too-large")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad-json"),
        (b"\xff\xfe", "bad-json"),
        (b"[" * 100_000, "bad-json"),
        (b'{"payloadType": "x", "payloadType": "y"}', "bad-json"),
        (b"{}", "bad-envelope"),
        (b'{"payloadType": "x", "payload": "", "signatures": []}', "wrong-type"),
        (encode_envelope(Envelope(RESULT, b"{}", ())), "wrong-type"),
        (
            b'{"payloadType": "application/vnd.mig.action+json", "payload": "?", "signatures": []}',
            "bad-envelope",
        ),
    ],
)
def test_step_2_refuses_what_is_not_an_envelope_of_an_action(body: bytes, code: str, trust: Trust) -> None:
    assert refusal_of(body, trust) == (2, code)


# -- 3 signatures ----------------------------------------------------------------------------------------


def test_step_3_refuses_an_action_without_a_signature(trust: Trust) -> None:
    assert refusal_of(sign_action(payload=json.dumps(make_action()).encode()), trust) == (3, "unsigned")


def test_step_3_refuses_an_action_signed_by_a_stranger(trust: Trust, bob: Investigator) -> None:
    assert refusal_of(sign_action(bob), trust) == (3, "unsigned")


def test_step_3_refuses_a_strangers_signature_under_a_trusted_name(
    trust: Trust, ada: Investigator, bob: Investigator
) -> None:
    envelope = decode_envelope(sign_action(bob), ACTION)
    forged = envelope._replace(signatures=(Signature(ada.fingerprint, envelope.signatures[0].sig),))
    assert refusal_of(encode_envelope(forged), trust) == (3, "unsigned")


def test_step_3_refuses_a_payload_changed_after_signing(trust: Trust, ada: Investigator) -> None:
    envelope = decode_envelope(sign_action(ada), ACTION)
    changed = envelope._replace(payload=envelope.payload.replace(b"'linux'", b"'Linux'"))
    assert refusal_of(encode_envelope(changed), trust) == (3, "unsigned")


def test_step_3_refuses_a_signature_over_another_type_of_document(trust: Trust, ada: Investigator) -> None:
    payload = json.dumps(make_action()).encode()
    moved = Envelope(ACTION, payload, ada.sign(RESULT, payload).signatures)
    assert refusal_of(encode_envelope(moved), trust) == (3, "unsigned")


def test_step_3_trusts_nobody_without_keys(ada: Investigator, trust: Trust) -> None:
    nobody = trust._replace(keyring=type(trust.keyring)(()))
    assert refusal_of(sign_action(ada), nobody) == (3, "unsigned")


def test_a_bad_signature_beside_a_good_one_counts_nothing(
    trust: Trust, ada: Investigator, bob: Investigator
) -> None:
    assert make_gate(sign_action(bob, ada), trust).admit().signers == {ada.fingerprint}


# -- 4 decoding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "bad-json"),
        (b"{} {}", "bad-json"),
        (b'{"id": NaN}', "bad-json"),
        (b'{"name": 1, "name": 2}', "bad-json"),
        (b"[" * 100_000, "bad-json"),
        (b"[]", "bad-action"),
        (json.dumps(make_action(unknown=1)).encode(), "bad-action"),
        (json.dumps(make_action(target=None)).encode(), "bad-action"),
        (json.dumps(make_action(syntaxversion=1)).encode(), "bad-action"),
        (json.dumps(make_action(operations=[])).encode(), "bad-action"),
        (json.dumps(make_action(id="../../etc/passwd")).encode(), "bad-action"),
        (json.dumps(make_action(validfrom="2026-01-01T00:00:00")).encode(), "bad-action"),
        (
            json.dumps(make_action(operations=[{"module": "../file", "parameters": {}}])).encode(),
            "bad-action",
        ),
    ],
)
def test_step_4_refuses_a_signed_payload_that_is_not_exactly_an_action(
    payload: bytes, code: str, trust: Trust, ada: Investigator
) -> None:
    assert refusal_of(sign_action(ada, payload=payload), trust) == (4, code)


def test_a_refusal_carries_the_actions_id_only_once_a_trusted_signature_covers_it(
    trust: Trust, ada: Investigator, bob: Investigator
) -> None:
    action = make_action(unknown=1)
    payload = json.dumps(action).encode()
    with pytest.raises(Refusal, match="bad-action") as trusted:
        make_gate(sign_action(ada, payload=payload), trust).admit()
    assert trusted.value.action_id == action["id"]
    with pytest.raises(Refusal, match="unsigned") as stranger:
        make_gate(sign_action(bob, payload=payload), trust).admit()
    assert stranger.value.action_id == ""


# -- 5 validity, 6 replay --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("starts_s", "ends_s", "code"),
    [
        (-7200, -3600, "expired"),
        (-7200, 0, "expired"),
        (60, 3600, "not-yet-valid"),
        (-60, 8 * 86400, "validity-too-long"),
        (-60, 7 * 86400, "validity-too-long"),
    ],
)
def test_step_5_refuses_outside_of_the_validity_window_and_windows_that_are_too_long(
    starts_s: int, ends_s: int, code: str, trust: Trust, ada: Investigator
) -> None:
    now = utc_now()
    body = sign_action(
        ada,
        validfrom=(now + timedelta(seconds=starts_s)).isoformat(),
        expireafter=(now + timedelta(seconds=ends_s)).isoformat(),
    )
    assert refusal_of(body, trust, now=now) == (5, code)


@pytest.mark.parametrize("offset_s", [-60.0, 299.999])
def test_the_validity_window_includes_its_start_and_excludes_its_end(
    offset_s: float, trust: Trust, ada: Investigator
) -> None:
    now = utc_now()
    start, end = now - timedelta(seconds=60), now + timedelta(minutes=5)
    body = sign_action(ada, validfrom=start.isoformat(), expireafter=end.isoformat())
    assert make_gate(body, trust, now=now + timedelta(seconds=offset_s)).admit()
    assert refusal_of(body, trust, now=end) == (5, "expired")


def test_step_6_asks_whether_it_was_run_before(trust: Trust, ada: Investigator) -> None:
    asked: list[tuple[str, str]] = []

    def refuse(digest: str, occurrence: str, _expires: object, _signers: object) -> None:
        asked.append((digest, occurrence))
        raise InvalidInput("replayed")

    body = sign_action(ada)
    assert refusal_of(body, trust, require_not_run=refuse) == (6, "replayed")
    assert asked == [(decode_envelope(body, ACTION).digest, "")]


# -- 7 target --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("os = 'windows'", "not-targeted"),
        ("name = 'web2.example.net'", "not-targeted"),
        ("status = 'online' AND tags->>'operator' = 'sales'", "not-targeted"),
        ("tags->>'absent' = 'x'", "not-targeted"),
        ("NOT tags->>'absent' = 'x'", "not-targeted"),
        ("os = 'linux' OR status = 'online'", "bad-target"),
        ("1=1; DROP TABLE agents", "bad-target"),
        ("os = ", "bad-target"),
    ],
)
def test_step_7_refuses_an_endpoint_that_the_signed_target_does_not_match(
    target: str, code: str, trust: Trust, ada: Investigator
) -> None:
    assert refusal_of(sign_action(ada, target=target), trust) == (7, code)


@pytest.mark.parametrize(
    "target", ["status = 'online'", "name LIKE 'web%'", "id = '0123456789abcdef0123456789abcdef'"]
)
def test_an_endpoint_that_the_target_matches_is_admitted(
    target: str, trust: Trust, ada: Investigator
) -> None:
    assert make_gate(sign_action(ada, target=target), trust).admit()


# -- 8 modules, 9 ACL, 10 limits -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "parameters", "code"),
    [
        ("nosuch", {}, "unknown-module"),
        ("filechecker", {}, "unknown-module"),
        ("agentinfo", {"unknown": 1}, "bad-parameters"),
        ("agentinfo", [], "bad-parameters"),
        ("agentinfo", None, "bad-parameters"),
    ],
)
def test_step_8_refuses_modules_that_are_not_built_in_and_parameters_that_do_not_decode(
    module: str, parameters: Any, code: str, trust: Trust, ada: Investigator
) -> None:
    operations = [
        {"module": "agentinfo", "parameters": {}},
        {"module": module, "parameters": parameters},
    ]
    assert refusal_of(sign_action(ada, operations=operations), trust) == (8, code)


def acl(minimum: int, *weights: tuple[Investigator, int]) -> dict[str, Any]:
    named = {investigator.fingerprint: weight for investigator, weight in weights}
    return {"minimum_weight": minimum, "investigators": named}


MakeAcl = Callable[[Investigator, Investigator], dict[str, Any]]


@pytest.mark.parametrize(
    "entries",
    [
        lambda ada, _bob: {"default": acl(2, (ada, 1))},
        lambda _ada, bob: {"default": acl(1, (bob, 1))},
        lambda ada, bob: {"default": acl(1, (ada, 1)), "agentinfo": acl(1, (bob, 1))},
        lambda ada, _bob: {"file": acl(1, (ada, 1))},
    ],
    ids=[
        "too little weight",
        "trusted but not listed",
        "the module's own entry wins",
        "no entry, no default",
    ],
)
def test_step_9_refuses_signers_without_the_weight(
    entries: MakeAcl, ada: Investigator, bob: Investigator
) -> None:
    trust = trust_of(make_baked([ada, bob], acl=entries(ada, bob)))
    assert refusal_of(sign_action(ada), trust) == (9, "acl-refused")


def test_one_investigator_signing_twice_counts_once(ada: Investigator, bob: Investigator) -> None:
    trust = trust_of(make_baked([ada, bob], acl={"default": acl(2, (ada, 1), (bob, 1))}))
    payload = json.dumps(make_action()).encode()
    assert refusal_of(sign_action(ada, ada, payload=payload), trust) == (9, "acl-refused")
    assert make_gate(sign_action(ada, bob, payload=payload), trust).admit()


def test_every_operation_needs_its_modules_weight(ada: Investigator, bob: Investigator) -> None:
    entries = {"default": acl(1, (ada, 1)), "file": acl(2, (ada, 1), (bob, 1))}
    trust = trust_of(make_baked([ada, bob], acl=entries))
    search = {"searches": {"s": {"paths": ["/etc"], "names": ["^passwd$"]}}}
    operations = [{"module": "agentinfo", "parameters": {}}, {"module": "file", "parameters": search}]
    assert refusal_of(sign_action(ada, operations=operations), trust) == (9, "acl-refused")


def test_step_10_refuses_more_operations_than_the_agent_allows(ada: Investigator) -> None:
    trust = trust_of(make_baked([ada], limits=AgentLimits(max_operations=2)))
    operations = [{"module": "agentinfo", "parameters": {}}] * 3
    assert refusal_of(sign_action(ada, operations=operations), trust) == (10, "over-limit")


# -- whatever comes --------------------------------------------------------------------------------------


@given(st.binary(max_size=512))
def test_any_bytes_are_refused_with_a_code_and_nothing_else(trust: Trust, body: bytes) -> None:
    step, _ = refusal_of(body, trust)
    assert step <= 3


@given(st.data())
def test_a_signed_envelope_with_any_byte_changed_is_refused_or_means_the_same(
    trust: Trust, signed: bytes, data: st.DataObject
) -> None:
    body = bytearray(signed)
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] ^= data.draw(st.integers(1, 255))
    try:
        admission = make_gate(bytes(body), trust).admit()
    except Refusal:
        return
    assert admission.digest == decode_envelope(signed, ACTION).digest


# -- 9 ACL: several signers, path rules ------------------------------------------------------------------


def find_in(*paths: str) -> dict[str, Any]:
    search = {"paths": list(paths), "names": ["x"]}
    return {"module": "file", "parameters": {"searches": {"s1": search}}}


def entry(minimum_weight: int, *investigators: Investigator, **rules: Any) -> dict[str, Any]:
    weights = {investigator.fingerprint: 1 for investigator in investigators}
    return {"minimum_weight": minimum_weight, "investigators": weights, **rules}


def test_step_9_adds_the_weights_of_distinct_signers(ada: Investigator, bob: Investigator) -> None:
    trust = trust_of(make_baked([ada, bob], acl={"default": entry(2, ada, bob)}))
    assert make_gate(sign_action(ada, bob), trust).admit().signers == {ada.fingerprint, bob.fingerprint}
    assert refusal_of(sign_action(ada), trust) == (9, "acl-refused")
    # Two good signatures of the same key are one signer.
    assert refusal_of(sign_action(ada, ada), trust) == (9, "acl-refused")


def test_step_9_takes_a_modules_own_entry_and_nothing_of_the_default(
    ada: Investigator, bob: Investigator
) -> None:
    trust = trust_of(make_baked([ada, bob], acl={"default": entry(1, ada), "file": entry(1, bob)}))
    make_gate(sign_action(ada), trust).admit()
    make_gate(sign_action(bob, operations=[find_in("/etc")]), trust).admit()
    assert refusal_of(sign_action(ada, operations=[find_in("/etc")]), trust) == (9, "acl-refused")
    assert refusal_of(sign_action(bob), trust) == (9, "acl-refused")


@pytest.mark.parametrize("module", ["agentdestroy", "sniffer"])
def test_step_9_asks_two_for_what_is_grave_unless_the_module_has_an_entry(
    ada: Investigator, bob: Investigator, module: str
) -> None:
    operations = [{"module": module, "parameters": {}}]
    trust = trust_of(make_baked([ada, bob], acl={"default": entry(1, ada, bob)}))
    assert refusal_of(sign_action(ada, operations=operations), trust) == (9, "acl-refused")
    make_gate(sign_action(ada, bob, operations=operations), trust).admit()
    trust = trust_of(make_baked([ada], acl={"default": entry(1, ada), module: entry(1, ada)}))
    make_gate(sign_action(ada, operations=operations), trust).admit()


def test_an_alias_reaches_no_acl(ada: Investigator) -> None:
    trust = trust_of(make_baked([ada], acl={"filechecker": entry(1, ada)}))
    operation = {**find_in("/etc"), "module": "filechecker"}
    assert refusal_of(sign_action(ada, operations=[operation]), trust) == (8, "unknown-module")
    assert refusal_of(sign_action(ada, operations=[find_in("/etc")]), trust) == (9, "acl-refused")


def test_step_9_holds_the_paths_that_parameters_name_to_the_rules(ada: Investigator) -> None:
    rules = {"paths": ["/etc", "/usr"], "deny": ["/etc/ssh"]}
    trust = trust_of(make_baked([ada], acl={"default": entry(1, ada), "file": entry(1, ada, **rules)}))
    admission = make_gate(sign_action(ada, operations=[find_in("/etc", "/usr/*")]), trust).admit()
    assert admission.paths == (trust.acl.path_rules("file"),)
    for path in ("/", "/root", "/etc/ssh", "/etc/../root", "/e*"):
        assert refusal_of(sign_action(ada, operations=[find_in("/etc", path)]), trust) == (9, "acl-refused")


def test_step_9_refuses_path_rules_for_a_module_that_cannot_be_held_to_them(
    ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = trust_of(make_baked([ada], acl={"default": entry(1, ada, paths=["/etc"])}))
    make_gate(sign_action(ada), trust).admit()  # agentinfo names no path
    monkeypatch.delattr("agent.modules.agentinfo.PATHS")
    assert refusal_of(sign_action(ada), trust) == (9, "acl-refused")


def test_step_9_refuses_to_ask_for_matched_text_unless_the_entry_allows_it(ada: Investigator) -> None:
    parameters = {"paths": ["/var/log"], "matches": ["(?P<user>x)"]}
    plain = {"module": "log", "parameters": parameters}
    asking = {"module": "log", "parameters": {**parameters, "fields": ["user"]}}
    trust = trust_of(make_baked([ada], acl={"default": entry(1, ada, fields=True), "log": entry(1, ada)}))
    make_gate(sign_action(ada, operations=[plain]), trust).admit()
    assert refusal_of(sign_action(ada, operations=[asking]), trust) == (9, "acl-refused")
    trust = trust_of(make_baked([ada], acl={"log": entry(1, ada, fields=True)}))
    make_gate(sign_action(ada, operations=[asking]), trust).admit()


# -- 3 the trust bundle ----------------------------------------------------------------------------------


def test_step_3_refuses_everything_where_the_trust_has_expired_or_is_missing(
    trust: Trust, ada: Investigator
) -> None:
    assert refusal_of(sign_action(ada), trust._replace(expires=utc_now())) == (3, "trust-expired")
    assert refusal_of(sign_action(ada), trust._replace(version=None, refusal="?")) == (3, "trust-missing")
    make_gate(sign_action(ada), trust._replace(expires=utc_now() + timedelta(hours=1))).admit()

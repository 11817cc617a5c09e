"""The opponent wants an endpoint to run something. It owns the broker: it delivers what it likes.

Promise: an endpoint runs only what its investigators signed, for this endpoint, at this time, once. After
each attack the endpoint still answers its investigator.
"""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from agent.config import AgentLimits
from protocol.envelope import ACTION, CANCEL, LOGIN, TRUST, Envelope, Signature, encode_envelope
from protocol.result import OperationResult, decode_result
from tests.hostile.conftest import MakeEndpoint
from tests.hostile.opponent import SILENCE, Endpoint, edited, opened, resigned, rewrapped
from tests.support.endpoint import make_action, sign_action
from tests.support.gpg import Investigator

HOUR = timedelta(hours=1)


def require_unharmed(endpoint: Endpoint, ada: Investigator, ran: int = 0) -> None:
    """Fail unless nothing more than this ran, and a true action is answered."""
    assert len(endpoint.ran()) == ran
    assert endpoint.deliver(sign_action(ada)) == "done"
    assert len(endpoint.ran()) == ran + 1


# -- forging -------------------------------------------------------------------------------------------------


def test_an_action_that_nobody_signed_is_met_with_silence(endpoint: Endpoint, ada: Investigator) -> None:
    assert endpoint.deliver(resigned(sign_action(ada))) == SILENCE
    require_unharmed(endpoint, ada)


def test_a_strangers_signature_is_worth_nothing_under_any_name(
    endpoint: Endpoint, ada: Investigator, bob: Investigator
) -> None:
    theirs = sign_action(bob)
    [signature] = opened(theirs).signatures
    assert endpoint.deliver(theirs) == SILENCE
    assert endpoint.deliver(resigned(theirs, signature._replace(keyid=ada.fingerprint))) == SILENCE
    require_unharmed(endpoint, ada)


def test_a_signature_cannot_be_moved_to_another_payload(endpoint: Endpoint, ada: Investigator) -> None:
    """Pitfall 1: the bytes that are verified are the bytes that are parsed."""
    harmless, wanted = sign_action(ada), sign_action(ada, name="harm")
    assert endpoint.deliver(resigned(wanted, *opened(harmless).signatures)) == SILENCE
    require_unharmed(endpoint, ada)


@pytest.mark.parametrize(
    "change",
    [
        {"target": "id IS NOT NULL"},
        {"operations": [{"module": "file", "parameters": {"searches": {"s": {"paths": ["/"]}}}}]},
        {"expireafter": "2999-12-31T00:00:00Z"},
        {"id": "018f0000-0000-7000-8000-000000000000"},
        {"description": {"author": "somebody else"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_member_of_a_signed_action_can_be_changed(
    endpoint: Endpoint, ada: Investigator, change: dict[str, object]
) -> None:
    """Pitfall 1: everything is signed; the ancestor left id, description and threat outside."""
    assert endpoint.deliver(edited(sign_action(ada), **change)) == SILENCE
    require_unharmed(endpoint, ada)


def test_a_document_that_she_signed_for_another_purpose_is_no_action(
    endpoint: Endpoint, ada: Investigator
) -> None:
    """Pitfall 3: the type is part of the signed bytes; a login, a cancel or a mail can never be an action."""
    payload = json.dumps(make_action()).encode()
    for purpose in (LOGIN, CANCEL, TRUST):
        signed = ada.sign(purpose, payload)
        assert endpoint.deliver(encode_envelope(signed)) == SILENCE
        assert endpoint.deliver(encode_envelope(signed._replace(payload_type=ACTION))) == SILENCE
    mail = Signature(ada.fingerprint, ada.sign_bytes(payload))
    assert endpoint.deliver(encode_envelope(Envelope(ACTION, payload, (mail,)))) == SILENCE
    require_unharmed(endpoint, ada)


@pytest.mark.parametrize(
    "way",
    [
        ("--textmode", "--detach-sign"),
        ("--clear-sign",),
        ("--sign",),
        ("--armor", "--detach-sign"),
        ("--store",),
    ],
    ids=" ".join,
)
def test_only_a_binary_detached_signature_is_one(
    endpoint: Endpoint, ada: Investigator, way: tuple[str, ...]
) -> None:
    """Pitfall 2: text mode, clear-signed, inline and armoured signatures blur what was signed."""
    unsigned = opened(sign_action(ada))
    words = ("--compress-algo", "none", "--local-user", ada.fingerprint, *way)
    other = Signature(ada.fingerprint, ada.gpg(*words, data=unsigned.signed_bytes)[:4096])
    assert endpoint.deliver(encode_envelope(unsigned._replace(signatures=(other,)))) == SILENCE
    require_unharmed(endpoint, ada)


@pytest.mark.parametrize("version", [2, 3, 5, 6])
def test_a_signature_of_another_version_is_none(endpoint: Endpoint, ada: Investigator, version: int) -> None:
    """Pitfall 5: version 4 and no other; version 5 is LibrePGP's, and hashes differently."""
    body = sign_action(ada)
    [signature] = opened(body).signatures
    at = 2 + (signature.sig[0] & 3)  # behind the header, in the old format that gpg writes
    other = signature.sig[:at] + bytes([version]) + signature.sig[at + 1 :]
    assert signature.sig[at] == 4
    assert endpoint.deliver(resigned(body, signature._replace(sig=other))) == SILENCE
    require_unharmed(endpoint, ada)


def test_two_meanings_in_one_signed_document_are_refused(endpoint: Endpoint, ada: Investigator) -> None:
    """Pitfall 1: of two targets, one decoder shows the first and another obeys the last."""
    payload = b'{"target":"name = \'nobody\'",' + json.dumps(make_action()).encode()[1:]
    assert endpoint.deliver(sign_action(ada, payload=payload)) == SILENCE
    require_unharmed(endpoint, ada)


# -- several signers -----------------------------------------------------------------------------------------


def test_a_signature_that_was_stripped_is_missed_and_may_come_back(
    make_endpoint: MakeEndpoint, ada: Investigator, bob: Investigator
) -> None:
    """Pitfall 19: a refusal for want of a signature does not burn the action."""
    endpoint = make_endpoint(ada, bob, weight=2)
    both = sign_action(ada, bob)
    assert endpoint.deliver(resigned(both, opened(both).signatures[0])) == "acl-refused"
    assert endpoint.ran() == []
    assert endpoint.deliver(both) == "done"


def test_one_investigator_is_never_two(
    make_endpoint: MakeEndpoint, ada: Investigator, bob: Investigator
) -> None:
    """Pitfall 4: signatures count by distinct primary key, however often and in whatever name they stand."""
    endpoint = make_endpoint(ada, bob, weight=2)
    body = sign_action(ada)
    [first] = opened(body).signatures
    [second] = opened(sign_action(ada, payload=opened(body).payload)).signatures
    for pair in ((first, first), (first, second), (first, first._replace(keyid=bob.fingerprint))):
        assert endpoint.deliver(resigned(body, *pair)) in {"acl-refused", SILENCE}
    assert endpoint.ran() == []
    assert endpoint.deliver(sign_action(ada, bob)) == "done"


def test_signatures_of_two_actions_do_not_add_up(
    make_endpoint: MakeEndpoint, ada: Investigator, bob: Investigator
) -> None:
    """Pitfall 19: each approval covers the bytes of the whole action."""
    endpoint = make_endpoint(ada, bob, weight=2)
    hers, his = sign_action(ada, name="wanted"), sign_action(bob, name="harmless")
    mixed = resigned(hers, *opened(hers).signatures, *opened(his).signatures)
    assert endpoint.deliver(mixed) == "acl-refused"
    assert endpoint.ran() == []


# -- aiming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "name = 'web2.example.net'",
        "os = 'windows'",
        "tags->>'operator' = 'ops'",
        "status = 'online' AND name LIKE 'db%'",
        "id IN ('00000000000000000000000000000000')",
    ],
)
def test_an_action_for_other_endpoints_does_not_run_here(
    endpoint: Endpoint, ada: Investigator, target: str
) -> None:
    """The ancestor's gap a: the target was signed, and nobody looked."""
    assert endpoint.deliver(sign_action(ada, target=target)) == "not-targeted"
    require_unharmed(endpoint, ada)


def test_what_only_the_platform_knows_cannot_widen_a_target(endpoint: Endpoint, ada: Investigator) -> None:
    body = sign_action(ada, target="name = 'nobody' OR status = 'online'")
    assert endpoint.deliver(body) == "bad-target"
    require_unharmed(endpoint, ada)


# -- replaying -----------------------------------------------------------------------------------------------


def test_a_replayed_action_runs_once(endpoint: Endpoint, ada: Investigator) -> None:
    """The ancestor's gap b."""
    body = sign_action(ada)
    assert [endpoint.deliver(body) for _ in range(3)] == ["done", "replayed", SILENCE]
    require_unharmed(endpoint, ada, ran=1)


def test_a_replay_after_a_restart_is_still_a_replay(endpoint: Endpoint, ada: Investigator) -> None:
    """Pitfall 7: what ran is remembered on the disk."""
    body = sign_action(ada)
    endpoint.deliver(body)
    endpoint.restart()
    assert endpoint.deliver(body) == "replayed"
    require_unharmed(endpoint, ada, ran=1)


def test_another_spelling_of_the_envelope_is_a_replay_and_is_answered_once(
    endpoint: Endpoint, ada: Investigator
) -> None:
    """The identity of an action is its signed bytes; an endpoint is not made to sign answers without end."""
    body = sign_action(ada)
    endpoint.deliver(body)
    assert endpoint.deliver(rewrapped(body, 1)) == "replayed"
    again = [Signature(ada.fingerprint, b"x"), *opened(body).signatures]
    assert endpoint.deliver(resigned(body, *again)) == SILENCE
    assert [endpoint.deliver(rewrapped(body, number)) for number in range(2, 6)] == [SILENCE] * 4
    require_unharmed(endpoint, ada, ran=1)


def test_a_clock_set_back_does_not_make_an_old_action_new(endpoint: Endpoint, ada: Investigator) -> None:
    """Pitfall 6 and 7."""
    body = sign_action(ada)
    endpoint.deliver(body)
    endpoint.skew = HOUR
    assert endpoint.deliver(body) == "replayed"
    endpoint.skew = timedelta()
    endpoint.restart()
    assert endpoint.deliver(rewrapped(body, 1)) == "replayed"
    require_unharmed(endpoint, ada, ran=1)


def test_what_a_full_journal_has_forgotten_cannot_run_again(
    make_endpoint: MakeEndpoint, ada: Investigator
) -> None:
    """Pitfall 7: the memory of replays is bounded, and closes where it is not sure."""
    endpoint = make_endpoint(ada, max_entries=4)
    first = sign_action(ada, name="first", expireafter=(endpoint.now() + timedelta(minutes=1)).isoformat())
    assert endpoint.deliver(first) == "done"

    def sign_later(minutes: int) -> bytes:
        # Whole minutes apart: what expires within a second of something forgotten is refused as well.
        return sign_action(ada, expireafter=(endpoint.now() + timedelta(minutes=minutes)).isoformat())

    assert [endpoint.deliver(sign_later(minutes)) for minutes in range(2, 8)] == ["done"] * 6
    assert "first" not in endpoint.ran()
    assert endpoint.deliver(first) == "journal-closed"
    assert "first" not in endpoint.ran()
    assert endpoint.deliver(sign_later(8)) == "done"


def test_what_a_user_of_the_endpoint_leaves_on_its_disk_holds_up_no_search(
    endpoint: Endpoint, ada: Investigator, tmp_path: Path
) -> None:
    """Pitfall 12: what blocks when it is opened, what leads round in circles, what has no end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    search = {"paths": [str(tmp_path)], "contents": ["x"], "sha256": ["0" * 64]}
    operations = [{"module": "file", "parameters": {"searches": {"s": search}}}]
    assert endpoint.deliver(sign_action(ada, operations=operations)) == "done"
    [result] = decode_result(endpoint.answers[-1].payload).results
    assert result.status == "ok"
    assert result.statistics["skipped"]


# -- timing --------------------------------------------------------------------------------------------------


def test_an_action_that_was_held_back_is_worth_nothing_later(endpoint: Endpoint, ada: Investigator) -> None:
    body = sign_action(ada)
    endpoint.skew = HOUR
    assert endpoint.deliver(body) == "expired"
    endpoint.skew = timedelta()
    require_unharmed(endpoint, ada)


def test_a_wrong_clock_fails_closed_and_a_corrected_one_works(endpoint: Endpoint, ada: Investigator) -> None:
    """Pitfall 6: behind, the signature is of the future; ahead, the action has expired."""
    body = sign_action(ada)
    endpoint.skew = -timedelta(days=1)
    assert endpoint.deliver(body) == SILENCE
    endpoint.skew = timedelta(days=1)
    assert endpoint.deliver(body) == "expired"
    endpoint.skew = timedelta()
    assert endpoint.deliver(body) == "done"


def test_an_action_that_was_killed_half_way_is_never_run_again(endpoint: Endpoint, ada: Investigator) -> None:
    """The opponent cuts the power: what was permitted is answered as interrupted, or done, once."""
    body = sign_action(ada)
    endpoint.hand_over(body)
    endpoint.restart()
    endpoint.settle()
    endpoint.deliver(body)
    assert len(endpoint.ran()) == 1
    require_unharmed(endpoint, ada, ran=1)


# -- drowning ------------------------------------------------------------------------------------------------


def test_a_flood_of_forgeries_neither_fills_the_journal_nor_stops_a_true_action(
    make_endpoint: MakeEndpoint, ada: Investigator, bob: Investigator
) -> None:
    endpoint = make_endpoint(ada, warm_child=True)
    [signature] = opened(sign_action(bob)).signatures
    forged = resigned(sign_action(bob), signature._replace(keyid=ada.fingerprint))
    for number in range(250):
        endpoint.hand_over(rewrapped(forged, number))
    assert endpoint.deliver(sign_action(ada, name="true")) == "done"
    assert endpoint.ran() == ["true"]
    assert endpoint.supervisor.refused_silently == 250


@pytest.mark.parametrize(
    "body",
    [b"", b"[" * 100_000, b"{" * 100_000, bytes(3 << 20), b'{"payloadType":' * 1000, b"\xff\xfe", b"null"],
    ids=["nothing", "brackets", "braces", "3 MB", "deep", "no UTF-8", "null"],
)
def test_bytes_that_are_no_envelope_cost_nothing(endpoint: Endpoint, ada: Investigator, body: bytes) -> None:
    assert endpoint.deliver(body) == SILENCE
    require_unharmed(endpoint, ada)


def test_an_action_of_too_many_operations_is_refused_whole(
    make_endpoint: MakeEndpoint, ada: Investigator
) -> None:
    endpoint = make_endpoint(ada, limits=AgentLimits(max_operations=2))
    operations = [{"module": "agentinfo", "parameters": {}}] * 3
    assert endpoint.deliver(sign_action(ada, operations=operations)) == "over-limit"
    require_unharmed(endpoint, ada)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "((a{1,100}){1,100}){1,100}"])
def test_a_pattern_cannot_hang_an_endpoint(endpoint: Endpoint, ada: Investigator, pattern: str) -> None:
    """Pitfall 13: patterns are linear or refused."""
    search = {"paths": ["/etc/hostname"], "contents": [pattern]}
    body = sign_action(ada, operations=[{"module": "file", "parameters": {"searches": {"s": search}}}])
    assert endpoint.deliver(body) in {"done", "bad-parameters"}
    assert endpoint.deliver(sign_action(ada)) == "done"


RULE = "rule r { condition: true }"


def scanned(endpoint: Endpoint, ada: Investigator, rules: str, **parameters: object) -> OperationResult:
    """Have rules applied to files, and return what the endpoint says of it."""
    yara = {"rules": {"r": rules}, **parameters}
    assert endpoint.deliver(sign_action(ada, operations=[{"module": "yara", "parameters": yara}])) == "done"
    [result] = decode_result(endpoint.answers[-1].payload).results
    return result


@pytest.mark.parametrize(
    "reach", ['include "/etc/passwd"', 'import "vt"', 'import "cuckoo"', 'import "console"', "garbage {"]
)
def test_rules_reach_nothing_but_the_bytes_given(
    endpoint: Endpoint, ada: Investigator, tmp_path: Path, reach: str
) -> None:
    """Pitfall 14: no includes, no modules that ask others; and a line of what they say holds no file."""
    searches = {"s": {"paths": [str(tmp_path)]}}
    result = scanned(endpoint, ada, f"{reach}\n{RULE}", searches=searches)
    assert (result.status, result.records) == ("invalid-parameters", ())
    assert "root:" not in " ".join(result.notes)
    require_unharmed(endpoint, ada, ran=1)


def test_what_rules_did_not_scan_is_never_told_as_clean(
    endpoint: Endpoint, ada: Investigator, tmp_path: Path
) -> None:
    """Pitfall 14: matched, not matched, and not scanned are three outcomes."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "small").write_bytes(b"x")
    (files / "large").write_bytes(bytes(100))
    searches = {"s": {"paths": [str(files)]}}
    result = scanned(endpoint, ada, "rule r { condition: false }", searches=searches, max_file_bytes=10)
    assert not result.found
    assert result.statistics["files_scanned"] == 1
    assert result.statistics["not_scanned"] == {"too-large": 1}
    assert any("large" in note for note in result.notes)

"""What is stored of trust, and whom an agent obeys after a start."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import Baked
from agent.runtime.state import IDENTITY_FILE
from agent.runtime.trust import Trust, decode_told_trust, resolve_trust
from agent.runtime.trust_store import Held, Mark, TrustStore, digest_of_payload, encode_trust, read_held
from protocol.envelope import TRUST, decode_envelope
from protocol.errors import EnvironmentFailure, InvalidInput
from tests.support.endpoint import make_baked, make_bundle, sign_bundle, utc_now
from tests.support.gpg import Investigator, temporary_investigator


@pytest.fixture(scope="module")
def rita() -> Iterator[Investigator]:
    """A holder of a root key."""
    with temporary_investigator("Rita Root") as investigator:
        yield investigator


def digest_of(body: bytes) -> str:
    return digest_of_payload(decode_envelope(body, TRUST).payload)


def resolved(baked: Baked, held: Held) -> Trust:
    return resolve_trust(decode_told_trust(encode_trust(baked, held, utc_now())))


def test_a_fresh_agent_obeys_what_was_baked_in(ada: Investigator, rita: Investigator, tmp_path: Path) -> None:
    store = TrustStore(tmp_path, has_roots=True)
    trust = resolved(make_baked([ada], roots=[rita]), store.held)
    assert trust.version == 0
    assert trust.keyring.fingerprints == {ada.fingerprint}
    trust.require_in_force(utc_now())


def test_a_stored_bundle_is_obeyed_instead_also_after_a_start(
    ada: Investigator, bob: Investigator, rita: Investigator, tmp_path: Path
) -> None:
    body = sign_bundle(make_bundle(4, bob, manage=[bob.fingerprint]), rita)
    TrustStore(tmp_path, has_roots=True).keep(body, 4, digest_of(body))
    (tmp_path / IDENTITY_FILE).write_text("{}")
    trust = resolved(make_baked([ada], roots=[rita]), TrustStore(tmp_path, has_roots=True).held)
    assert trust.version == 4
    assert trust.keyring.fingerprints == trust.managers == {bob.fingerprint}
    assert "bundle 4" in trust.describe()


def test_bundle_0_may_expire(ada: Investigator, rita: Investigator, tmp_path: Path) -> None:
    held = TrustStore(tmp_path, has_roots=True).held
    for roots in ([], [rita]):
        baked = make_baked([ada], roots=roots, trust={"expires": "2020-01-01T00:00:00Z"})
        with pytest.raises(InvalidInput, match="trust-expired"):
            resolved(baked, held).require_in_force(utc_now())


def lose_bundle(directory: Path, _bodies: dict[int, bytes]) -> None:
    (directory / "trust-bundle.json").unlink()


def lose_mark(directory: Path, _bodies: dict[int, bytes]) -> None:
    (directory / "trust-version.json").unlink()


def lose_both(directory: Path, bodies: dict[int, bytes]) -> None:
    lose_bundle(directory, bodies)
    lose_mark(directory, bodies)


def damage_bundle(directory: Path, bodies: dict[int, bytes]) -> None:
    (directory / "trust-bundle.json").write_bytes(bodies[4][:-10])


def damage_mark(directory: Path, _bodies: dict[int, bytes]) -> None:
    (directory / "trust-version.json").write_bytes(b"{}")


def put_older(directory: Path, bodies: dict[int, bytes]) -> None:
    (directory / "trust-bundle.json").write_bytes(bodies[3])


def put_forged(directory: Path, bodies: dict[int, bytes]) -> None:
    (directory / "trust-bundle.json").write_bytes(bodies[5])


@pytest.mark.parametrize(
    "harm", [lose_bundle, lose_mark, lose_both, damage_bundle, damage_mark, put_older, put_forged]
)
def test_who_has_an_identity_and_lost_its_bundle_obeys_nobody(
    harm: Any, ada: Investigator, rita: Investigator, tmp_path: Path
) -> None:
    bodies = {version: sign_bundle(make_bundle(version, ada), rita) for version in (3, 4)}
    bodies[5] = sign_bundle(make_bundle(5, ada), ada)
    store = TrustStore(tmp_path, has_roots=True)
    (tmp_path / IDENTITY_FILE).write_text("{}")
    store.keep(bodies[4], 4, digest_of(bodies[4]))
    harm(tmp_path, bodies)
    trust = resolved(make_baked([ada], roots=[rita]), TrustStore(tmp_path, has_roots=True).held)
    assert trust.version is None
    assert trust.keyring.fingerprints == trust.managers == frozenset()
    with pytest.raises(InvalidInput, match="trust-missing"):
        trust.require_in_force(utc_now())


def test_an_identity_without_a_mark_waits_only_where_there_are_roots(
    ada: Investigator, rita: Investigator, tmp_path: Path
) -> None:
    (tmp_path / IDENTITY_FILE).write_text("{}")
    assert read_held(tmp_path).mark is None
    assert (
        resolved(make_baked([ada], roots=[rita]), TrustStore(tmp_path, has_roots=True).held).version is None
    )
    assert resolved(make_baked([ada]), TrustStore(tmp_path, has_roots=False).held).version == 0
    assert read_held(tmp_path).mark == Mark(0, "")


def test_a_crash_between_bundle_and_mark_loses_nothing(
    ada: Investigator, rita: Investigator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baked, store = make_baked([ada], roots=[rita]), TrustStore(tmp_path, has_roots=True)
    body = sign_bundle(make_bundle(1, ada), rita)
    monkeypatch.setattr(TrustStore, "_write_mark", crash)
    with pytest.raises(ZeroDivisionError):
        store.keep(body, 1, digest_of(body))
    monkeypatch.undo()
    assert resolved(baked, read_held(tmp_path)).version == 1


def crash(*_arguments: Any) -> None:
    raise ZeroDivisionError


def test_without_room_on_the_disk_what_was_held_is_held_still(
    ada: Investigator, rita: Investigator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (sign_bundle(make_bundle(version, ada), rita) for version in (1, 2))
    store = TrustStore(tmp_path, has_roots=True)
    store.keep(first, 1, digest_of(first))

    def is_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", is_full)
    with pytest.raises(EnvironmentFailure, match="disk-full"):
        store.keep(second, 2, digest_of(second))
    monkeypatch.undo()
    assert store.held == read_held(tmp_path) == Held(Mark(1, digest_of(first)), first)
    assert json.loads((tmp_path / "trust-version.json").read_text())["version"] == 1

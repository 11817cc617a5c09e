"""Investigators and sessions in the store, on each database."""

from datetime import timedelta
from typing import Any

import pytest

from protocol.errors import InvalidInput
from server.store import Store
from tests.support.fleet import ADA, NOW

HOUR = timedelta(hours=1)
TOKEN = "0" * 64


def test_an_investigator_is_added_changed_and_listed(store: Store) -> None:
    store.add_investigator(ADA, "Ada", b"key", ["submit", "read"], NOW)
    changed = store.add_investigator(ADA, "Ada L.", b"key 2", ["read"], NOW + HOUR)
    assert (changed.name, changed.public_key, changed.rights, changed.created) == (
        "Ada L.",
        b"key 2",
        ("read",),
        NOW,
    )
    assert store.list_investigators() == [changed]
    assert store.get_investigator(ADA) == changed
    assert store.get_investigator("F" * 40) is None


@pytest.mark.parametrize(
    ("fingerprint", "name", "rights", "refusal"),
    [
        ("a" * 40, "Ada", ["read"], "bad-key: not a fingerprint"),
        (ADA, "Ada", ["root"], "usage: rights are read, submit, manage"),
        (ADA, "A\0da", ["read"], "usage: name holds a character"),
    ],
)
def test_a_wrong_investigator_is_refused(
    store: Store, fingerprint: str, name: str, rights: Any, refusal: str
) -> None:
    with pytest.raises(InvalidInput, match=refusal):
        store.add_investigator(fingerprint, name, b"key", rights, NOW)
    assert store.list_investigators() == []


def test_a_session_has_the_rights_of_the_moment_until_it_expires(store: Store) -> None:
    store.add_investigator(ADA, "Ada", b"key", ["read", "submit"], NOW)
    store.create_session(TOKEN, ADA, NOW + HOUR, NOW)
    session = store.get_session(TOKEN, NOW)
    assert session is not None
    assert (session.fingerprint, session.rights) == (ADA, ("read", "submit"))
    store.add_investigator(ADA, "Ada", b"key", ["read"], NOW)
    session = store.get_session(TOKEN, NOW)
    assert session is not None
    assert session.rights == ("read",)
    assert store.get_session(TOKEN, NOW + HOUR) is None
    assert store.get_session("1" * 64, NOW) is None


def test_a_disabled_investigator_has_no_session_and_none_comes_back(store: Store) -> None:
    store.add_investigator(ADA, "Ada", b"key", ["read"], NOW)
    store.create_session(TOKEN, ADA, NOW + HOUR, NOW)
    store.set_investigator_status(ADA, "disabled", NOW)
    assert store.get_session(TOKEN, NOW) is None
    store.set_investigator_status(ADA, "active", NOW)
    assert store.get_session(TOKEN, NOW) is None
    with pytest.raises(InvalidInput, match="not-found: no investigator"):
        store.set_investigator_status("F" * 40, "active", NOW)

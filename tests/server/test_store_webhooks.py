"""How far webhooks are, on each database."""

from datetime import timedelta

from server.store import Store
from tests.support.fleet import NOW, FleetAgent

LATER = NOW + timedelta(seconds=30)


def test_a_new_hook_begins_at_the_newest_alert(store: Store) -> None:
    store.save_alerts([FleetAgent(store).alert(1)], NOW)
    place = store.lease_hook("siem", "a", NOW, LATER)
    assert place is not None
    assert (place.position, place.attempts, place.skipped) == (store.last_alert(), 0, 0)


def test_one_server_at_a_time_has_a_hook(store: Store) -> None:
    assert store.lease_hook("siem", "a", NOW, LATER) is not None
    assert store.lease_hook("siem", "b", NOW, LATER) is None
    assert store.lease_hook("siem", "a", NOW, LATER) is not None
    assert store.lease_hook("siem", "b", LATER, LATER + timedelta(seconds=30)) is not None


def test_who_has_lost_the_lease_changes_nothing(store: Store) -> None:
    store.lease_hook("siem", "a", NOW, LATER)
    store.lease_hook("siem", "b", LATER, LATER + timedelta(seconds=30))
    assert not store.advance_hook("siem", "a", 7, LATER, 0)
    assert not store.postpone_hook("siem", "a", LATER, "x")
    assert not store.release_hook("siem", "a")
    [place] = store.list_hooks()
    assert (place.position, place.lease) == (0, "b")


def test_what_failed_is_tried_again_when_it_is_time(store: Store) -> None:
    store.lease_hook("siem", "a", NOW, LATER)
    assert store.postpone_hook("siem", "a", LATER, "HTTP status 500\0")
    assert store.lease_hook("siem", "b", NOW, LATER) is None
    place = store.lease_hook("siem", "b", LATER, LATER + timedelta(seconds=30))
    assert place is not None
    assert (place.attempts, place.problem) == (1, "HTTP status 500\ufffd")
    store.advance_hook("siem", "b", 5, LATER, 2)
    [place] = store.list_hooks()
    assert (place.position, place.attempts, place.next_try, place.skipped, place.problem) == (
        5,
        0,
        None,
        2,
        "",
    )


def test_a_hook_that_is_given_back_is_free_at_once(store: Store) -> None:
    store.lease_hook("siem", "a", NOW, LATER)
    assert store.release_hook("siem", "a")
    assert store.lease_hook("siem", "b", NOW, LATER) is not None

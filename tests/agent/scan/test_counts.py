"""Tests of what modules count beside their records."""

from agent.module import Context
from agent.scan.counts import Counts


def test_what_was_never_counted_is_told_as_nothing() -> None:
    context = Context()
    counts = Counts(context, "things_seen")
    assert context.statistics == {"things_seen": 0, "errors": 0, "skipped": {}}
    counts.add("things_seen")
    counts.add("things_seen", 2)
    assert (counts["things_seen"], context.statistics["things_seen"]) == (3, 3)
    counts.set("things_seen", 9)
    assert context.statistics["things_seen"] == 9


def test_what_was_skipped_is_counted_by_reason_and_the_first_are_named() -> None:
    context = Context()
    counts = Counts(context)
    for number in range(25):
        counts.skip("denied", f"thing {number}: denied")
    counts.skip("gone", "one is gone")
    counts.finish()
    assert context.statistics == {"errors": 26, "skipped": {"denied": 25, "gone": 1}}
    assert len(context.notes) == 22
    assert context.notes[0] == "thing 0: denied"
    assert context.notes[-2:] == ["one is gone", "denied: 25 were skipped, of which 20 are named"]

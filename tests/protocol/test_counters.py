"""What is said of counts: known numbers in words, whoever counts."""

from typing import Any

from protocol.counters import counters_text


def test_counts_are_added_up_and_told_with_their_units() -> None:
    told: list[dict[str, Any]] = [
        {"files_seen": 1000, "bytes_read": 1 << 30},
        {"files_seen": 234, "errors": 1},
    ]
    assert counters_text(told) == "1,234 files seen, 1.0 GiB read, 1 errors"
    assert counters_text([{"bytes_read": 17}]) == "17 B read"
    assert counters_text([{"bytes_read": (1 << 63) - 1}] * 3) == "24.0 EiB read"


def test_what_is_no_count_is_not_told() -> None:
    hostile: list[Any] = ["\x1b[2J", True, None, -5, 1 << 70, 1e300, [1], {"a": 1}]
    assert not counters_text([{"files_seen": value, "evil": value} for value in hostile])
    assert counters_text([{"\x1b[2J": 7, "files_read": 7}]) == "7 files read"

"""What is told of a scan on the way: a count never goes back, and in the end it is what was settled."""

from typing import Any

import msgspec

from agent.scan.batch import Batch
from agent.scan.coverage import Coverage
from agent.scan.items import Item
from agent.scan.plan import make_plan
from agent.scan.search import Search
from agent.scan.settling import Settlement


def test_what_was_read_is_told_once_and_stands_while_it_waits_for_its_turn() -> None:
    search = msgspec.convert({"paths": ["/"], "names": ["x"]}, Search)
    coverage = Coverage(lambda _text: None)
    settlement = Settlement(make_plan({"s1": search}, 0), coverage=coverage, truncate=lambda _text: None)

    def told() -> Any:
        return coverage.statistics()["bytes_read"]

    settlement.tell_under_way(1000)
    assert told() == 1000
    settlement.tell_under_way(0)  # all of it is judged, and nothing settled yet
    assert told() == 1000
    list(settlement.settle(0, Batch(0, b"/", (), {}, ()), [Item(0, files_read=1, bytes_read=600)]))
    settlement.tell_under_way(300)
    assert told() == 1000
    settlement.tell_under_way(500)
    assert told() == 1100
    settlement.end()
    assert told() == 600

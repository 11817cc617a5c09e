"""Tests of reading all that starts by itself, by kind."""

from pathlib import Path

from agent.platform.autostart_sources import READERS, read_starts
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow


def test_only_the_kinds_wanted_are_read(tmp_path: Path) -> None:
    grow(tmp_path, {"etc/crontab": b"* * * * * root /a\n", "etc/profile": b""})
    files = Rooted(str(tmp_path))
    assert [start.kind for start in read_starts(files, ("cron",))] == ["cron"]
    assert [start.kind for start in read_starts(files, ())] == ["cron", "shell"]


def test_each_reader_tells_of_its_own_kind_on_this_system() -> None:
    files = Rooted()
    for kind, read in READERS.items():
        assert {start.kind for start in read(files)} <= {kind}

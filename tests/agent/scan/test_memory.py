"""Tests of how memory is cut into windows: nothing at a border is missed."""

import random
import sys
from itertools import pairwise

import pytest

from agent.platform.process_memory import PAGE_BYTES, Process
from agent.scan.memory import WINDOW_BYTES, Stretch, stretches, windows
from tests.support.layout import READABLE, layout
from tests.support.planted import Planted, plant

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


def stretch_of(process: Process, planted: Planted) -> Stretch:
    [found] = [one for one in stretches(process) if one.start <= planted.address < one.end]
    return found


def test_every_few_bytes_stand_whole_in_some_window() -> None:
    content = random.Random(7).randbytes(10 * PAGE_BYTES)  # noqa: S311  (any bytes do)
    with plant(content, size=len(content)) as planted, Process(planted.pid) as process:
        stretch = stretch_of(process, planted)
        for window_bytes in (PAGE_BYTES, PAGE_BYTES + 13, 3 * PAGE_BYTES, 100 * PAGE_BYTES):
            seen = list(windows(process, stretch, window_bytes=window_bytes))
            overlap = window_bytes // 2
            assert all(len(data) <= window_bytes for _, data in seen)
            for start in range(0, len(content) - overlap, 501):
                address = planted.address + start
                assert any(
                    at <= address
                    and data[address - at : address - at + overlap] == content[start : start + overlap]
                    for at, data in seen
                ), (window_bytes, start)


def test_mappings_side_by_side_are_one_stretch() -> None:
    with plant(b"x") as planted, Process(planted.pid) as process:
        program = process.executable()
        parts = [region for region in process.regions() if region.path == program]
        assert len(parts) > 1
        for first, second in pairwise(parts):
            if first.end == second.start:
                [held] = [one for one in stretches(process) if one.start <= first.start < one.end]
                assert held.region_at(first.end - 1) == first
                assert held.region_at(second.start) == second


def test_of_a_mapping_that_was_hardly_touched_little_is_read() -> None:
    size = 1 << 32
    with plant(b"needle", at=size // 2, size=size) as planted, Process(planted.pid) as process:
        stretch = stretch_of(process, planted)
        assert stretch.size < 64 * PAGE_BYTES
        assert sum(one.size for one in stretches(process)) < 1 << 30
        assert any(b"needle" in data for _, data in windows(process, stretch))


def test_what_ends_at_a_page_is_read_with_what_comes_after() -> None:
    with plant(b"needle", at=3 * PAGE_BYTES - 6) as planted, Process(planted.pid) as process:
        assert any(b"needle\0\0" in data for _, data in windows(process, stretch_of(process, planted)))


def test_behind_what_cannot_be_read_it_goes_on_wherever_windows_end() -> None:
    kinds = "rrttrtr" + "t" * 600 + "rr"
    content = random.Random(8).randbytes(len(kinds) * PAGE_BYTES)  # noqa: S311  (any bytes do)
    with layout() as laid, Process(laid.pid) as process:
        begin = laid.lay(kinds, content)
        end = begin + len(content)
        [stretch] = [one for one in stretches(process) if one.start <= begin < one.end]
        assert stretch.end >= end
        for window_bytes in (PAGE_BYTES, 3 * PAGE_BYTES, WINDOW_BYTES):
            seen = {
                address + offset - begin: data[offset : offset + PAGE_BYTES]
                for address, data in windows(process, stretch, window_bytes=window_bytes)
                for offset in range(0, len(data), PAGE_BYTES)
                if address % PAGE_BYTES == 0
            }
            for number, kind in enumerate(kinds):
                at = number * PAGE_BYTES
                if kind == READABLE:
                    assert seen[at] == content[at : at + PAGE_BYTES], (window_bytes, number)
                else:
                    assert at not in seen

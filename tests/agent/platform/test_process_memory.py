"""Tests of reading the memory of real processes."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.platform.process_memory import PAGE_BYTES, Process, ProcessGone, Region, list_pids
from tests.support.planted import Planted, plant

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")

WORD = b"planted here and nowhere else"


def region_of(process: Process, planted: Planted) -> Region:
    [region] = [one for one in process.regions() if one.start <= planted.address < one.end]
    return region


def test_what_a_process_holds_is_read_at_its_address() -> None:
    with plant(WORD, at=5000) as planted, Process(planted.pid) as process:
        assert process.read(planted.address, len(WORD)) == WORD
        region = region_of(process, planted)
        assert region.permissions == "rw-p"
        assert region.is_readable
        assert region.is_private_anonymous
        assert region.path == b""


def test_a_process_tells_its_name_and_its_program() -> None:
    with plant(WORD) as planted, Process(planted.pid) as process:
        assert process.executable() == os.fsencode(Path(sys.executable).resolve())
        assert process.name() == planted.name.encode()
        assert planted.pid in list_pids()


def test_of_a_large_mapping_only_what_was_touched_is_named() -> None:
    size = 1 << 32
    with plant(WORD, at=size - PAGE_BYTES, size=size) as planted, Process(planted.pid) as process:
        region = region_of(process, planted)
        assert region.end - region.start >= size
        inside = [(start, end) for start, end in process.touched(region) if start <= planted.address < end]
        assert inside == [(planted.address, planted.address + PAGE_BYTES)]


def test_reading_ends_where_the_memory_does() -> None:
    with Process(os.getpid()) as process:
        last = next(one for one in process.regions() if one.path == b"[stack]")
        data = process.read(last.end - PAGE_BYTES, 4 * PAGE_BYTES)
        assert len(data) == PAGE_BYTES
        assert process.read(last.end, PAGE_BYTES) == b""


def test_a_process_that_ended_is_gone_and_its_number_leads_to_no_other() -> None:
    with plant(WORD) as planted, Process(planted.pid) as process, Process(planted.pid) as untouched:
        assert process.read(planted.address, 4) == WORD[:4]
        planted.process.kill()
        planted.process.wait()
        for fails in (
            lambda: process.read(planted.address, 4),
            lambda: untouched.read(planted.address, 4),
            process.regions,
            process.name,
            process.executable,
        ):
            with pytest.raises(ProcessGone, match="^$"):
                fails()
    with pytest.raises(ProcessGone, match="^$"):
        Process(planted.pid)


def test_a_process_that_runs_another_program_is_gone() -> None:
    program = "import os; os.write(1, b'ready\\n'); os.read(0, 1); os.execv('/bin/cat', ['cat'])"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with Process(child.pid) as process:
            program_file = process.executable()
            address = next(one.start for one in process.regions() if one.path == program_file)
            assert process.read(address, 4) == b"\x7fELF"
            child.stdin.write(b"\nhello\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"hello\n"
            with pytest.raises(ProcessGone, match="^$"):
                process.read(address, 4)
        child.kill()


def test_what_runs_no_program_has_no_memory() -> None:
    # Threads of the kernel, where they are seen, and who has ended and was not yet asked about.
    for pid in list_pids():
        with contextlib.suppress(ProcessGone, PermissionError), Process(pid) as process:
            if not process.executable():
                assert process.regions() == []

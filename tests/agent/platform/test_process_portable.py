"""Tests that psutil's answers, given where there is no /proc, are those of /proc."""

import hashlib
import os
import sys
from pathlib import Path

import pytest

from agent.platform.process_memory import ProcessGone
from agent.platform.process_portable import PortableSubject, PortableTable
from agent.platform.process_programs import Programs
from agent.platform.process_subject import ProcessTable
from agent.scan.fence import Fence
from protocol.acl import PathRules
from tests.support.spawned import spawned

LISTENING = """
import socket, sys
held = open(sys.argv[1])
tcp = socket.create_server(("127.0.0.1", 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
"""
FACTS = ("executable", "user", "command", "variables", "open_files", "libraries", "ports")


def nobody_is_lost(pid: int, reason: str) -> None:
    raise AssertionError(f"{pid}: {reason}")


def portable(pid: int) -> PortableSubject:
    [subject] = PortableTable().subjects(nobody_is_lost, {pid})
    return subject


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_both_tables_say_the_same_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("x")
    with spawned(LISTENING, str(tmp_path / "held")) as child:
        theirs = portable(child.pid)
        for ours in ProcessTable().subjects(nobody_is_lost, {child.pid}):
            for fact in FACTS:
                told, expected = getattr(theirs, fact), getattr(ours, fact)
                if fact == "open_files":
                    # psutil tells of regular files only.
                    expected = tuple(path for path in expected if Path(os.fsdecode(path)).is_file())
                assert sorted(map(repr, told)) == sorted(map(repr, expected)), fact
            assert [one.pid for one in theirs.ancestors] == [one.pid for one in ours.ancestors]
            assert theirs.ancestors[0][:3] == ours.ancestors[0][:3]
            assert theirs.facts[:5] == ours.facts[:5]
            assert abs(theirs.facts.started_s - ours.facts.started_s) < 1.5
            assert theirs.container is None
            assert theirs.cut == ()


def test_a_program_is_hashed_by_its_path() -> None:
    programs = Programs(["sha256"], Fence(PathRules()), lambda: None)
    with spawned() as child:
        assert portable(child.pid).digests(programs) == {
            "sha256": hashlib.sha256(Path(sys.executable).resolve().read_bytes()).hexdigest()
        }


def test_who_has_ended_is_gone_or_missing() -> None:
    lost: list[tuple[int, str]] = []
    with spawned() as child:
        subject = portable(child.pid)
        child.kill()
        child.wait()
        with pytest.raises(ProcessGone, match="^$"):
            _ = subject.command
    found = list(PortableTable().subjects(lambda pid, why: lost.append((pid, why)), {child.pid}))
    assert found == []
    assert lost == [(child.pid, "ended")]


def test_what_is_not_told_elsewhere_is_named_with_its_reason() -> None:
    lacks = PortableTable().lacks
    assert {"deleted", "capabilities", "containers"} <= set(lacks)
    assert all(reason.endswith("cannot be told on this system") for reason in lacks.values())

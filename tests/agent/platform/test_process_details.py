"""Tests of what is read of a process: its arguments, variables, files, libraries and ports."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.process_details import (
    MOST_BYTES,
    Ports,
    command_line,
    held,
    mapped_files,
    parse_mapped_files,
    variable_names,
)
from agent.platform.process_memory import ProcessGone
from agent.platform.processes import ProcessDirectory
from tests.support.spawned import spawned

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


def recorded(proc: Path, pid: int = 42, **files: bytes) -> ProcessDirectory:
    """Return a process of a directory that stands for /proc."""
    directory = proc / str(pid)
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return ProcessDirectory(pid, str(proc))


def test_arguments_stand_with_blanks_between_them(tmp_path: Path) -> None:
    with recorded(tmp_path, cmdline=b"/bin/x\0a b\0\0c\0\0\0") as process:
        assert command_line(process) == (b"/bin/x a b  c", False)


def test_of_the_environment_only_names_are_told(tmp_path: Path) -> None:
    environment = b"A=1\0PASSWORD=x=y\0A=2\0no-variable\0=C:=x\0\xff=\0"
    with recorded(tmp_path, environ=environment) as process:
        assert variable_names(process) == ((b"A", b"PASSWORD", b"\xff"), False)


def test_what_is_longer_than_the_kernel_allows_is_cut_and_said(tmp_path: Path) -> None:
    with recorded(tmp_path, cmdline=b"x" * (MOST_BYTES + 1), environ=b"x" * (MOST_BYTES + 1)) as process:
        assert command_line(process) == (b"x" * MOST_BYTES, True)
        assert variable_names(process) == ((), True)


MAPS = rb"""55f0-55f1 r--p 00000000 fe:00 123 /usr/bin/x
55f1-55f2 r-xp 00001000 fe:00 123 /usr/bin/x
7f00-7f01 rw-p 00000000 00:00 0 [heap]
7f01-7f02 rw-p 00000000 00:00 0
7f02-7f03 r--p 00000000 fe:00 9 /tmp/a b\012c (deleted)
"""


def test_mapped_files_are_told_once_each(tmp_path: Path) -> None:
    with recorded(tmp_path, maps=MAPS) as process:
        assert mapped_files(process) == (b"/usr/bin/x", b"/tmp/a b\nc (deleted)")


@given(st.binary(max_size=300))
def test_any_bytes_are_paths_or_none(maps: bytes) -> None:
    assert all(path in maps.replace(b"\\012", b"\n") for path in parse_mapped_files(maps))


def test_descriptors_lead_to_paths_and_sockets(tmp_path: Path) -> None:
    (tmp_path / "socket:[17]").write_text("a file may be called so")
    program = (
        "import socket, os\n"
        f"file = open({str(tmp_path)!r} + '/socket:[17]')\n"
        "pair = socket.socketpair()\n"
        "pipe = os.pipe()"
    )
    with spawned(program) as child, ProcessDirectory(child.pid) as process:
        found = held(process)
        assert os.fsencode(tmp_path / "socket:[17]") in found.paths
        assert 17 not in found.sockets
        assert len(found.sockets) == 2
        assert all(path.startswith(b"/") for path in found.paths)
        child.kill()
        child.wait()
        with pytest.raises(ProcessGone, match="^$"):
            held(process)


REST = b" 00000000:00000000 00:00000000 00000000 0 0 %d 1 0 100 0 0 10 0\n"
TCP = (
    b"sl local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n"
    b"0: 0100007F:1F90 00000000:0000 0A" + REST % 777 + b"1: 0100007F:1F90 0100007F:C001 01" + REST % 778
)
OTHER_TCP = TCP.replace(b"1F90", b"0016").replace(b"777", b"779")


def test_ports_are_those_of_listening_sockets_in_each_namespace(tmp_path: Path) -> None:
    ports = Ports(str(tmp_path))
    for pid, namespace, table in ((42, 1, TCP), (43, 2, OTHER_TCP)):
        with recorded(tmp_path, pid) as process:
            (tmp_path / f"{pid}/net").mkdir()
            (tmp_path / f"{pid}/net/tcp").write_bytes(table)
            (tmp_path / f"{pid}/ns").mkdir()
            (tmp_path / f"{pid}/ns/net").symlink_to(f"net:[{namespace}]")
            assert ports.of(process, ()) == ()
            assert ports.of(process, (777, 778)) == (8080,)
            assert ports.of(process, (779,)) == ((22,) if pid == 43 else ())

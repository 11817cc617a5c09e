"""Tests of the look at the network where it is odd: what ends, moves or is forged."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.platform.net_look import LinuxLook, Place
from agent.platform.net_namespaces import namespace_of, namespace_text
from tests.support.network import namespace


@pytest.fixture
def denied() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def look(denied: list[tuple[str, str]]) -> LinuxLook:
    return LinuxLook(check=lambda: None, on_denied=lambda what, whose: denied.append((what, whose)))


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(1)
        yield made


def inode(of: socket.socket) -> int:
    return os.fstat(of.fileno()).st_ino


def own_name() -> str:
    return namespace_text(namespace_of(os.getpid()) or 0)


def test_a_namespace_is_read_through_the_next_process_when_one_has_ended(
    look: LinuxLook, listener: socket.socket
) -> None:
    place = Place(own_name(), (4194305, os.getpid()))
    assert inode(listener) in {one.inode for one in look.sockets(place)}
    assert {one.interface for one in look.interfaces(place)} == {name for _, name in socket.if_nameindex()}


def test_a_process_that_went_elsewhere_does_not_stand_for_its_old_namespace(
    look: LinuxLook, denied: list[tuple[str, str]]
) -> None:
    assert list(look.sockets(Place("net:[1]", (os.getpid(),)))) == []
    assert denied == []


def test_a_namespace_whose_processes_have_all_ended_is_empty(
    look: LinuxLook, denied: list[tuple[str, str]]
) -> None:
    place = Place("net:[1]", (4194305, 4194306))
    assert [*look.sockets(place), *look.interfaces(place), *look.neighbours(place)] == []
    assert look.interface_names(place) == {}
    assert denied == []


def test_a_file_that_is_no_namespace_is_told(
    look: LinuxLook, denied: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "plain").write_bytes(b"")
    assert list(look.sockets(Place("net:[1]", (), str(tmp_path / "plain")))) == []
    assert denied == [("sockets", "net:[1]: Invalid argument")]


def test_every_namespace_is_listed_once(look: LinuxLook) -> None:
    names = [place.name for place in look.places()]
    assert len(names) == len(set(names))
    assert own_name() in names


@pytest.mark.system
def test_a_namespace_with_a_file_and_processes_is_one() -> None:
    with namespace() as name:
        made = LinuxLook(check=lambda: None, on_denied=lambda *_: None, named=("/run/netns", "/run/netns"))
        wanted = namespace_text(Path(f"/run/netns/{name}").stat().st_ino)
        assert [place.path for place in made.places() if place.name == wanted] == [f"/run/netns/{name}"]


def test_a_holder_that_has_ended_is_none_any_more(look: LinuxLook, listener: socket.socket) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    assert look._pids() is not None
    look.holders(0)
    os.close(write)
    os.waitpid(child, 0)
    assert [owner.pid for owner in look.holders(inode(listener))] == [os.getpid()]


def test_a_forged_entry_of_a_unix_socket_names_no_process(look: LinuxLook) -> None:
    # A name can be made to look like a line of the table: what it invents is held by nobody.
    forged = "\0x\n0000000000000000: 00000002 00000000 00010000 0001 01 7777777777 /run/a"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(forged)
        found = [one for one in look.sockets(Place()) if one.inode in (inode(made), 7777777777)]
    assert [one.path for one in found] == [b"@x", b"/run/a"]
    assert look.holders(7777777777) == []

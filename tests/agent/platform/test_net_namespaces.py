"""Tests of network namespaces: who is in which, and looking into another and coming back. They need root."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.platform.net_namespaces import (
    in_namespace,
    named_namespaces,
    namespace_of,
    namespace_text,
    namespaces_of,
    own_namespace,
)
from tests.support.apart import become_nobody, run_apart
from tests.support.network import enter, namespace

pytestmark = pytest.mark.system


@pytest.fixture
def other() -> Iterator[str]:
    with namespace() as name:
        yield name


def test_processes_are_grouped_by_the_namespace_that_they_are_in(other: str) -> None:
    own = os.getpid()

    def ask() -> dict[int, list[int]]:
        return namespaces_of([own, os.getpid(), 4194305])

    found = run_apart(ask, enter(other))
    assert len(found) == 2
    assert found[str(namespace_of(own))] == [own]
    assert namespace_text(own_namespace() or 0) == str(Path("/proc/self/ns/net").readlink())


def test_a_namespace_without_processes_is_found_by_its_file(other: str, tmp_path: Path) -> None:
    (tmp_path / "stale").write_bytes(b"")
    (tmp_path / "gone").symlink_to("nowhere")
    found = {one.path: one.inode for one in named_namespaces(("/run/netns", str(tmp_path), "/run/no/such"))}
    path = f"/run/netns/{other}"
    assert found[path] == Path(path).stat().st_ino
    assert not any(one.startswith(str(tmp_path)) for one in found)


def test_a_look_into_another_namespace_ends_at_home(other: str) -> None:
    path = f"/run/netns/{other}"
    assert in_namespace(path, own_namespace) == Path(path).stat().st_ino
    assert own_namespace() == namespace_of(os.getpid())
    interfaces = in_namespace(path, socket.if_nameindex)
    assert [name for _, name in interfaces] == ["lo"]


def test_a_failing_look_ends_at_home_too(other: str) -> None:
    def fail() -> None:
        raise LookupError("in there")

    before = own_namespace()
    with pytest.raises(LookupError, match="in there"):
        in_namespace(f"/run/netns/{other}", fail)
    assert own_namespace() == before


def test_what_is_no_network_namespace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    before = own_namespace()
    for path in (str(tmp_path / "plain"), "/proc/self/ns/mnt"):
        with pytest.raises(OSError, match="Invalid argument"):
            in_namespace(path, own_namespace)
    assert own_namespace() == before


def test_who_may_not_look_is_told() -> None:
    denied: list[int] = []
    assert run_apart(lambda: (namespaces_of([1], on_denied=denied.append), denied), become_nobody) == [
        {},
        [1],
    ]
    with pytest.raises(AssertionError, match="PermissionError"):
        run_apart(lambda: in_namespace("/proc/self/ns/net", own_namespace), become_nobody)

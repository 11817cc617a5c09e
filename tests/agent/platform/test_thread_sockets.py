"""Tests of sockets that threads hold for themselves."""

import ctypes
import os
import socket
import threading
from pathlib import Path

import pytest

from agent.platform import thread_sockets
from agent.platform.thread_sockets import thread_socket_owners
from tests.support.apart import run_apart

_CLONE_FILES = 0x400  # clone(2)


def _ask_with_a_thread(*, is_apart: bool) -> list[bool]:
    """Return whether a socket is told that a thread made, and one that its process had before."""
    mine = socket.socket()
    told: list[int] = []
    is_made, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        if is_apart:
            assert ctypes.CDLL(None).unshare(_CLONE_FILES) == 0
        with socket.socket() as made:
            told.append(os.fstat(made.fileno()).st_ino)
            is_made.set()
            is_over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    is_made.wait()
    owners = thread_socket_owners([os.getpid()])
    is_over.set()
    thread.join()
    inodes = [told[0], os.fstat(mine.fileno()).st_ino]
    assert all(owners.get(inode, [os.getpid()]) == [os.getpid()] for inode in inodes)
    return [inode in owners for inode in inodes]


def test_a_socket_of_a_thread_that_left_its_process_is_told() -> None:
    # The thread took a copy of what its process had.
    assert run_apart(lambda: _ask_with_a_thread(is_apart=True)) == [True, True]


def test_threads_that_share_their_descriptors_are_not_looked_at_again() -> None:
    assert run_apart(lambda: _ask_with_a_thread(is_apart=False)) == [False, False]


def test_where_the_kernel_cannot_be_asked_every_thread_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_sockets, "_KCMP_NUMBERS", {})
    assert run_apart(lambda: _ask_with_a_thread(is_apart=False)) == [True, True]


def test_who_has_ended_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "7/task/7").mkdir(parents=True)
    (tmp_path / "7/task/8").mkdir()
    (tmp_path / "7/task/x").mkdir()
    assert thread_socket_owners([6, 7, 4194305], str(tmp_path)) == {}

"""Tests of who is logged in by the system's interface, and of who is alive."""

import os
import subprocess
import sys

from agent.platform.accounts_portable import is_alive, logged_in


def test_who_is_logged_in_is_told_by_name() -> None:
    for name, sessions in logged_in().items():
        assert all(session.user == name for session in sessions)


def test_a_process_is_alive_until_it_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert is_alive(child.pid)
        child.communicate()
    assert not is_alive(child.pid)
    assert is_alive(os.getpid())
    assert not is_alive(0)

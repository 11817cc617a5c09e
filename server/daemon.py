"""A process of another program that this one starts, finds again and ends: a broker, its port mapper.

Rules:
1. The process holds an exclusive lock on a file for as long as it lives: it inherits the descriptor, so the
   kernel frees the lock however it ends. The lock is therefore both "it runs" and "its pid file is true, or
   about to be": the process writes that itself, before it becomes the program, so that one can be ended whose
   starter was stopped between the two.
2. It runs in a session of its own, so a terminal's Ctrl-C reaches us first and we end it in good order.
3. Unless it is meant to outlive its starter, it gets SIGTERM when the starting thread ends, even by
   SIGKILL (Linux, prctl(2) PR_SET_PDEATHSIG). Start it from a thread that lives on.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from protocol.errors import EnvironmentFailure

_POLL_S = 0.02
_KILL_S = 5.0  # what a killed process may take to be gone
# Runs between fork and the program itself; preexec_fn is not safe in a process with threads.
_LAUNCH = """
import ctypes, os, signal, sys
pid_file, parent, *argv = sys.argv[1:]
with open(pid_file, "w", encoding="ascii") as stream:
    stream.write(f"{os.getpid()}\\n")
if parent:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the starting process is gone")
os.execve(argv[0], argv, os.environ)
"""


class Daemon:
    """One process under one name in one directory: `NAME.lock`, `NAME.pid`, `NAME.out`."""

    def __init__(self, directory: Path, name: str) -> None:
        self.output = directory / f"{name}.out"
        self._lock_file = directory / f"{name}.lock"
        self._pid_file = directory / f"{name}.pid"
        self._name = name
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock that the process will inherit.

        Raises:
            EnvironmentFailure: `state-in-use` where the process runs already.

        """
        lock = self._lock_file.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise EnvironmentFailure(
                "state-in-use", f"{self._name} is running already in {self._lock_file.parent}"
            ) from None
        self._lock = lock

    def release(self) -> None:
        """Close our own copy of the lock: from here on it is free as soon as the process has ended."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def spawn(self, argv: Sequence[str], env: Mapping[str, str], *, outlives_parent: bool) -> None:
        """Start the process; `acquire` came before. `argv[0]` is an absolute path."""
        if self._lock is None:
            raise RuntimeError("spawn without the lock")
        parent = "" if outlives_parent or sys.platform != "linux" else str(os.getpid())
        self._pid_file.unlink(missing_ok=True)
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCH, str(self._pid_file), parent, *argv],
                env=dict(env),
                cwd=self._lock_file.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self._lock.fileno(),),
            )

    def ended_within(self, wait_s: float | None) -> int | None:
        """Wait at most `wait_s` (None: for ever) for a process started here to end; return its exit code."""
        if self._process is None:
            raise RuntimeError("nothing was started here")
        try:
            return self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None

    def is_running(self) -> bool:
        """Tell whether the process lives, whoever started it."""
        try:
            with self._lock_file.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def stop(self, *, patience_s: float) -> None:
        """End the process, whoever started it: SIGTERM, then SIGKILL after `patience_s`.

        Raises:
            EnvironmentFailure: `state-failed` where it cannot be ended.

        """
        self.release()
        if not self._signal_and_wait(signal.SIGTERM, patience_s) and not self._signal_and_wait(
            signal.SIGKILL, _KILL_S
        ):
            raise EnvironmentFailure("state-failed", f"{self._name} cannot be ended; see {self._pid_file}")
        if self._process is not None:
            self._process.wait(_KILL_S)  # our child: it has let go of the lock, and is about to end

    def _signal_and_wait(self, number: signal.Signals, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        is_sent = False
        while self.is_running():
            is_sent = is_sent or self._signal(number)
            if time.monotonic() > deadline:
                return False
            if self._process is None or self.ended_within(_POLL_S) is not None:
                time.sleep(_POLL_S)  # not our child, or its own children still hold the lock
        return True

    def _signal(self, number: signal.Signals) -> bool:
        """Send a signal; False where the process has not said yet which it is, or has just ended."""
        try:
            os.kill(int(self._pid_file.read_text(encoding="ascii")), number)
        except (OSError, ValueError):
            return False
        return True

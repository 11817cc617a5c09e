"""Starts the child that serves one command, speaks frames with it, and leaves nothing of it behind.

The child is a new interpreter running the very file that the resident started from, in a session and process
group of its own, with an empty environment, in `/`, with umask 077; the limits it lays upon itself before it
reads anything (`agent.runtime.child`). Whatever it forked stands in its group and is killed with it.

Standard library only: the resident agent imports this module.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Callable, FrozenSet, List, Optional, Tuple

from agent.runtime.frames import READ_BYTES, Frame, FrameReader, encode_frame
from agent.runtime.loop import Loop
from protocol.errors import EnvironmentFailure, InvalidInput

_RETRY_S = 0.005
_REAP_TRIES = 400  # of _RETRY_S: how long a killed process may need to be gone
_MAX_COMPLAINT = 4096


def child_command() -> Tuple[List[str], Tuple[int, ...]]:
    """Return the argv of a child and the descriptors that it needs to inherit."""
    startup = sys.modules.get("mig_startup")
    if startup is not None:
        return startup.child_argv("child"), tuple(startup.pass_fds)
    root = str(Path(__file__).resolve().parent.parent.parent)
    code = f"import sys; sys.path.insert(0, {root!r}); from agent.main import main; main()"
    return [sys.executable, "-I", "-B", "-c", code, "child"], ()


def _start(lent: Tuple[int, ...]) -> "subprocess.Popen[bytes]":
    argv, pass_fds = child_command()
    try:
        return subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(*pass_fds, *lent),
            cwd="/",
            env={},
            umask=0o077,
            start_new_session=True,
        )
    except OSError as error:
        detail = f"no child can be started: {error.strerror}"
        raise EnvironmentFailure("child-failed", detail, retryable=True) from None


def _take_pipe(pipe: Optional[IO[bytes]]) -> int:
    """Return a pipe's descriptor, which from here on never blocks."""
    if pipe is None:
        raise ValueError("the child was started without its pipes")
    os.set_blocking(pipe.fileno(), False)
    return pipe.fileno()


class ChildProcess:
    """One child.

    Args:
        loop: calls back when the child says something.
        expect: the kinds of frames that it may send.
        on_frame: called with each.
        on_end: called once, when it is gone, with its exit status: negative is the signal that ended it, None
            where the system has not told.
        lent: descriptors that it gets, under the same numbers.

    Raises:
        EnvironmentFailure: `child-failed`, retryable, where none can be started.

    """

    def __init__(
        self,
        *,
        loop: Loop,
        expect: FrozenSet[bytes],
        on_frame: Callable[[Frame], None],
        on_end: Callable[[Optional[int]], None],
        lent: Tuple[int, ...] = (),
    ) -> None:
        self._loop = loop
        self._reader = FrameReader(expect)
        self._on_frame = on_frame
        self._on_end = on_end
        self._unsent = bytearray()
        self._complaint = b""
        self._is_over = self._is_reaped = False
        self._process = _start(lent)
        self._input = _take_pipe(self._process.stdin)
        self._output = _take_pipe(self._process.stdout)
        self._errors = _take_pipe(self._process.stderr)
        self._watched = {self._output, self._errors}
        loop.add_reader(self._output, self._read_output)
        loop.add_reader(self._errors, self._read_errors)

    @property
    def pid(self) -> int:
        """The child's process id, which is its group's and session's too."""
        return self._process.pid

    @property
    def complaint(self) -> str:
        """The last line that the child wrote to its standard error, for the log."""
        lines = self._complaint.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def send(self, kind: bytes, body: bytes = b"") -> None:
        """Send one frame, without ever waiting for the child to read it."""
        is_idle = not self._unsent
        self._unsent += encode_frame(kind, body)
        if is_idle:
            self._write()

    def _write(self) -> None:
        if self._is_over:
            return
        try:
            while self._unsent:
                del self._unsent[: os.write(self._input, self._unsent)]
        except BlockingIOError:
            self._loop.call_later(_RETRY_S, self._write)
        except BrokenPipeError:
            self._unsent.clear()  # its end shows at the other pipe

    def _read_output(self) -> None:
        data = os.read(self._output, READ_BYTES)
        if not data:
            self.kill()
            return
        try:
            for frame in self._reader.feed(data):
                self._on_frame(frame)
                if self._is_over:
                    return
        except InvalidInput as error:
            self._complaint += f"\n{error}".encode()
            self.kill()

    def _read_errors(self) -> None:
        try:
            data = os.read(self._errors, READ_BYTES)
        except BlockingIOError:
            return
        self._complaint = (self._complaint + data)[-_MAX_COMPLAINT:]
        if not data:
            self._unwatch(self._errors)

    def _unwatch(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.remove(fd)
            self._loop.remove_reader(fd)

    def kill(self) -> None:
        """Kill the child and all that it forked; `on_end` follows when it is gone."""
        if self._is_over:
            return
        self._is_over = True
        self._kill_group()
        self._read_errors()
        for fd in list(self._watched):
            self._unwatch(fd)
        self._reap(_REAP_TRIES)

    def _kill_group(self) -> None:
        # The child is not reaped yet, so that its id cannot be another group's by now.
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)

    def _reap(self, tries: int) -> None:
        if self._is_reaped:
            return
        if self._process.poll() is None and tries:
            self._loop.call_later(_RETRY_S, lambda: self._reap(tries - 1))
            return
        self._is_reaped = True
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._on_end(self._process.returncode)

    def interrupt(self) -> None:
        """Tell the child, and it alone, to end its module; it answers with what was found so far."""
        if not self._is_over:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Kill the child, if it is not killed yet, and wait until it is gone, without the loop."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_RETRY_S * _REAP_TRIES)
        self._reap(0)

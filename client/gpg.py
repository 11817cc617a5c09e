"""Runs the investigator's own gpg: fixed arguments, no shell, bounded output, bounded time.

What gpg reads may come from a hostile endpoint and what it writes is believed by its status lines alone
(GnuPG, doc/DETAILS), never by its exit code or its prose. All its pipes are served at once, so that nothing
that it is made to say can stall it, and one that says too much is ended.
"""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, NamedTuple

from client.screen import printable
from protocol.errors import EnvironmentFailure, InvalidInput

# A person may have to find a card and type a PIN.
TIMEOUT_S = 300.0
MAX_OUTPUT_BYTES = 4 << 20
_MAX_STATUS_BYTES = 1 << 16  # some 30 lines for the largest message that agents make
_CHUNK_BYTES = 1 << 16


class Run(NamedTuple):
    """What gpg said: output, status lines as words without their prefix, its last line of prose."""

    output: bytes
    status: tuple[tuple[str, ...], ...]
    prose: str

    def count(self, keyword: str) -> int:
        """Return how often a status line came."""
        return sum(words[:1] == (keyword,) for words in self.status)


class Gpg:
    """One gpg with one home.

    Args:
        program: by name or path.
        home: GnuPG's home directory; empty for its default.
        is_interactive: whether a person at a terminal may be asked for a passphrase; None: as it is.

    """

    def __init__(self, *, program: str = "gpg", home: str = "", is_interactive: bool | None = None) -> None:
        self._program = program
        self._home = home
        self._is_interactive = sys.stdin.isatty() if is_interactive is None else is_interactive

    @property
    def where(self) -> str:
        """Where its keys are, for people."""
        return self._home or "gpg's default home"

    def run(
        self,
        *arguments: str,
        data: bytes,
        meanwhile: Callable[[], None] = lambda: None,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> Run:
        """Run gpg on `data`; `meanwhile` is done while it starts.

        Raises:
            EnvironmentFailure: `gpg-missing`, or `gpg-failed` where it does not end in time.
            InvalidInput: `too-large` where it writes more than it may.

        """
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb", buffering=0) as status:
            try:
                process = self._start(arguments, write_fd)
            finally:
                os.close(write_fd)
            with process:
                try:
                    meanwhile()
                    pumped = _Pump(process, status, data, max_output_bytes).run(timeout_s)
                finally:
                    process.kill()  # nothing, where it has ended
        lines = bytes(pumped[1]).decode("utf-8", "replace").splitlines()
        prose = bytes(pumped[2]).decode("utf-8", "replace").strip().splitlines()
        return Run(
            bytes(pumped[0]),
            tuple(tuple(line.split()[1:]) for line in lines if line.startswith("[GNUPG:] ")),
            printable(prose[-1], 300) if prose else "",
        )

    def _start(self, arguments: tuple[str, ...], status_fd: int) -> "subprocess.Popen[bytes]":
        command = [self._program, "--status-fd", str(status_fd)]
        if self._home:
            command += ["--homedir", self._home]
        if not self._is_interactive:
            command += ["--batch", "--no-tty"]
        environment = dict(os.environ)
        if self._is_interactive and sys.stdin.isatty():
            # Standard input is a pipe here: this is how the pinentry finds the terminal.
            environment.setdefault("GPG_TTY", os.ttyname(sys.stdin.fileno()))
        try:
            return subprocess.Popen(
                [*command, *arguments],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(status_fd,),
                env=environment,
            )
        except FileNotFoundError:
            raise EnvironmentFailure("gpg-missing", f"{self._program} is not installed") from None
        except OSError as error:
            raise EnvironmentFailure("gpg-missing", f"{self._program}: {error.strerror}") from None


class _Pump:
    """Serves the pipes of one process until all that it writes has ended."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", status: IO[bytes], data: bytes, max_output_bytes: int
    ) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("started without its pipes")
        self._stdin = process.stdin
        self._left = memoryview(data)
        self._selector = selectors.DefaultSelector()
        # Prose is for people: it may be long, and only its end is of interest.
        self._read: list[tuple[bytearray, int | None]] = [
            (bytearray(), max_output_bytes),
            (bytearray(), _MAX_STATUS_BYTES),
            (bytearray(), None),
        ]
        for number, pipe in enumerate((process.stdout, status, process.stderr)):
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, number)
        os.set_blocking(self._stdin.fileno(), False)
        self._selector.register(self._stdin, selectors.EVENT_WRITE)

    def run(self, timeout_s: float) -> tuple[bytearray, ...]:
        end = time.monotonic() + timeout_s
        with self._selector:
            while self._selector.get_map():
                events = self._selector.select(max(end - time.monotonic(), 0))
                if not events and time.monotonic() >= end:
                    raise EnvironmentFailure("gpg-failed", f"no answer within {timeout_s:g} s")
                for key, _ in events:
                    if key.data is None:
                        self._write()
                    else:
                        self._take(key.fd, key.fileobj, key.data)
        return tuple(read for read, _ in self._read)

    def _write(self) -> None:
        try:
            self._left = self._left[os.write(self._stdin.fileno(), self._left[:_CHUNK_BYTES]) :]
        except BrokenPipeError:
            self._left = self._left[:0]  # it has read what it wanted
        if not self._left:
            self._selector.unregister(self._stdin)
            self._stdin.close()

    def _take(self, fd: int, pipe: object, number: int) -> None:
        chunk = os.read(fd, _CHUNK_BYTES)
        if not chunk:
            self._selector.unregister(pipe)  # type: ignore[arg-type]  # it is what was registered
            return
        read, limit = self._read[number]
        read += chunk
        if limit is None:
            del read[:-_CHUNK_BYTES]
        elif len(read) > limit:
            raise InvalidInput("too-large", f"gpg writes more than {limit} bytes")

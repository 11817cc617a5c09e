"""The processes and commands of `quickstart`: started, watched, ended, and what they say shown.

Standard library only: it runs before anything is installed.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var"


class QuickstartError(Exception):
    """Something that the user can mend, in one line; `code` is the exit code."""

    def __init__(self, text: str, code: int = 5) -> None:
        super().__init__(text)
        self.code = code


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"\033[1m::\033[0m {text}" if sys.stdout.isatty() else f":: {text}", flush=True)


class Processes:
    """The processes that this run started; all end with it, whatever happens."""

    def __init__(self) -> None:
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a process in a session of its own, its output going to var/<name>.log."""
        log = VAR / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  (no threads have been started that hold locks)
                env=program_environment(),
            )
        self._running.append((name, process, log))

    def require_alive(self) -> None:
        """Raise when one of the processes has ended by itself."""
        for name, process, log in self._running:
            if process.poll() is not None:
                lines = log.read_text(errors="replace").strip().splitlines()[-5:]
                raise QuickstartError(
                    f"{name} ended with {process.returncode}; its last lines:\n" + "\n".join(lines)
                )

    def stop(self) -> None:
        """End what was started, the last one first, and wait for each."""
        for name, process, _ in reversed(self._running):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    say(f"{name} does not end; killing it")
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        self._running.clear()


def _die_with_parent() -> None:
    """Ask the kernel to end this process when quickstart is gone, even by kill -9 (prctl(2))."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def program_environment() -> dict[str, str]:
    """Return the environment of the programs: this platform's configuration, nothing else of MIG's."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GNUPG", "MIG_"))
    }
    return {
        **kept,
        "MIG_CONFIG": str(VAR / "config.toml"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(command: Sequence[str | Path], what: str, **options: object) -> str:
    """Run a command to its end and return its output; a failure is one clear error."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode != 0:
        output = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-3:]
        raise QuickstartError(f"{what} failed: " + "\n".join(output))
    return str(done.stdout)


def run_with_progress(command: Sequence[str | Path], what: str, show: Callable[[str], str | None]) -> None:
    """Run a command, showing what `show` makes of its lines, and a sign of life every ten seconds."""
    began = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=program_environment(),
    )
    lines: list[str] = []
    partial = b""
    try:
        descriptor = process.stdout.fileno()  # type: ignore[union-attr]  # it was asked for above
        while True:
            if not select.select([descriptor], [], [], 10)[0]:
                say(f"  … {what}, {time.monotonic() - began:.0f} s so far")
                continue
            data = os.read(descriptor, 65536)
            *whole, partial = (partial + data).split(b"\n")
            for line in whole:
                lines.append(line.decode(errors="replace").rstrip())
                shown = show(lines[-1])
                if shown:
                    say(f"  {shown}")
            if not data:
                break
        if process.wait() != 0:
            raise QuickstartError(f"{what} failed:\n" + "\n".join(lines[-6:]))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()

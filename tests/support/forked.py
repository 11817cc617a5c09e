"""`mig` and `mig-server`, run hundreds of times: forked by a process that has imported them once.

Rules:
1. What runs is the program's own `main` in a process of its own, with the arguments, environment, directory
   and files that it is given. Only the imports, most of what a command costs, are not made again, nor is
   what was imported taken apart at the end.
2. The process that forks has one thread, does nothing else, and ends when the test's process does.
3. A bench pays what its user pays: outside pytest an interpreter is started.

Linux only: it sends descriptors and waits for whom its children fork.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("client.main", "server.main")
_MOST_BYTES = 1 << 17  # of a request
_DESCRIPTORS = 3  # standard output and error, and the socket that hears of the end


def run_program(
    program: str, *words: str, env: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Run one of `PROGRAMS` in the project's directory to its end, and return what it said.

    Raises:
        subprocess.TimeoutExpired: it was killed.

    """
    argv = [sys.executable, "-B", "-m", program, *words]
    if "PYTEST_VERSION" not in os.environ:
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=ROOT, env=dict(env), timeout=timeout
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        request = json.dumps([program, words, dict(env)]).encode()
        with theirs:
            socket.send_fds(_starter(), [request], [output.fileno(), errors.fileno(), theirs.fileno()])
        pid = int(ours.recv(64))
        ours.settimeout(timeout)
        try:
            status = int(ours.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(argv, timeout) from None
        said = [_text(output.fileno()), _text(errors.fileno())]
    return subprocess.CompletedProcess(argv, os.waitstatus_to_exitcode(status), *said)


def _text(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()


@functools.cache
def _starter() -> socket.socket:
    """Return the socket of this process's forker, which is started at first."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-B", "-m", "tests.support.forked", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _become(program: str, words: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]) -> None:
    """Make this process what it would be had an interpreter been started for it."""
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [str(ROOT / f"{program.replace('.', '/')}.py"), *words]


def _serve(requests: socket.socket) -> str | None:
    """Fork a process for each request; return the program's name in each, and None here at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, _MOST_BYTES, _DESCRIPTORS)
        if not data:
            return None
        if os.fork() == 0:
            requests.close()
            program, words, env = json.loads(data)
            *files, end = descriptors
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            pid = os.fork()
            if pid == 0:
                os.close(end)
                _become(program, words, env, files)
                return str(program)
            _report_end(pid, end)
        for descriptor in descriptors:
            os.close(descriptor)


def _run(program: str) -> None:
    """Run it, and end as an interpreter does: with its exit code, or 1 and what was not caught."""
    code = 1
    try:
        sys.modules[program].main()
        code = 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
        else:
            code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001  (the interpreter's own last resort)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _report_end(pid: int, end: int) -> None:
    """Say who was forked, and how that ended; then end, too."""
    try:
        with suppress(BrokenPipeError), socket.socket(fileno=end) as told:
            told.send(str(pid).encode())
            _, status = os.waitpid(pid, 0)
            told.send(str(status).encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    for name in PROGRAMS:
        importlib.import_module(name)
    gc.freeze()  # what is there stays, and stays shared
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        chosen = _serve(connection)
    if chosen is not None:
        _run(chosen)

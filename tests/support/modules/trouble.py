"""A module that misbehaves on request: what the agent must survive. Never part of a build."""

import fcntl
import itertools
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.runtime import frames


class Params(ModuleParams, frozen=True):
    """What to do."""

    how: Annotated[str, Meta(description="the kind of trouble")]
    path: Annotated[str, Meta(description="a file to write to")] = ""


class Record(ModuleRecord, frozen=True):
    """Whatever."""

    value: Annotated[Any, Meta(description="anything")]


def _die(_params: Params, _context: Context) -> Iterator[Record]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield Record(value="never")


def _hang(params: Params, _context: Context) -> Iterator[Record]:
    Path(params.path).write_text(str(os.getpid()))
    threading.Event().wait()
    yield Record(value="never")


def _fork(params: Params, _context: Context) -> Iterator[Record]:
    worker = os.fork()
    if worker:
        Path(params.path).write_text(f"{os.getpid()} {worker}")
    threading.Event().wait()
    yield Record(value="never")


def _abandon(params: Params, _context: Context) -> Iterator[Record]:
    """Leave a worker behind and be done."""
    worker = os.fork()
    if not worker:
        threading.Event().wait()
    Path(params.path).write_text(str(worker))
    yield Record(value=worker)


def _spin(_params: Params, _context: Context) -> Iterator[Record]:
    while True:
        pass
    yield Record(value="never")


def _dawdle(_params: Params, context: Context) -> Iterator[Record]:
    while True:
        context.check()
        yield Record(value="still here")
        threading.Event().wait(0.05)


def _count(_params: Params, context: Context) -> Iterator[Record]:
    """Say how far it is until it is told to end."""
    for number in itertools.count(1):
        context.check()
        context.statistics.update(files_seen=number, bytes_read=number << 20, secret="no number")
        context.progress()
        threading.Event().wait(0.01)
    yield Record(value="never")


def _count_and_die(_params: Params, context: Context) -> Iterator[Record]:
    """Say once how far it is, and die a moment later."""
    context.statistics.update(files_seen=1)
    for _ in range(120):
        context.progress()
        threading.Event().wait(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
    yield Record(value="never")


def _meet(params: Params, context: Context) -> Iterator[Record]:
    """Come to a place, and wait until somebody else came there too."""
    place = Path(params.path)
    (place / str(os.getpid())).touch()
    while len(list(place.iterdir())) < 2:
        context.check()
        threading.Event().wait(0.01)
    yield Record(value=os.getpid())


def _babble(_params: Params, context: Context) -> Iterator[Record]:
    """Say how far it is as often as a child out of control could."""
    channel = next(fd for fd in range(3, 64) if stat.S_ISFIFO(os.fstat(fd).st_mode) and _is_writable(fd))
    while True:
        frames.write_frame(channel, frames.PROGRESS, b"[" * frames.MAX_BODY_BYTES[frames.PROGRESS])
    yield Record(value="never")


def _is_writable(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY


def _hoard(_params: Params, _context: Context) -> Iterator[Record]:
    yield Record(value=len([bytearray(64 << 20) for _ in range(64)]))


def _flood(_params: Params, _context: Context) -> Iterator[Record]:
    for number in range(1_000_000):
        yield Record(value=f"{number:0100d}")


def _write(params: Params, _context: Context) -> Iterator[Record]:
    Path(params.path).write_bytes(bytes(8 << 20))
    yield Record(value="never")


def _raise(_params: Params, _context: Context) -> Iterator[Record]:
    raise ZeroDivisionError


def _unsendable(_params: Params, _context: Context) -> Iterator[Record]:
    yield Record(value=1 << 63)


def _bounds(_params: Params, _context: Context) -> Iterator[Record]:
    """Say what the process is bound to."""
    os.write(1, b"a module that prints")
    umask = os.umask(0)
    yield Record(
        value={
            "umask": umask,
            "cwd": str(Path.cwd()),
            "environment": sorted(os.environ),
            "leads_session": os.getsid(0) == os.getpid(),
            "nice": os.nice(0),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "cpu_s": resource.getrlimit(resource.RLIMIT_CPU)[0],
            "data_bytes": resource.getrlimit(resource.RLIMIT_DATA)[0],
            "descriptors": [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in (0, 1)],
        }
    )


_KINDS: dict[str, Callable[[Params, Context], Iterator[Record]]] = {
    "abandon": _abandon,
    "babble": _babble,
    "bounds": _bounds,
    "count": _count,
    "count-and-die": _count_and_die,
    "dawdle": _dawdle,
    "die": _die,
    "flood": _flood,
    "fork": _fork,
    "hang": _hang,
    "hoard": _hoard,
    "meet": _meet,
    "raise": _raise,
    "spin": _spin,
    "unsendable": _unsendable,
    "write": _write,
}


def run(params: Params, context: Context) -> Iterator[Record]:
    """Cause the trouble asked for."""
    return _KINDS[params.how](params, context)

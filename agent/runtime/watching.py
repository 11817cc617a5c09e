"""A watcher: the process that runs one persistent module for as long as the agent runs.

It binds itself to limits first: memory, the lowest priority, no core dump; not processor time, since it lives
long and its module paces itself. It dies with the resident (Linux). What it reports is bounded frames; at
most `MOST_UNKEPT` of them are under way, so that it never fills the resident's memory. A module that cannot
work here says why, and ends.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any, NoReturn, Optional, Protocol

from agent.module import Cancelled
from agent.platform.limits import ProcessLimits, apply_limits, die_with_parent, yield_to_others
from agent.registry import load_module
from agent.runtime import frames
from agent.runtime.state import environment_failure, open_state_directory, write_atomically
from agent.runtime.watchers import MOST_UNKEPT
from agent.watching import Pacer, WatchContext, utc_now
from protocol.errors import InvalidInput, MigError
from protocol.strictjson import decode_json, encode_json

_FOR_EVER_S = 1 << 31
_OPEN_FILES = 4096
_FILE_BYTES = 1 << 30  # of what it keeps


class Channel(Protocol):
    """The two ends that lead to the resident."""

    @property
    def input(self) -> int:
        """The descriptor that is read."""

    def write(self, kind: bytes, body: bytes = b"") -> None:
        """Write one frame."""


def watch(channel: Channel, body: bytes) -> None:
    """Run the module that a `WATCH` frame names, until the resident is gone or the module cannot go on."""
    told = decode_json(body, max_bytes=frames.MAX_BODY_BYTES[frames.WATCH])
    die_with_parent()
    yield_to_others()
    apply_limits(
        ProcessLimits(
            cpu_s=_FOR_EVER_S,
            memory_bytes=told["memory_bytes"],
            open_files=_OPEN_FILES,
            file_bytes=_FILE_BYTES,
            library_bytes=_FILE_BYTES,
        )
    )
    try:
        _watch(channel, told)
    except MigError as error:
        _end(channel, error.code, error.detail)
    except (EOFError, BrokenPipeError, Cancelled):
        return
    # A module meets whatever is on the machine: why it fails is told, and it is started again.
    except Exception as error:  # noqa: BLE001
        _end(channel, "child-failed", f"the module failed: {type(error).__name__}: {error}")


def _end(channel: Channel, code: str, detail: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        channel.write(frames.ENDED, encode_json({"code": code, "detail": detail[:500]}))


def _watch(channel: Channel, told: Any) -> NoReturn:
    module = load_module(told["module"])
    if module.watch is None:
        raise InvalidInput("unknown-module", f"{module.name} watches nothing")
    if not module.is_supported():
        raise InvalidInput("unsupported", f"module {module.name} does not work on this platform")
    directory = open_state_directory(Path(told["directory"]))
    reader = frames.FrameReader(frozenset({frames.KEPT}))

    def take_kept() -> int:
        data = os.read(channel.input, frames.READ_BYTES)
        if not data:
            raise EOFError
        return sum(1 for _ in reader.feed(data))

    def send(report: bytes) -> None:
        channel.write(frames.ALERT, report)
        context.note_sent()
        context.settle(MOST_UNKEPT // 2)

    def send_state(state: bytes) -> None:
        if len(state) <= frames.MAX_BODY_BYTES[frames.STATE]:
            channel.write(frames.STATE, state)

    pacer = Pacer(told["per_minute"], send, clock=utc_now, monotonic=time.monotonic)
    context = WatchContext(
        save=lambda name, data: write_atomically(directory / name, data),
        load=lambda name: _load(directory / name),
        pacer=pacer,
        channel=channel.input,
        take_kept=take_kept,
        send_state=send_state,
    )
    for report in module.watch(told["config"], context):
        pacer.offer(report)
    raise InvalidInput("internal", "the module ended by itself")


def _load(path: Path) -> Optional[bytes]:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise environment_failure(error, path) from None

"""Writes files in one step, so that a crash or a second process never leaves half of one."""

import os
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec

from protocol.errors import EnvironmentFailure

T = TypeVar("T")


def write_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file, making its directory; whoever reads it sees all of it or what was there before.

    Args:
        path: replaced if it is there.
        data: the whole content.
        mode: permissions of the new file, less the process's umask.

    Raises:
        EnvironmentFailure: `state-failed`.

    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentFailure("state-failed", f"{path}: {error.strerror}") from None


def read_memory(path: Path, kind: type[T], max_bytes: int) -> T | None:
    """Return what this client remembered in a file; None where it remembers nothing yet.

    Raises:
        EnvironmentFailure: `state-failed` where it cannot be read: to forget silently would be to lose the
            warnings that such a file is for.

    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentFailure("state-failed", f"{path}: {error.strerror}") from None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise EnvironmentFailure("state-failed", f"{path} cannot be read: repair it or remove it") from None

"""Writes files in one step, so that a crash or a second process never leaves half of one."""

import os
import secrets
from pathlib import Path

from protocol.errors import EnvironmentFailure


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

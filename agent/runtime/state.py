"""The agent's state directory: private, locked by one process, written so that a crash leaves old or new.

Where it is, `agent.config.default_state_directory` says. Standard library only.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import IO

from protocol.errors import EnvironmentFailure, InvalidInput

IDENTITY_FILE = "identity.json"
_OTHERS_CAN_TOUCH = stat.S_IRWXG | stat.S_IRWXO


def require_private(path: Path) -> None:
    """Raise unless a file or directory is ours and nobody else's.

    Raises:
        InvalidInput: `unsafe-file`.

    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise InvalidInput("unsafe-file", f"{path} is a link")
    if status.st_uid != os.getuid():
        raise InvalidInput("unsafe-file", f"{path} belongs to another user")
    if status.st_mode & _OTHERS_CAN_TOUCH:
        raise InvalidInput("unsafe-file", f"{path} is open to others; expected mode 0600 or 0700")


def open_state_directory(path: Path) -> Path:
    """Make the state directory, 0700, where it is missing, and check that it is ours alone.

    Raises:
        EnvironmentFailure: `state-failed` or `disk-full`.
        InvalidInput: `unsafe-file`.

    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise environment_failure(error, path) from None
    require_private(path)
    return path


def lock_state_directory(path: Path) -> IO[bytes]:
    """Take the lock of a state directory; it is held until the file is closed or the process ends.

    Raises:
        EnvironmentFailure: `state-in-use` when another process holds it, `state-failed` otherwise.

    """
    try:
        lock = (path / "lock").open("ab")
    except OSError as error:
        raise environment_failure(error, path) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise EnvironmentFailure("state-in-use", f"another mig-agent uses {path}", retryable=True) from None
    return lock


def environment_failure(error: OSError, path: Path) -> EnvironmentFailure:
    """Translate an error of the file system: no room is `disk-full` (retryable), the rest `state-failed`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentFailure("disk-full", f"no room for {path}", retryable=True)
    return EnvironmentFailure("state-failed", f"{path}: {error.strerror}")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that, whatever happens, the old or the new content is there; it is on the disk after.

    Raises:
        EnvironmentFailure: `disk-full` (retryable) or `state-failed`; the old content stands.

    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one that counts
            temporary.unlink()
        raise environment_failure(error, path) from None


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable (fsync(2) of the directory)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""One server per state directory: a lock that the kernel frees however its holder ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import EnvironmentFailure

_NAME = "server.lock"


@contextmanager
def state_lock(directory: Path) -> Iterator[None]:
    """Hold the state directory for as long as the block lasts; it is made where it is missing.

    Raises:
        EnvironmentFailure: `state-in-use`, `state-failed`.

    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / _NAME).open("ab")
    except OSError as error:
        raise EnvironmentFailure("state-failed", f"{error.filename}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFailure(
                "state-in-use", f"another mig-server runs with state directory {directory}"
            ) from None
        yield


def is_locked(directory: Path) -> bool:
    """Tell whether a server holds the state directory; nothing is made."""
    try:
        with (directory / _NAME).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

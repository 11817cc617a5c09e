"""What `mig-agent status` says: the last status that the resident agent wrote, and whether it is alive."""

import fcntl
import json
from pathlib import Path
from typing import List

from agent.runtime.state import environment_failure
from protocol.errors import EnvironmentFailure

_LABELS = {
    "agent": "agent id",
    "version": "version",
    "build": "build",
    "started": "started",
    "written": "last written",
    "broker": "broker",
    "trust": "trust",
    "spooled_answers": "answers waiting",
    "spooled_alerts": "alerts waiting",
    "watchers": "watchers",
}


def is_running(directory: Path) -> bool:
    """Tell whether a process holds the lock of the state directory."""
    try:
        with (directory / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_status(directory: Path) -> List[str]:
    """Return the lines of the status.

    Raises:
        EnvironmentFailure: `state-failed` where no agent ever ran here, or the file cannot be read.

    """
    path = directory / "status.json"
    try:
        status = json.loads(path.read_text())
        values = [(label, str(status[name])) for name, label in _LABELS.items()]
    except FileNotFoundError:
        raise EnvironmentFailure("state-failed", f"no agent has run with {directory}") from None
    except OSError as error:
        raise environment_failure(error, path) from None
    except (ValueError, KeyError, TypeError):
        raise EnvironmentFailure("state-failed", f"{path} is damaged") from None
    running = "running" if is_running(directory) else "not running"
    return [f"{'state':<16} {running}", *(f"{label:<16} {value}" for label, value in values)]

"""Who is logged in by the system's own interface, where accounts are not kept in files; who is alive."""

import os
from typing import Dict, List

from agent.platform.accounts_logins import Login


def logged_in() -> Dict[bytes, List[Login]]:
    """Return who is logged in now, by name."""
    import psutil  # noqa: PLC0415  (only here, and the client loads this file for its flags)

    found: Dict[bytes, List[Login]] = {}
    for user in psutil.users():
        login = Login(
            user=os.fsencode(user.name),
            time_s=int(user.started),
            terminal=os.fsencode(user.terminal or ""),
            host=os.fsencode(user.host or ""),
            pid=int(user.pid or 0),
        )
        found.setdefault(login.user, []).append(login)
    return found


def is_alive(pid: int) -> bool:
    """Tell whether a process is there; one that we may not signal is."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True

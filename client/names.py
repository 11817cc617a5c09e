"""Remembers which agent bore which name, and says when a name moves to another agent.

An agent's id is proved by its signature; its name is only said. A machine that was reinstalled, or a second
one that takes a name, shows as a name that moved: for the investigator to judge.
"""

from pathlib import Path

import msgspec

from client.files import read_memory, write_file
from client.screen import printable

# 200,000 agents' names take some 12 MB; a file beyond that is not ours.
_MAX_FILE_BYTES = 32 << 20


class KnownAgents:
    """The names seen so far, by name the agent's id; `close` writes what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_name = read_memory(path, dict[str, str], _MAX_FILE_BYTES) or {}
        self._is_changed = False

    def note(self, name: str, agent: str) -> str | None:
        """Remember a name's agent; return a warning where another agent bore the name before."""
        before = self._by_name.get(name)
        if before == agent:
            return None
        self._by_name[name] = agent
        self._is_changed = True
        if before is None:
            return None
        return f"the name {printable(name, 64)} has moved from agent {before} to agent {agent}"

    def close(self) -> None:
        """Write what is new.

        Raises:
            EnvironmentFailure: `state-failed`.

        """
        if self._is_changed:
            write_file(self._path, msgspec.json.encode(self._by_name, order="sorted"), mode=0o600)
            self._is_changed = False

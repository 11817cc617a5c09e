"""Checks what agents sign of their own logs: that each goes on from what it had signed before.

Rules:
1. What counts is what an agent signed. That one heartbeat came before another is this client's own memory
   where it has seen the first one at an earlier time; else it is the server's word.
2. The heads at the landmarks of two heartbeats must agree, and the later log must not be shorter
   (`protocol.audit.compare_heads`).
3. What was seen of an agent is remembered here until the next time, unless something is wrong with it: then
   what was remembered stays, and is compared again, until a person says that they have looked (`forget`).

What it cannot show: a log that was written anew before its head was ever told, or by a program that goes on
naming the heads of the old one. The log itself shows that (`check_log_file`).
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from client.files import read_memory, write_file
from protocol.audit import Chain, Head, Witnessed, compare_heads
from protocol.errors import InvalidInput
from protocol.heartbeat import Heartbeat

_MAX_FILE_BYTES = 256 << 20  # some 2 KB of each agent


class SignedLogs(NamedTuple):
    """Verified heartbeats of one agent: the newest, an earlier one, and two that the server says disagree."""

    newest: Heartbeat
    earlier: Heartbeat | None
    contradiction: tuple[Heartbeat, ...]

    def all(self) -> Iterator[Heartbeat]:
        """Yield every one of them."""
        yield from self.contradiction
        if self.earlier is not None:
            yield self.earlier
        yield self.newest


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """The heads that an agent had signed when this client last looked, and when, by the agent's clock."""

    time: datetime
    heads: tuple[Head, ...]


class AgentLogs:
    """What this client remembers of the logs of one server's agents, in a file; `save` writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = read_memory(path, dict[str, Remembered], _MAX_FILE_BYTES) or {}
        self.compared = 0

    def check(self, signed: SignedLogs) -> list[str]:
        """Compare what an agent signed with itself and with what is remembered; return what is wrong."""
        known = self._known.get(signed.newest.agent)
        heads = signed.newest.own_heads
        problems = []
        if known is not None:
            problem = compare_heads(known.heads, heads)
            is_older = signed.newest.time < known.time
            problems.append(f"{problem}, or an older heartbeat is shown" if problem and is_older else problem)
        if signed.earlier is not None:
            problems.append(compare_heads(signed.earlier.own_heads, heads))
        if len(signed.contradiction) == 2:  # noqa: PLR2004  (before and after)
            problems.append(compare_heads(*(one.own_heads for one in signed.contradiction)))
        found = list(dict.fromkeys(problem for problem in problems if problem))
        if not found:
            self.compared += known is not None or signed.earlier is not None
            self._known[signed.newest.agent] = Remembered(time=signed.newest.time, heads=heads)
        return found

    def missing(self, shown: Iterable[str]) -> list[str]:
        """Return the agents that are remembered and that the server does not show any more."""
        return sorted(set(self._known) - set(shown))

    def heads_of(self, agent_id: str) -> tuple[Head, ...]:
        """Return what is remembered of an agent."""
        known = self._known.get(agent_id)
        return () if known is None else known.heads

    def forget(self, agent_id: str) -> bool:
        """Begin anew with an agent; tell whether anything was remembered of it."""
        return self._known.pop(agent_id, None) is not None

    def save(self) -> None:
        """Write what is remembered.

        Raises:
            EnvironmentFailure: `state-failed`.

        """
        write_file(self._path, msgspec.json.encode(self._known), mode=0o600)


class CheckedLog(NamedTuple):
    """An agent's log, compared with what it signed: contradictions, and heads that could not be compared."""

    head: Head
    confirmed: int
    wrong: list[str]
    unknown: list[str]


def check_log_file(lines: Iterable[bytes], heads: Iterable[Head]) -> CheckedLog:
    """Check an agent's own log, as `mig-agent log --json` prints it, against the heads that it signed.

    Raises:
        InvalidInput: `broken-chain`.

    """
    witnessed = Witnessed([("the agent", head) for head in sorted(set(heads))])
    chain = Chain()
    for line in lines:
        chain.add(line)
        witnessed.passed(chain.head)
    chain.require_complete()
    wrong = [
        f"the agent signed entry {head.seq} as {head.sha256}, and it is another one in this file"
        for _, head in witnessed.contradictions
    ]
    unknown = [
        f"the agent signed entry {head.seq}, which is not in this file: it ends at {chain.head.seq}"
        for _, head in witnessed.left()
        if head.seq > chain.head.seq
    ]
    return CheckedLog(chain.head, len(witnessed.confirmed), wrong, unknown)


def require_heads(heads: list[Head], agent_id: str) -> list[Head]:
    """Return the heads, where there is one at least.

    Raises:
        InvalidInput: `not-found`.

    """
    if not heads:
        raise InvalidInput(
            "not-found", f"agent {agent_id} has signed no head of its log that the server keeps"
        )
    return heads

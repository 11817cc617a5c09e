"""Decides which alerts are believed, and tells where some are missing.

Rules:
1. An alert is what its agent signed, under the key whose hash is the agent's id; nothing that the server says
   beside it counts but the agent's name, which is only shown. What fails is a `hostile-answer`: named, never
   shown as an alert.
2. One that comes twice, by its digest, is shown once.
3. Alerts of an agent are numbered. Where all of them were asked for, numbers that are missing between two are
   told, unless the agent itself says that it dropped so many. An agent sends them in order, so that one is
   missing behind which others came is under way no more.
"""

from collections.abc import Iterator
from typing import NamedTuple

from client.screen import printable
from protocol.alert import Alert, decode_public_key, open_alert
from protocol.alert_documents import AlertItem
from protocol.errors import InvalidInput


class SeenAlert(NamedTuple):
    """A verified alert. The name is the server's word; the id is proved."""

    agent_name: str
    alert: Alert
    digest: str


def verify_alert(item: AlertItem) -> SeenAlert:
    """Return the verified alert, or raise.

    Raises:
        InvalidInput: `hostile-answer`, with the reason.

    """
    try:
        # The agent's id proves the key, so one of another shape proves nothing.
        opened = open_alert(item.envelope.encode(), decode_public_key(item.public_key), item.agent)
    except InvalidInput as error:
        who = f"{printable(item.agent_name, 64)} ({printable(item.agent, 32)})"
        raise InvalidInput("hostile-answer", f"an alert of {who}: {error.detail}") from None
    return SeenAlert(item.agent_name, opened.alert, opened.digest)


class Seen:
    """What one reader has seen: no alert twice, and which numbers are missing."""

    def __init__(self) -> None:
        self._digests: set[str] = set()
        self._numbers: dict[str, set[int]] = {}
        self._dropped: dict[str, int] = {}

    def is_new(self, seen: SeenAlert) -> bool:
        """Take note of an alert; tell whether it was not seen before."""
        if seen.digest in self._digests:
            return False
        self._digests.add(seen.digest)
        alert = seen.alert
        numbers = self._numbers.setdefault(alert.agent, set())
        # What was dropped before the first that we see is no gap of ours.
        if numbers:
            self._dropped[alert.agent] = self._dropped.get(alert.agent, 0) + alert.dropped
        numbers.add(alert.seq)
        return True

    def missing(self) -> Iterator[str]:
        """Yield a line for each agent of which alerts are missing."""
        for agent, numbers in sorted(self._numbers.items()):
            gap = max(numbers) - min(numbers) + 1 - len(numbers) - self._dropped.get(agent, 0)
            if gap > 0:
                yield f"{gap:,} alerts of agent {agent} are missing between those shown: they are withheld"

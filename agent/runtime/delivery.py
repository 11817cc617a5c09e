"""A delivery on its way through the supervisor. Standard library only."""

from typing import Callable, List, Optional, Tuple

from agent.runtime.journal import JournalEntry


class Command:
    """A delivery on its way; `entry` once the journal holds it.

    The broker may deliver the same again before it is acknowledged; then there is more to acknowledge.
    """

    def __init__(self, body: bytes, digest: str, entry: Optional[JournalEntry] = None) -> None:
        self.body = body
        self.digest = digest
        self.entry = entry
        self.acknowledgements: List[Callable[[], None]] = []
        self.judgements = 0
        self.sealed_to: Tuple[str, ...] = ()

    def acknowledge(self) -> None:
        """Tell the broker, for every time it delivered this, that it need not do so again."""
        while self.acknowledgements:
            self.acknowledgements.pop()()

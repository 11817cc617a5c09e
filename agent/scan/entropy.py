"""Entropy of bytes: how evenly they are spread, which tells what is packed or encrypted from what is not.

Shannon's, of single bytes: 0 where all are the same, 8 bits per byte where each value is as frequent. Text
has 4 to 5, machine code about 6, what is compressed or encrypted above 7.9 (short files less, since n bytes
have at most log2(n) bits). Counting costs about 30 ms of CPU for each MiB: let names and sizes choose first.

Source: C. E. Shannon, A Mathematical Theory of Communication (1948), section 6.
"""

from collections import Counter
from math import fsum, log2

from agent.scan.source import Buffer


class EntropyScan:
    """Counts a file's bytes while they go by."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def feed(self, data: Buffer) -> None:
        """Take the next bytes of the file."""
        self._counts.update(data)

    def bits_per_byte(self) -> float:
        """Return the entropy of all that was taken, 0 to 8; of nothing it is 0."""
        counts = self._counts.values()
        total = sum(counts)
        if not total:
            return 0.0
        # fsum: rounded once, whatever the order in which the values first came.
        return abs(fsum(count * log2(count / total) for count in counts)) / total

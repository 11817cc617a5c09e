"""Byte strings, found anywhere in a file's raw bytes while they go by, many at once.

A few are looked for one by one, in what is large from their rarest byte on; many are joined into one
expression that tells whether any of them is in a chunk at all. Both need google-re2; where that is missing it
takes longer, no more. What lies across two chunks is found in their edges, joined.
"""

from collections import OrderedDict
from typing import AbstractSet, Dict, FrozenSet, Optional, Sequence, Set

from agent.scan.literals import probe_of
from agent.scan.patterns import Pattern, join_bytes

# So many are quicker one by one than joined.
_FEW = 6
# Below this, and without re2, Python itself is quick enough.
_PROBED_BYTES = 16 << 10
# A chunk this large pays for joining those that are left, after others were found.
_JOIN_BYTES = 256 << 10
_KEPT = 16


class ByteStrings:
    """The byte strings of a plan by their index, none of them empty."""

    def __init__(self, strings: Sequence[bytes]) -> None:
        self.strings = tuple(strings)
        self._probes: Dict[int, Optional[Pattern]] = {}
        self._joined: OrderedDict[FrozenSet[int], Optional[Pattern]] = OrderedDict()

    def is_in(self, index: int, data: bytes) -> bool:
        """Tell whether a string is in some bytes."""
        string = self.strings[index]
        if len(data) >= _PROBED_BYTES:
            if index not in self._probes:
                self._probes[index] = join_bytes([probe_of(string)])
            probe = self._probes[index]
            if probe is not None and probe.search(data) is None:
                return False
        return string in data

    def are_absent(self, wanted: FrozenSet[int], data: bytes, *, may_join: bool) -> bool:
        """Tell whether none is in some bytes, where that is known at less cost than by looking for each."""
        if len(wanted) <= _FEW:
            return False
        if wanted not in self._joined:
            if not may_join:
                return False
            self._joined[wanted] = join_bytes([self.strings[index] for index in sorted(wanted)])
            if len(self._joined) > _KEPT:
                self._joined.popitem(last=False)
        joined = self._joined[wanted]
        return joined is not None and joined.search(data) is None


class ByteScan:
    """One file's bytes; a string that is still looked for is missing in `answers` until `finish`."""

    def __init__(self, strings: ByteStrings, wanted: FrozenSet[int]) -> None:
        self.answers: Dict[int, bool] = {}
        self._strings = strings
        self._open = wanted
        self._edge = b""
        self._reach = max((len(strings.strings[index]) for index in wanted), default=1) - 1
        self._is_first = True

    def is_open(self) -> bool:
        """Tell whether further bytes can change an answer."""
        return bool(self._open)

    def keep_only(self, wanted: AbstractSet[int]) -> None:
        """Stop looking for what nobody needs any more."""
        self._open &= wanted

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if not self._open:
            return
        if self._edge:
            self._find(self._edge + data[: self._reach], may_join=False)
        self._find(data, may_join=self._is_first or len(data) >= _JOIN_BYTES)
        self._is_first = False
        if self._reach:
            self._edge = (
                data[-self._reach :] if len(data) >= self._reach else (self._edge + data)[-self._reach :]
            )

    def finish(self) -> None:
        """Take the end of the file: what was not found is not there."""
        self.answers.update(dict.fromkeys(self._open, False))
        self._open = frozenset()

    def _find(self, data: bytes, *, may_join: bool) -> None:
        if not self._open or self._strings.are_absent(self._open, data, may_join=may_join):
            return
        found: Set[int] = {index for index in self._open if self._strings.is_in(index, data)}
        self.answers.update(dict.fromkeys(found, True))
        self._open -= found

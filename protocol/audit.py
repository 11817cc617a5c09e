"""Hash-chained logs: what was asked, by whom, of whom, and how it ended. Server and agent each keep one.

Rules:
1. An entry is one line of JSON: `{"seq", "time", "kind", "who", "what", "previous"}`. `previous` is the
   SHA-256 of the exact bytes of the entry before, without its line end; in entry 1 it is 64 zeros.
2. `who` names a fingerprint, an agent, or the process; `what` holds ids, digests and counts: never
   parameters, never answers.
3. A head, the number and the SHA-256 of the newest entry, stands for everything before it. Whoever has seen a
   head notices when any entry up to it is changed, left out or put in.
4. A log may lose its beginning, and nothing else. Before it does, an entry of kind `checkpoint` says which
   entry will be the first and what the one before it hashed to; a log that begins later than at 1 without
   such an entry is broken.

5. Whoever tells the head of its log repeats with it the heads at its landmarks (`Landmarks`). What was told
   at two times has then one of them in common, however far apart they are: that the log was changed before it
   shows to who has nothing of it but these heads.

Who can write a log can also write all of it anew: a chain alone proves nothing against its keeper. Heads in
other hands do (`protocol.notice`). Standard library only: the resident agent imports this module.
"""

import hashlib
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from protocol.errors import InvalidInput
from protocol.strictjson import decode_json, encode_json

MAX_ENTRY_BYTES = 65536
CHECKPOINT = "checkpoint"
MAX_HEADS = 24
_ALIKE = 2
_MANY_LANDMARKS = 256
_MEMBERS = frozenset(("seq", "time", "kind", "who", "what", "previous"))
_NOTHING = "0" * 64
_HEX_DIGITS = frozenset("0123456789abcdef")


class Head(NamedTuple):
    """The newest entry's number and SHA-256; an empty log has `NO_HEAD`."""

    seq: int
    sha256: str


NO_HEAD = Head(0, _NOTHING)


class Entry(NamedTuple):
    """One decoded entry. `time` is RFC 3339 in UTC, by the clock of whoever wrote it."""

    seq: int
    time: str
    kind: str
    who: Tuple[str, ...]
    what: Dict[str, Any]
    previous: str


def is_sha256(text: object) -> bool:
    """Tell whether something is a SHA-256 as it is written here: 64 lower-case hex digits."""
    return isinstance(text, str) and len(text) == len(_NOTHING) and set(text) <= _HEX_DIGITS


def encode_entry(
    head: Head, *, time: str, kind: str, who: Tuple[str, ...], what: Mapping[str, Any]
) -> Tuple[bytes, Head]:
    """Return the exact bytes of the entry that follows `head`, and the head that it makes.

    Raises:
        InvalidInput: `too-large`.

    """
    data = encode_json(
        {
            "seq": head.seq + 1,
            "time": time,
            "kind": kind,
            "who": list(who),
            "what": dict(what),
            "previous": head.sha256,
        }
    )
    if len(data) > MAX_ENTRY_BYTES:
        raise InvalidInput("too-large", f"an audit entry of {len(data)} bytes, at most {MAX_ENTRY_BYTES}")
    return data, Head(head.seq + 1, hashlib.sha256(data).hexdigest())


def decode_entry(data: bytes) -> Entry:
    """Decode the exact bytes of one entry.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-document`.

    """
    members = decode_json(data, max_bytes=MAX_ENTRY_BYTES)
    if not isinstance(members, dict) or frozenset(members) != _MEMBERS:
        raise InvalidInput("bad-document", "an entry has other members than an entry's")
    seq, who = members["seq"], members["who"]
    if type(seq) is not int or seq < 1:
        raise InvalidInput("bad-document", "an entry's seq is not a positive number")
    if not isinstance(members["time"], str) or not isinstance(members["kind"], str):
        raise InvalidInput("bad-document", "an entry's time or kind is not text")
    if not isinstance(who, list) or not all(isinstance(name, str) for name in who):
        raise InvalidInput("bad-document", "an entry's who is not a list of names")
    if not isinstance(members["what"], dict) or not is_sha256(members["previous"]):
        raise InvalidInput("bad-document", "an entry's what or previous cannot be")
    return Entry(**{**members, "who": tuple(who)})


def checkpoint(first: Entry) -> Dict[str, Any]:
    """Return the `what` of the checkpoint that lets a log begin at `first`."""
    return {"first": first.seq, "previous": first.previous}


def remember_head(heads: Sequence[Head], head: Head) -> List[Head]:
    """Return which heads of a log somebody repeats who has now seen `head` too, by their numbers.

    Some of all that were seen, so that a history rewritten long after is still contradicted.

    The one with the highest number stays, and of those at a distance from it of 1, of 2 to 3, of 4 to 7 and
    so on the oldest. Of heads with one number, which contradict each other, two stay.
    """
    by_seq = sorted({*heads, head})
    newest = by_seq[-1].seq
    kept: Dict[int, List[Head]] = {}
    for candidate in by_seq:
        alike = kept.setdefault((newest - candidate.seq).bit_length(), [])
        if not alike or (alike[0].seq == candidate.seq and len(alike) < _ALIKE):
            alike.append(candidate)
    return sorted(candidate for alike in kept.values() for candidate in alike)[-MAX_HEADS:]


class Landmarks:
    """Of all heads that a growing log ever had, those that it repeats together with its newest.

    They are, for each power of two, the two newest entries whose number is its multiple. So of two sets, made
    at entry `m` and later at entry `n`, the later one holds an entry of the earlier one that is less than
    `2 * (n - m)` before `m`; and what the set of an entry holds is in the set of the entry before, or new:
    nothing else need be remembered. Some 20 for a log of a million entries.
    """

    def __init__(self) -> None:
        self._by_seq: Dict[int, Head] = {}
        self._newest = 0

    def add(self, head: Head) -> None:
        """Take the head of the entry that was added now."""
        self._by_seq[head.seq] = head
        self._newest = head.seq
        if len(self._by_seq) > _MANY_LANDMARKS:
            self._by_seq = {head.seq: head for head in self.heads()}

    def heads(self) -> List[Head]:
        """Return the heads to repeat in the order of their numbers, the newest last."""
        wanted = {self._newest}
        for power in range(self._newest.bit_length()):
            newest = self._newest >> power << power
            wanted |= {newest, newest - (1 << power)}
        return [self._by_seq[seq] for seq in sorted(wanted & set(self._by_seq))]


def compare_heads(before: Sequence[Head], after: Sequence[Head]) -> str:
    """Say why two sets of heads, given one after the other, cannot be of one log that grew; empty where not.

    Each is in the order of the numbers, and its last one stands for the whole log at that time.
    """
    known = {head.seq: head.sha256 for head in before}
    for head in after:
        if known.get(head.seq, head.sha256) != head.sha256:
            return f"entry {head.seq} was {known[head.seq]} and is {head.sha256} now: it was written anew"
    ended, ends = (heads[-1].seq if heads else 0 for heads in (before, after))
    return f"it ended at entry {ended} and ends at {ends} now: it went back" if ends < ended else ""


class Chain:
    """Checks a log entry by entry, from its first; `head` is that of what was checked so far."""

    def __init__(self) -> None:
        self.head = NO_HEAD
        self.first_seq = 0
        self._begins_after: Optional[Head] = None

    def add(self, data: bytes) -> Entry:
        """Check the next entry, by its exact bytes, and return it.

        Raises:
            InvalidInput: `broken-chain`, with the entry and what is wrong with it.

        """
        try:
            entry = decode_entry(data)
        except InvalidInput as error:
            raise InvalidInput(
                "broken-chain", f"what follows entry {self.head.seq} is no entry: {error.detail}"
            ) from None
        if self.head == NO_HEAD:
            self._begin(entry)
        elif entry.seq != self.head.seq + 1:
            raise InvalidInput("broken-chain", f"entry {self.head.seq} is followed by entry {entry.seq}")
        elif entry.previous != self.head.sha256:
            raise InvalidInput(
                "broken-chain", f"entry {entry.seq} does not follow from entry {self.head.seq} as it stands"
            )
        self.head = Head(entry.seq, hashlib.sha256(data).hexdigest())
        if entry.kind == CHECKPOINT and self._begins_after is not None:
            before = self._begins_after
            if entry.what == {"first": before.seq + 1, "previous": before.sha256}:
                self._begins_after = None
        return entry

    def _begin(self, entry: Entry) -> None:
        self.first_seq = entry.seq
        before = Head(entry.seq - 1, entry.previous)
        if before.seq:
            self._begins_after = before
        elif before != NO_HEAD:
            raise InvalidInput("broken-chain", "entry 1 names an entry before it")

    def require_complete(self) -> None:
        """Raise, at the end, where the beginning is missing and no checkpoint says that it may.

        Raises:
            InvalidInput: `broken-chain`.

        """
        if self._begins_after is not None:
            raise InvalidInput(
                "broken-chain", f"it begins at entry {self.first_seq}, and no checkpoint allows that"
            )


class Witnessed:
    """Compares heads that others have seen with a log, while a `Chain` goes through it.

    Args:
        heads: as (who saw it, the head), in any order.

    """

    def __init__(self, heads: List[Tuple[str, Head]]) -> None:
        self._waiting: Dict[int, List[Tuple[str, str]]] = {}
        for who, head in heads:
            self._waiting.setdefault(head.seq, []).append((who, head.sha256))
        self.confirmed: List[Tuple[str, Head]] = []
        self.contradictions: List[Tuple[str, Head]] = []

    def passed(self, head: Head) -> None:
        """Compare what was seen at this entry."""
        for who, sha256 in self._waiting.pop(head.seq, ()):
            if sha256 == head.sha256:
                self.confirmed.append((who, head))
            else:
                self.contradictions.append((who, Head(head.seq, sha256)))

    def left(self) -> List[Tuple[str, Head]]:
        """Return the heads that no entry was passed for: from before the log begins, or behind its end."""
        return [
            (who, Head(seq, sha256)) for seq, seen in sorted(self._waiting.items()) for who, sha256 in seen
        ]

"""Takes the bytes of one content as they come, once for all that is asked of them.

A content is a file's own bytes or, for searches that ask to decompress, what is packed in them. What every
search left standing needs is computed and no more: a search that can no longer be satisfied is dropped while
the bytes come, and with it what only it had asked for. The cheapest questions are asked first.

A content that did not come to its end answers what is certain already: what was
found was found. Whatever its rest could change is left open, and satisfies no check, inverted or not.
"""

from typing import Callable, Dict, FrozenSet, List, Optional, Sequence

from agent.scan.byte_strings import ByteScan
from agent.scan.digests import Digest, new_digest
from agent.scan.entropy import EntropyScan
from agent.scan.judging import Candidate, Facts, is_undecided, patterns_of
from agent.scan.lines import LineQuestion
from agent.scan.magic import HEAD_BYTES, magic_of
from agent.scan.plan import Plan
from agent.scan.source import Buffer
from agent.scan.unpacking import SIGNATURE_BYTES, open_packed

# Gives what readers ask of lines.
Ask = Callable[[Sequence[Candidate]], LineQuestion]


class Intake:
    """One content, for these readers."""

    def __init__(self, plan: Plan, readers: Sequence[Candidate], ask: Ask) -> None:
        self._readers = list(readers)
        self._lines = ask(readers).begin()
        self._bytes = ByteScan(plan.byte_strings, _strings_of(readers))
        self._head: Optional[bytes] = b"" if any(one.search.wants_magic for one in readers) else None
        self._magics: Optional[FrozenSet[str]] = None
        self._entropy: Optional[EntropyScan] = None
        self._digests: Dict[str, Digest] = {}
        self._is_begun = False
        self._is_finished = False

    @property
    def is_cut(self) -> bool:
        """Tell whether a line was matched in pieces."""
        return self._lines.is_cut

    def is_open(self) -> bool:
        """Tell whether further bytes can change an answer."""
        if not self._is_begun:
            return bool(self._readers)
        return bool(
            self._digests
            or self._lines.is_open()
            or self._bytes.is_open()
            or self._head is not None
            or self._entropy is not None
        )

    def take(self, data: Buffer, *, is_last: bool) -> None:
        """Take the next bytes; with the last ones what is still open is decided."""
        if self._lines.is_open() or self._bytes.is_open() or self._head is not None:
            # Of a mapped file a view comes, in which nothing can be searched.
            text = bytes(data)
            self._lines.feed(text)
            self._bytes.feed(text)
            if self._head is not None:
                self._head += text[: HEAD_BYTES - len(self._head)]
        if is_last:
            self._lines.finish()
            self._bytes.finish()
            self._is_finished = True
        if self._head is not None and (is_last or len(self._head) >= HEAD_BYTES):
            self._magics = magic_of(self._head)
            self._head = None
        self._narrow()
        if self._entropy is not None:
            self._entropy.feed(data)
        for digest in self._digests.values():
            digest.update(data)

    def facts(self) -> Facts:
        """Return what is known; of a content that did not come to its end only what is certain."""
        is_whole = self._is_finished
        return Facts(
            self._lines.answers,
            {kind: digest.hexdigest() for kind, digest in self._digests.items()} if is_whole else {},
            self._bytes.answers,
            self._magics,
            self._entropy.bits_per_byte() if self._entropy is not None and is_whole else None,
        )

    def _narrow(self) -> None:
        """Drop the searches that cannot be satisfied any more, and what only they needed."""
        so_far = Facts(self._lines.answers, {}, self._bytes.answers, self._magics)
        readers = self._readers = [one for one in self._readers if is_undecided(one, so_far)]
        self._lines.keep_only(
            some=patterns_of(readers, all_lines=False), every=patterns_of(readers, all_lines=True)
        )
        self._bytes.keep_only(_strings_of(readers))
        if not any(one.search.wants_magic for one in readers):
            self._head = None
        kinds = sorted({kind for one in readers for kind in one.search.report_kinds})
        wants_entropy = any(one.search.wants_entropy for one in readers)
        if not self._is_begun:
            self._is_begun = True
            self._digests = {kind: new_digest(kind) for kind in kinds}
            self._entropy = EntropyScan() if wants_entropy else None
            return
        self._digests = {kind: digest for kind, digest in self._digests.items() if kind in kinds}
        if not wants_entropy:
            self._entropy = None


class Content:
    """One file: its own bytes and, for searches that ask to decompress, what is packed in them.

    `head` are its first bytes, which tell whether it is packed, and which are fed again.
    """

    def __init__(
        self, plan: Plan, readers: Sequence[Candidate], head: Buffer, ask: Ask, check: Callable[[], None]
    ) -> None:
        self._check = check
        unpacking = [one for one in readers if one.search.decompress]
        self._unpacker = open_packed(bytes(head[:SIGNATURE_BYTES])) if unpacking else None
        if self._unpacker is None:
            self._inner: Optional[Intake] = None
            self._own = Intake(plan, readers, ask)
        else:
            self._inner = Intake(plan, unpacking, ask)
            self._own = Intake(plan, [one for one in readers if not one.search.decompress], ask)

    @property
    def is_cut(self) -> bool:
        """Tell whether a line was matched in pieces."""
        return self._own.is_cut or (self._inner is not None and self._inner.is_cut)

    @property
    def problem(self) -> Optional[str]:
        """Return why what is packed was not unpacked to its end."""
        return None if self._unpacker is None else self._unpacker.problem

    def is_open(self) -> bool:
        """Tell whether further bytes can change an answer."""
        return self._own.is_open() or self._is_unpacking()

    def take(self, data: Buffer, *, is_last: bool) -> None:
        """Take the next bytes of the file."""
        self._own.take(data, is_last=is_last)
        if self._unpacker is None or self._inner is None or not self._is_unpacking():
            return
        for piece in self._unpacker.feed(bytes(data)):
            self._check()
            self._inner.take(piece, is_last=False)
            if not self._inner.is_open():
                return
        if is_last:
            self._unpacker.finish()
            if self._unpacker.problem is None:
                self._inner.take(b"", is_last=True)

    def facts(self) -> Facts:
        """Return what is known of the file."""
        facts = self._own.facts()
        return facts if self._inner is None else facts._replace(unpacked=self._inner.facts())

    def _is_unpacking(self) -> bool:
        """Tell whether what is packed is still wanted, and still comes."""
        return self._inner is not None and self.problem is None and self._inner.is_open()


def _strings_of(readers: Sequence[Candidate]) -> FrozenSet[int]:
    """Return the byte strings that are asked for, by index in the plan."""
    strings: List[int] = [index for one in readers for index in one.search.byte_strings]
    return frozenset(strings)

"""Takes the bytes of one content as they come, once for all that is asked of them.

A content is a file's own bytes or, for searches that ask to decompress, what is packed in them. What every
search left standing needs is computed and no more: a search that can no longer be satisfied is dropped while
the bytes come, and with it what only it had asked for. The cheapest questions are asked first.

A content that did not come to its end answers what is certain already: what was found was found. Whatever
its rest could change is left open, and satisfies no check, inverted or not.
"""

from typing import Callable, Dict, FrozenSet, Mapping, NamedTuple, Optional, Sequence, Tuple

from agent.scan.byte_strings import ByteScan
from agent.scan.digests import Digest, new_digest
from agent.scan.entropy import EntropyScan
from agent.scan.judging import Candidate, Facts, is_undecided, patterns_of
from agent.scan.lines import LineAnswers, LineQuestion, LineScan
from agent.scan.magic import HEAD_BYTES, magic_of
from agent.scan.plan import Plan
from agent.scan.source import Buffer
from agent.scan.unpacking import SIGNATURE_BYTES, open_packed

# Nobody writes into it.
_NO_ANSWERS = LineAnswers({}, {})


class Demand(NamedTuple):
    """What some searches together want to know of a content."""

    question: LineQuestion
    strings: FrozenSet[int]
    kinds: Tuple[str, ...]
    magic: bool
    entropy: bool


class Demands:
    """What any searches of a plan want to know; most files are wanted by the same ones."""

    def __init__(self, plan: Plan, check: Callable[[], None]) -> None:
        self.strings = plan.byte_strings
        self._patterns = plan.patterns
        self._check = check
        # As many as there are choices of searches that are active together and still want a file to be read.
        self._known: Dict[Tuple[int, ...], Demand] = {}
        self._questions: Dict[Tuple[FrozenSet[int], FrozenSet[int]], LineQuestion] = {}

    def of(self, readers: Sequence[Candidate]) -> Demand:
        """Return what these readers want to know."""
        numbers = tuple([one.number for one in readers])
        demand = self._known.get(numbers)
        if demand is None:
            searches = [one.search for one in readers]
            demand = self._known[numbers] = Demand(
                self._question(readers),
                frozenset(index for search in searches for index in search.byte_strings),
                tuple(sorted({kind for search in searches for kind in search.report_kinds})),
                any(search.wants_magic for search in searches),
                any(search.wants_entropy for search in searches),
            )
        return demand

    def _question(self, readers: Sequence[Candidate]) -> LineQuestion:
        some, every = patterns_of(readers, all_lines=False), patterns_of(readers, all_lines=True)
        question = self._questions.get((some, every))
        if question is None:
            question = LineQuestion(self._patterns, some=some, every=every, check=self._check)
            self._questions[some, every] = question
        return question


class Intake:
    """One content, for these readers."""

    def __init__(self, demands: Demands, readers: Sequence[Candidate]) -> None:
        self._demands = demands
        self._readers = readers
        self._demand = demand = demands.of(readers)
        self._lines: Optional[LineScan] = None
        self._answers = _NO_ANSWERS
        self._bytes = ByteScan(demands.strings, demand.strings) if demand.strings else None
        self._head: Optional[bytes] = b"" if demand.magic else None
        self._magics: Optional[FrozenSet[str]] = None
        self._entropy: Optional[EntropyScan] = None
        self._digests: Dict[str, Digest] = {}
        self._is_begun = False
        self._is_finished = False

    @property
    def is_cut(self) -> bool:
        """Tell whether a line was matched in pieces."""
        return self._lines is not None and self._lines.is_cut

    def is_open(self) -> bool:
        """Tell whether further bytes can change an answer."""
        if not self._is_begun:
            return bool(self._readers)
        return bool(
            self._digests
            or (self._lines is not None and self._lines.is_open())
            or (self._bytes is not None and self._bytes.is_open())
            or self._head is not None
            or self._entropy is not None
        )

    def take(self, data: Buffer, *, is_last: bool) -> None:
        """Take the next bytes; with the last ones what is still open is decided."""
        question = self._demand.question
        if question.some or question.every:
            self._take_lines(question, data, is_last=is_last)
        if self._bytes is not None:
            if self._bytes.is_open():
                self._bytes.feed(bytes(data))
            if is_last:
                self._bytes.finish()
        if self._head is not None:
            self._head += bytes(data[: HEAD_BYTES - len(self._head)])
            if is_last or len(self._head) >= HEAD_BYTES:
                self._magics = magic_of(self._head)
                self._head = None
        self._narrow()
        if self._entropy is not None:
            self._entropy.feed(data)
        for digest in self._digests.values():
            digest.update(data)
        self._is_finished = is_last

    def facts(self) -> Facts:
        """Return what is known; of a content that did not come to its end only what is certain."""
        is_whole = self._is_finished
        return Facts(
            self._answers,
            {kind: digest.hexdigest() for kind, digest in self._digests.items()} if is_whole else {},
            self._strings(),
            self._magics,
            self._entropy.bits_per_byte() if self._entropy is not None and is_whole else None,
        )

    def _take_lines(self, question: LineQuestion, data: Buffer, *, is_last: bool) -> None:
        if is_last and not self._is_begun:
            # Of most files this is all.
            self._answers = question.answer(bytes(data))
            return
        if self._lines is None and not self._is_begun:
            self._lines = question.begin()
            self._answers = self._lines.answers
        if self._lines is None:
            return
        if self._lines.is_open():
            # Of a mapped file a view comes, in which nothing can be searched.
            self._lines.feed(bytes(data))
        if is_last:
            self._lines.finish()

    def _strings(self) -> Mapping[int, bool]:
        return {} if self._bytes is None else self._bytes.answers

    def _narrow(self) -> None:
        """Drop the searches that cannot be satisfied any more, and what only they needed."""
        so_far = Facts(self._answers, {}, self._strings(), self._magics)
        readers = [one for one in self._readers if is_undecided(one, so_far)]
        if len(readers) < len(self._readers):
            self._readers = readers
            self._demand = self._demands.of(readers)
            self._keep_only(self._demand)
        if not self._is_begun:
            self._is_begun = True
            self._digests = {kind: new_digest(kind) for kind in self._demand.kinds}
            self._entropy = EntropyScan() if self._demand.entropy else None

    def _keep_only(self, demand: Demand) -> None:
        if self._lines is not None:
            self._lines.keep_only(some=demand.question.some, every=demand.question.every)
        if self._bytes is not None:
            self._bytes.keep_only(demand.strings)
        if not demand.magic:
            self._head = None
        self._digests = {kind: digest for kind, digest in self._digests.items() if kind in demand.kinds}
        if not demand.entropy:
            self._entropy = None


class Content:
    """One file: its own bytes and, for searches that ask to decompress, what is packed in them.

    `head` are its first bytes, which tell whether it is packed, and which are fed again.
    """

    def __init__(
        self, demands: Demands, readers: Sequence[Candidate], head: Buffer, check: Callable[[], None]
    ) -> None:
        self._check = check
        unpacking = [one for one in readers if one.search.decompress]
        self._unpacker = open_packed(bytes(head[:SIGNATURE_BYTES])) if unpacking else None
        self._inner: Optional[Intake] = None
        if self._unpacker is None:
            self._own = Intake(demands, readers)
        else:
            self._inner = Intake(demands, unpacking)
            self._own = Intake(demands, [one for one in readers if not one.search.decompress])

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

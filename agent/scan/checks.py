"""The checks of a search, each made ready to be asked of one file after the other.

`wanted` folds the two ways of turning a check round into one: a leading `!` and `mismatch`. A test may also
answer None, where the truth cannot be told: then the check does not hold, turned round or not.
"""

import os
import stat
from typing import (
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Literal,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)

from agent.scan.accounts import Accounts
from agent.scan.attributes import AnyAttributeCheck, AttributeCheck, CapabilityCheck
from agent.scan.capabilities import mask_of
from agent.scan.patterns import TextPattern, split_inverse
from agent.scan.search import FILTER_FIELDS, Search
from agent.scan.texts import mode_text

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_AGES_S = {"m": 60, "h": 3600, "d": 86400}
FileType = Literal["file", "directory", "link", "fifo", "socket", "block", "character"]
_FORMATS: Dict[FileType, int] = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "link": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "block": stat.S_IFBLK,
    "character": stat.S_IFCHR,
}
TYPE_NAMES = {bits: name for name, bits in _FORMATS.items()}

StatTest = Callable[[os.stat_result], Optional[bool]]


class NameCheck(NamedTuple):
    """A check on the base name; `said` is how an answer names it."""

    said: str
    wanted: bool
    pattern: TextPattern

    def holds(self, name: bytes) -> bool:
        """Tell whether the check holds for a name."""
        return self.pattern.is_in(name) is self.wanted


class StatCheck(NamedTuple):
    """A check on what stat says."""

    said: str
    wanted: bool
    test: StatTest

    def holds(self, status: os.stat_result) -> bool:
        """Tell whether the check holds for a file's status."""
        return self.test(status) is self.wanted


class ContentCheck(NamedTuple):
    """A check on the lines: some line matches or, with `all_lines`, every one does; by index of a pattern."""

    said: str
    wanted: bool
    pattern: int
    all_lines: bool


class ContentFacts(Protocol):
    """What reading a content told (`agent.scan.judging.Facts`)."""

    @property
    def strings(self) -> Mapping[int, bool]:
        """Whether each byte string that was decided is in it."""

    @property
    def magics(self) -> Optional[FrozenSet[str]]:
        """What its first bytes say; None where it was not asked."""

    @property
    def entropy(self) -> Optional[float]:
        """Bits per byte; None where it was not asked."""


class ReadCheck(NamedTuple):
    """A check on what reading tells besides lines and digests; None where it cannot be told, or not yet."""

    said: str
    wanted: bool
    truth: Callable[[ContentFacts], Optional[bool]]


class HashCheck(NamedTuple):
    """A check on a digest: it is one of those given."""

    said: str
    wanted: bool
    kind: str
    digests: FrozenSet[str]


def said(filter_name: str, value: str, *, is_turned: bool) -> str:
    """Return how an answer names a check."""
    return f"{'mismatch ' if is_turned else ''}{filter_name}={value}"


def name_checks(search: Search, turned: FrozenSet[str]) -> Tuple[NameCheck, ...]:
    """Return the checks on the name."""
    is_turned = "name" in turned
    checks = []
    for value in search.names:
        expression, is_inverse = split_inverse(value)
        checks.append(
            NameCheck(
                said("name", value, is_turned=is_turned), is_inverse is is_turned, TextPattern(expression)
            )
        )
    return tuple(checks)


def attribute_checks(search: Search, turned: FrozenSet[str]) -> Tuple[AnyAttributeCheck, ...]:
    """Return the checks on extended attributes and capabilities."""
    checks: List[AnyAttributeCheck] = []
    for name in ("xattr", "capability"):
        is_turned = name in turned
        for value in getattr(search, FILTER_FIELDS[name]):
            expression, is_inverse = split_inverse(value)
            text, wanted = said(name, value, is_turned=is_turned), is_inverse is is_turned
            if name == "xattr":
                checks.append(AttributeCheck(text, wanted, TextPattern(expression)))
            else:
                checks.append(CapabilityCheck(text, wanted, mask_of(expression)))
    return tuple(checks)


def content_checks(
    search: Search, turned: FrozenSet[str], indices: Dict[str, int]
) -> Tuple[ContentCheck, ...]:
    """Return the checks on lines; `indices` numbers the expressions of all searches."""
    is_turned = "content" in turned
    checks = []
    for value in search.contents:
        expression, is_inverse = split_inverse(value)
        checks.append(
            ContentCheck(
                said=said("content", value, is_turned=is_turned),
                wanted=is_inverse is is_turned,
                pattern=indices.setdefault(expression, len(indices)),
                # Inverted, "on all lines" is "no line matches", which is what the inverse is without it.
                all_lines=search.options.macroal and not is_inverse,
            )
        )
    return tuple(checks)


def bytes_checks(
    search: Search, turned: FrozenSet[str], indices: Dict[bytes, int]
) -> Tuple[Tuple[ReadCheck, ...], FrozenSet[int]]:
    """Return the checks on byte strings and what they look for; `indices` numbers those of all searches."""
    is_turned = "bytes" in turned
    checks, wanted = [], set()
    for value in search.bytes:
        text, is_inverse = split_inverse(value)
        index = indices.setdefault(bytes.fromhex(text), len(indices))
        wanted.add(index)
        checks.append(
            ReadCheck(
                said("bytes", value, is_turned=is_turned), is_inverse is is_turned, _string_truth(index)
            )
        )
    return tuple(checks), frozenset(wanted)


def _string_truth(index: int) -> Callable[[ContentFacts], Optional[bool]]:
    return lambda facts: facts.strings.get(index)


def magic_checks(search: Search, turned: FrozenSet[str]) -> Iterator[ReadCheck]:
    """Yield the checks on what first bytes say: one of the plain values, and one of each inverted."""
    for text, wanted, names in _alternatives("magic", search.magics, turned):
        yield ReadCheck(text, wanted, _magic_truth(frozenset(names)))


def _magic_truth(names: FrozenSet[str]) -> Callable[[ContentFacts], Optional[bool]]:
    return lambda facts: None if facts.magics is None else not names.isdisjoint(facts.magics)


def entropy_checks(search: Search, turned: FrozenSet[str]) -> Iterator[ReadCheck]:
    """Yield the checks on entropy; both bounds belong to it, as those of sizes do."""
    is_turned = "entropy" in turned
    for value in search.entropies:
        text = said("entropy", value, is_turned=is_turned)
        yield ReadCheck(text, not is_turned, _entropy_truth(value[0], float(value[1:])))


def _entropy_truth(sign: str, bound: float) -> Callable[[ContentFacts], Optional[bool]]:
    def truth(facts: ContentFacts) -> Optional[bool]:
        if facts.entropy is None:
            return None
        return facts.entropy <= bound if sign == "<" else facts.entropy >= bound

    return truth


def hash_check(kind: str, search: Search, turned: FrozenSet[str]) -> HashCheck:
    """Return the check on one kind of digest."""
    is_turned = kind in turned
    return HashCheck(
        f"mismatch {kind}" if is_turned else kind, not is_turned, kind, frozenset(getattr(search, kind))
    )


class StatChecks:
    """Makes the checks on what stat says; `unknown` collects accounts that this endpoint does not know."""

    def __init__(self, now_ns: int, accounts: Accounts) -> None:
        self._now_ns = now_ns
        self._accounts = accounts
        self.unknown: List[str] = []

    def make(self, search: Search, turned: FrozenSet[str]) -> Tuple[StatCheck, ...]:
        """Return a search's checks, in the order in which an answer names them."""
        found: List[StatCheck] = []
        tests: Tuple[Tuple[str, Callable[[str], StatTest]], ...] = (
            ("size", _size_test),
            ("mode", _mode_test),
            ("mtime", lambda value: self._age_test(value, lambda status: status.st_mtime_ns)),
            ("ctime", lambda value: self._age_test(value, lambda status: status.st_ctime_ns)),
            ("atime", lambda value: self._age_test(value, lambda status: status.st_atime_ns)),
        )
        for name, make_test in tests:
            for value in getattr(search, FILTER_FIELDS[name]):
                # Only a mode is an expression that can be inverted; sizes and ages begin with no `!`.
                expression, is_inverse = split_inverse(value)
                is_turned = name in turned
                text = said(name, value, is_turned=is_turned)
                found.append(StatCheck(text, is_inverse is is_turned, make_test(expression)))
        found += _set_checks("owner", search.owners, turned, self._owner_test)
        found += _set_checks("group", search.groups, turned, self._group_test)
        found += _set_checks("type", search.types, turned, _type_test)
        return tuple(found)

    def _age_test(self, value: str, time_ns: Callable[[os.stat_result], int]) -> StatTest:
        """`<90d` is after now - 90 days, `>5h` before now - 5 hours, both strictly."""
        border_ns = self._now_ns - int(value[1:-1]) * _AGES_S[value[-1]] * 1_000_000_000
        if value.startswith("<"):
            return lambda status: time_ns(status) > border_ns
        return lambda status: time_ns(status) < border_ns

    def _owner_test(self, names: Sequence[str]) -> StatTest:
        uids, others = self._numbers("owner", names)
        return lambda status: status.st_uid in uids or others

    def _group_test(self, names: Sequence[str]) -> StatTest:
        gids, others = self._numbers("group", names)
        return lambda status: status.st_gid in gids or others

    def _numbers(self, kind: str, names: Iterable[str]) -> Tuple[FrozenSet[int], Optional[bool]]:
        """Return the numbers, and what holds for all others: nothing, where one of them may be meant."""
        others: Optional[bool] = False
        numbers = set()
        for name in names:
            number = self._accounts.number(kind, name)
            if number is None:
                others = None
                source = self._accounts.source(kind)
                self.unknown.append(
                    f"{kind} {name} is not in this endpoint's {source}: no file can be told by it"
                )
            else:
                numbers.add(number)
        return frozenset(numbers), others


def _set_checks(
    name: str,
    values: Sequence[str],
    turned: FrozenSet[str],
    make_test: Callable[[Sequence[str]], StatTest],
) -> Iterator[StatCheck]:
    for text, wanted, names in _alternatives(name, values, turned):
        yield StatCheck(text, wanted, make_test(names))


def _alternatives(
    name: str, values: Sequence[str], turned: FrozenSet[str]
) -> Iterator[Tuple[str, bool, Sequence[str]]]:
    """Yield one check of the plain values, which are alternatives, and one of each that is inverted."""
    is_turned = name in turned
    plain = [value for value in values if not value.startswith("!")]
    if plain:
        yield said(name, ",".join(plain), is_turned=is_turned), not is_turned, plain
    for value in values:
        if value.startswith("!"):
            yield said(name, value, is_turned=is_turned), is_turned, [value[1:]]


def can_want_files(search: Search, turned: FrozenSet[str]) -> bool:
    """Tell whether a regular file can satisfy what a search says of types; most that say any want others."""
    if not search.options.matchall:
        return True
    is_turned = "type" in turned
    plain = [value for value in search.types if not value.startswith("!")]
    if plain and ("file" in plain) is is_turned:
        return False
    return all((value == "!file") is is_turned for value in search.types if value.startswith("!"))


def _size_test(value: str) -> StatTest:
    """`<n` is at most n, `>n` at least n, both with n itself, as the ancestor has it."""
    number = value.lstrip("<>")
    unit = _UNITS.get(number[-1])
    size = int(number[:-1]) * unit if unit else int(number)
    if value.startswith("<"):
        return lambda status: status.st_size <= size
    if value.startswith(">"):
        return lambda status: status.st_size >= size
    return lambda status: status.st_size == size


def _mode_test(expression: str) -> StatTest:
    pattern = TextPattern(expression)
    # Files share a handful of modes: each is judged once.
    known: Dict[int, bool] = {}

    def test(status: os.stat_result) -> bool:
        if status.st_mode not in known:
            known[status.st_mode] = pattern.is_in(mode_text(status.st_mode).encode("ascii"))
        return known[status.st_mode]

    return test


def _type_test(names: Sequence[str]) -> StatTest:
    formats = frozenset(bits for name, bits in _FORMATS.items() if name in names)
    return lambda status: stat.S_IFMT(status.st_mode) in formats

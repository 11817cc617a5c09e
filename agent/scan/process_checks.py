"""The filters of a question about processes, each made ready to be asked of one process after the other.

Rules:

* All must hold; the cheapest is asked first, and what no filter asks for is not looked at.
* Values are alternatives; one with a leading `!` leaves out what it matches.
* Where the truth is not known (`NotKnown`) a filter does not hold, turned round or not, and that is said.
"""

from typing import (
    Callable,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)

from agent.platform.process_programs import Programs
from agent.platform.process_subject import Ancestor, NotKnown
from agent.platform.processes import ProcessFacts
from agent.scan.accounts import Accounts
from agent.scan.capabilities import mask_of
from agent.scan.patterns import TextPattern, split_inverse
from agent.scan.process_filters import ProcessFilters
from agent.scan.search import HASH_KINDS

_AGES_S = {"m": 60, "h": 3600, "d": 86400}
# A program below these was put there by somebody, not by a package; the last is memory that no file names.
_TEMPORARY = (b"/tmp/", b"/var/tmp/", b"/dev/shm/", b"/run/shm/", b"/run/user/", b"/private/tmp/", b"/memfd:")
_LEAST_ID_DIGITS = 12


class AnySubject(Protocol):
    """What is asked of a process: `agent.platform.process_subject` says what each is."""

    @property
    def facts(self) -> ProcessFacts:
        """What the system says of it first."""

    @property
    def executable(self) -> Tuple[Optional[bytes], bool]:
        """Path of its program, and whether that was deleted."""

    @property
    def user(self) -> Optional[str]:
        """Name of its user."""

    @property
    def command(self) -> bytes:
        """Its command line."""

    @property
    def variables(self) -> Tuple[bytes, ...]:
        """Names of its environment's variables."""

    @property
    def open_files(self) -> Tuple[bytes, ...]:
        """Paths that it has open."""

    @property
    def libraries(self) -> Tuple[bytes, ...]:
        """Paths that it maps."""

    @property
    def ports(self) -> Tuple[int, ...]:
        """Ports on which it listens."""

    @property
    def container(self) -> Optional[str]:
        """Its container."""

    @property
    def ancestors(self) -> Tuple[Ancestor, ...]:
        """Its parent, that one's parent and so on."""

    @property
    def cut(self) -> Tuple[str, ...]:
        """What was longer than is read."""

    def digests(self, programs: Programs) -> Mapping[str, str]:
        """Digests of its program."""


Test = Callable[[AnySubject], bool]


class TextFilter:
    """Expressions on the texts of a process: one of the plain ones matches one, and none with `!` does."""

    def __init__(self, values: Iterable[str]) -> None:
        self._some: List[TextPattern] = []
        self._none: List[TextPattern] = []
        for value in values:
            expression, is_inverse = split_inverse(value)
            (self._none if is_inverse else self._some).append(TextPattern(expression))

    @property
    def can_leave_out(self) -> bool:
        """Whether there are expressions with `!`."""
        return bool(self._none)

    def holds(self, texts: Sequence[bytes]) -> bool:
        """Tell whether the filter holds."""
        if not texts:
            return not self._some
        block = b"\n".join(texts)
        if any(pattern.among(texts, block) for pattern in self._none):
            return False
        return not self._some or any(pattern.among(texts, block) for pattern in self._some)

    def matching(self, texts: Sequence[bytes]) -> Iterator[bytes]:
        """Yield the texts that a plain expression matches."""
        block = b"\n".join(texts)
        found = {text for pattern in self._some for text in pattern.among(texts, block)}
        return (text for text in texts if text in found)


class Checks(NamedTuple):
    """The tests in the order of their cost, what tells what matched, and what is worth a note."""

    tests: Tuple[Test, ...]
    open_files: Optional[TextFilter]
    libraries: Optional[TextFilter]
    variables: Optional[TextFilter]
    notes: Tuple[str, ...]

    def hold(self, subject: AnySubject) -> bool:
        """Tell whether a process satisfies all filters; raises NotKnown where that cannot be told."""
        return all(test(subject) for test in self.tests)


def make_checks(filters: ProcessFilters, *, now_s: float, accounts: Accounts, programs: Programs) -> Checks:
    """Make the filters ready."""
    notes: List[str] = []
    lists = {
        name: TextFilter(getattr(filters, name)) if getattr(filters, name) else None
        for name in ("open_files", "libraries", "variables")
    }
    tests: List[Test] = [
        *_fact_tests(filters, now_s),
        *_user_tests(filters.users, accounts, notes),
        *_program_tests(filters),
        *_ancestor_tests(filters.ancestors),
        *_container_tests(filters.containers),
        *_command_tests(filters.commands),
    ]
    if lists["variables"] is not None:
        tests.append(_list_test(lists["variables"], lambda subject: subject.variables))
    if filters.ports:
        ports = frozenset(filters.ports)
        tests.append(lambda subject: not ports.isdisjoint(subject.ports))
    if lists["open_files"] is not None:
        tests.append(_list_test(lists["open_files"], lambda subject: subject.open_files))
    if lists["libraries"] is not None:
        tests.append(_list_test(lists["libraries"], lambda subject: subject.libraries))
    tests += _hash_tests(filters, programs)
    return Checks(tuple(tests), lists["open_files"], lists["libraries"], lists["variables"], tuple(notes))


def names_of(process: bytes, executable: Optional[bytes]) -> Tuple[bytes, ...]:
    """Return the names by which a process is known: its own and that of its program's file."""
    return (process, executable.replace(b"\\", b"/").rpartition(b"/")[2]) if executable else (process,)


def _fact_tests(filters: ProcessFilters, now_s: float) -> Iterator[Test]:
    if filters.pids:
        pids = frozenset(filters.pids)
        yield lambda subject: subject.facts.pid in pids
    if filters.kernel is not None:
        yield lambda subject: subject.facts.is_kernel_thread is filters.kernel
    for value in filters.starts:
        yield _start_test(value, now_s)
    if filters.capabilities:
        some, none = _split(filters.capabilities)
        wanted, unwanted = _mask(some), _mask(none)
        yield (
            lambda subject: (
                not subject.facts.capabilities & unwanted
                and (not some or bool(subject.facts.capabilities & wanted))
            )
        )


def _start_test(value: str, now_s: float) -> Test:
    border_s = now_s - int(value[1:-1]) * _AGES_S[value[-1]]
    if value.startswith("<"):
        return lambda subject: subject.facts.started_s > border_s
    return lambda subject: subject.facts.started_s < border_s


def _user_tests(values: Sequence[str], accounts: Accounts, notes: List[str]) -> Iterator[Test]:
    if not values:
        return
    some, none = _split(values)
    numbers = {name: accounts.number("owner", name) for name in (*some, *none)}

    def is_one(subject: AnySubject, names: FrozenSet[str]) -> bool:
        return any(_is_user(subject, name, numbers[name]) for name in names)

    yield lambda subject: not is_one(subject, none) and (not some or is_one(subject, some))
    notes.extend(
        f"user {name} is not in this endpoint's {accounts.source('owner')}"
        for name, number in sorted(numbers.items())
        if number is None
    )


def _is_user(subject: AnySubject, name: str, number: Optional[int]) -> bool:
    if number is not None and subject.facts.uid == number:
        return True
    user = subject.user
    if user is None:
        if number is None:
            # Both may be known to a directory service, which is not asked.
            raise NotKnown("user", "has no name here")
        return False
    return user == name or ("\\" in user and user.rpartition("\\")[2].lower() == name.lower())


def _names_test(values: Sequence[str]) -> Test:
    wanted = TextFilter(values)

    def test(subject: AnySubject) -> bool:
        try:
            executable = subject.executable[0]
        except NotKnown:
            # Its own name may be enough, unless the other one could leave it out.
            if wanted.can_leave_out or not wanted.holds((subject.facts.process,)):
                raise
            return True
        return wanted.holds(names_of(subject.facts.process, executable))

    return test


def _program_tests(filters: ProcessFilters) -> Iterator[Test]:
    if filters.names:
        yield _names_test(filters.names)
    if filters.deleted is not None:
        # A thread of the kernel has no program: neither a deleted one nor one that is there.
        yield lambda subject: subject.executable[0] is not None and subject.executable[1] is filters.deleted
    if filters.fromtemporary is not None:
        yield (
            lambda subject: (
                subject.executable[0] is not None
                and subject.executable[0].startswith(_TEMPORARY) is filters.fromtemporary
            )
        )
    if filters.executables:
        paths = TextFilter(filters.executables)
        yield lambda subject: subject.executable[0] is not None and paths.holds((subject.executable[0],))


def _ancestor_tests(values: Sequence[str]) -> Iterator[Test]:
    if values:
        wanted = TextFilter(values)
        yield lambda subject: wanted.holds(
            [name for one in subject.ancestors for name in names_of(one.process, one.executable)]
        )


def _container_tests(values: Sequence[str]) -> Iterator[Test]:
    if values:
        some, none = _split(values)
        yield (
            lambda subject: (
                not _is_container(subject.container, none)
                and (not some or _is_container(subject.container, some))
            )
        )


def _is_container(container: Optional[str], values: Iterable[str]) -> bool:
    return container is not None and any(
        value in ("any", container) or (len(value) >= _LEAST_ID_DIGITS and container.startswith(value))
        for value in values
    )


def _command_tests(values: Sequence[str]) -> Iterator[Test]:
    if values:
        wanted = TextFilter(values)
        yield lambda subject: not subject.facts.is_kernel_thread and wanted.holds((subject.command,))


def _list_test(wanted: TextFilter, texts: Callable[[AnySubject], Sequence[bytes]]) -> Test:
    return lambda subject: not subject.facts.is_kernel_thread and wanted.holds(texts(subject))


def _hash_tests(filters: ProcessFilters, programs: Programs) -> Iterator[Test]:
    for kind in HASH_KINDS:
        if getattr(filters, kind):
            yield _hash_test(kind, frozenset(getattr(filters, kind)), programs)


def _hash_test(kind: str, digests: FrozenSet[str], programs: Programs) -> Test:
    return lambda subject: subject.digests(programs).get(kind) in digests


def _split(values: Iterable[str]) -> Tuple[FrozenSet[str], FrozenSet[str]]:
    """Return the plain values, and those with `!`."""
    split = [split_inverse(value) for value in values]
    return (
        frozenset(value for value, is_inverse in split if not is_inverse),
        frozenset(value for value, is_inverse in split if is_inverse),
    )


def _mask(names: Iterable[str]) -> int:
    mask = 0
    for name in names:
        mask |= mask_of(name)
    return mask

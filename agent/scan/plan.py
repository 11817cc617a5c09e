"""The plan of a scan: all searches made ready to be asked of one file after the other.

A check is told by name, stat, attributes, content or a digest, in this order of cost (`agent.scan.checks`).
"""

from typing import Dict, FrozenSet, Mapping, NamedTuple, Optional, Tuple

from agent.scan.accounts import Accounts
from agent.scan.attributes import AnyAttributeCheck, require_attributes
from agent.scan.byte_strings import ByteStrings
from agent.scan.checks import (
    ContentCheck,
    HashCheck,
    NameCheck,
    ReadCheck,
    StatCheck,
    StatChecks,
    attribute_checks,
    bytes_checks,
    can_want_files,
    content_checks,
    entropy_checks,
    hash_check,
    magic_checks,
    name_checks,
)
from agent.scan.digests import require_digests
from agent.scan.excludes import Exclusions
from agent.scan.pattern_set import PatternSet
from agent.scan.patterns import compile_lines, require_engine
from agent.scan.search import HASH_KINDS, Search

# Fields of a planned search that say where to look and what to report, and ask nothing of a file.
_NO_CHECKS = frozenset(
    {
        "label", "paths", "matchall", "maxdepth", "matchlimit", "excludes", "remotefs", "onefilesystem",
        "newest", "oldest", "only",
    }
)  # fmt: skip


class PlannedSearch(NamedTuple):
    """One search, ready; limits are 0 where there is none.

    One that is satisfied by any check, and has only one, which is not on a digest, must have every check as
    well: it is `matchall`, which is judged faster, and `only` is what it says of that check.
    `is_typed` tells that entries of every type are looked at, as they are: links are not followed;
    `wants_no_files` that none of these can be a regular file.
    """

    label: str
    paths: Tuple[bytes, ...]
    names: Tuple[NameCheck, ...]
    stats: Tuple[StatCheck, ...]
    attributes: Tuple[AnyAttributeCheck, ...]
    contents: Tuple[ContentCheck, ...]
    reads: Tuple[ReadCheck, ...]
    hashes: Tuple[HashCheck, ...]
    report_kinds: Tuple[str, ...]
    matchall: bool
    maxdepth: int
    matchlimit: int
    is_typed: bool = False
    wants_no_files: bool = False
    excludes: Optional[Exclusions] = None
    remotefs: bool = False
    onefilesystem: bool = False
    newest: int = 0
    oldest: int = 0
    fresh: bool = False
    decompress: bool = False
    byte_strings: FrozenSet[int] = frozenset()
    wants_magic: bool = False
    wants_entropy: bool = False
    only: Tuple[str, ...] = ()

    def is_by_name(self) -> bool:
        """Tell whether names alone decide which files it wants, and nothing in a file is asked for."""
        return bool(self.names) and self.asks_only("names")

    def is_by_digest(self) -> bool:
        """Tell whether digests are all that it asks of what is in a file, and kept ones will do."""
        return self.asks_only("names", "stats", "attributes", "hashes", "report_kinds", "is_typed")

    def asks_only(self, *fields: str) -> bool:
        """Tell whether all that it asks of a file stands in these fields."""
        # What is added later counts as more, until somebody has thought of it.
        return not any(
            getattr(self, field) for field in self._fields if field not in _NO_CHECKS and field not in fields
        )


class Plan(NamedTuple):
    """All searches of one scan, and the content patterns that they share.

    `unknown` says of what the searches name and this endpoint does not know that no file is told by it.
    """

    searches: Tuple[PlannedSearch, ...]
    patterns: PatternSet
    byte_strings: ByteStrings
    max_errors: int
    unknown: Tuple[str, ...] = ()


def make_plan(searches: Mapping[str, Search], now_ns: int, accounts: Optional[Accounts] = None) -> Plan:
    """Make searches ready; ages count back from `now_ns` (nanoseconds since 1970).

    Raises:
        InvalidInput: `unsupported`, where a search needs an engine that this endpoint does not have.

    """
    indices: Dict[str, int] = {}
    strings: Dict[bytes, int] = {}
    stats = StatChecks(now_ns, accounts or Accounts())
    planned = tuple(
        _plan_search(label, search, stats, indices, strings) for label, search in sorted(searches.items())
    )
    limits = [search.options.maxerrors for search in searches.values()]
    return Plan(
        searches=planned,
        patterns=PatternSet([compile_lines(expression) for expression in indices]),
        byte_strings=ByteStrings(list(strings)),
        max_errors=max(limits) if limits and all(limits) else 0,
        unknown=tuple(dict.fromkeys(stats.unknown)),
    )


def _plan_search(
    label: str, search: Search, stats: StatChecks, indices: Dict[str, int], strings: Dict[bytes, int]
) -> PlannedSearch:
    if search.names or search.modes or search.xattrs or search.contents:
        require_engine(f"search {label!r} with names, modes, xattrs or contents")
    if search.xattrs or search.capabilities:
        require_attributes(f"search {label!r} with xattrs or capabilities")
    options = search.options
    turned = frozenset(options.mismatch)
    hashes = tuple(hash_check(kind, search, turned) for kind in HASH_KINDS if getattr(search, kind))
    kinds = {check.kind for check in hashes}.union(options.returnhashes)
    if options.returnsha256:
        kinds.add("sha256")
    require_digests(kinds, f"search {label!r} with xxh3_128")
    byte_checks, wanted_strings = bytes_checks(search, turned, strings)
    planned = PlannedSearch(
        label=label,
        paths=tuple(path.encode("utf-8", "surrogateescape") for path in search.paths),
        names=name_checks(search, turned),
        stats=stats.make(search, turned),
        attributes=attribute_checks(search, turned),
        contents=content_checks(search, turned, indices),
        reads=(*byte_checks, *magic_checks(search, turned), *entropy_checks(search, turned)),
        hashes=hashes,
        report_kinds=tuple(kind for kind in HASH_KINDS if kind in kinds),
        matchall=options.matchall,
        maxdepth=options.maxdepth,
        # The newest ones can be told only when all were seen: their number is the limit then.
        matchlimit=0 if options.newest or options.oldest else options.matchlimit,
        is_typed=bool(search.types),
        wants_no_files=not can_want_files(search, turned),
        excludes=Exclusions(search.excludes) if search.excludes else None,
        remotefs=options.remotefs,
        onefilesystem=options.onefilesystem,
        newest=options.newest,
        oldest=options.oldest,
        fresh=options.fresh,
        decompress=options.decompress,
        byte_strings=wanted_strings,
        wants_magic=bool(search.magics),
        wants_entropy=bool(search.entropies),
    )
    checks = (*planned.names, *planned.stats, *planned.attributes, *planned.contents, *planned.reads)
    if planned.matchall or planned.hashes or len(checks) != 1:
        return planned
    return planned._replace(matchall=True, only=(checks[0].said,))

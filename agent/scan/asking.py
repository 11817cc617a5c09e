"""What searches that are active together ask of every file, worked out once for all files.

It is what lets `agent.scan.express` go over files without asking each search about each of them: where no
such short answer exists that is said, and a file is judged search by search.
"""

import os
from typing import Callable, Dict, FrozenSet, Optional, Sequence, Tuple

from agent.scan.checks import StatTest
from agent.scan.digests import Digest, digest_maker
from agent.scan.judging import Candidate

Maker = Callable[[bytes], Digest]
# Digests that are looked for, as bytes, by what makes one of their kind.
Digests = Tuple[Tuple[Maker, FrozenSet[bytes]], ...]


def told_at_once(chosen: Sequence[Candidate]) -> Optional[Candidate]:
    """Return the only search, with what it says, where all its checks are on names, or all on the status."""
    if len(chosen) != 1:
        return None
    one = chosen[0]
    is_told = one.search.matchall and (one.search.is_by_name() or one.search.asks_only("stats"))
    return one._replace(said=one.search.only) if is_told else None


def status_test(base: Sequence[Candidate]) -> Tuple[StatTest, bool]:
    """Return what tells of a status whether some search may want it, and what it says if so.

    Most often that is one check of one search, which is asked without a detour.
    """
    searches = [one.search.stats for one in base]
    if len(searches) == 1 and len(searches[0]) == 1:
        return searches[0][0].test, searches[0][0].wanted
    tests = [[(check.test, check.wanted) for check in checks] for checks in searches]

    def is_wanted(status: os.stat_result) -> bool:
        for checks in tests:
            for test, wanted in checks:
                if test(status) is not wanted:
                    break
            else:
                return True
        return False

    return is_wanted, True


def reads_every_file(one: Candidate) -> bool:
    """Tell whether a search cannot judge any file without reading it."""
    search = one.search
    if search.matchall and search.stats:
        return False
    return bool(search.contents or search.reads or search.hashes or (search.matchall and search.report_kinds))


def wanted_digests(base: Sequence[Candidate]) -> Optional[Digests]:
    """Return the digests for which alone a file is wanted; None where it may be for something else."""
    wanted: Dict[str, FrozenSet[bytes]] = {}
    for one in base:
        if not one.search.asks_only("hashes", "report_kinds") or not one.search.hashes:
            return None
        for check in one.search.hashes:
            if not check.wanted:
                return None
            wanted[check.kind] = wanted.get(check.kind, frozenset()) | frozenset(
                map(bytes.fromhex, check.digests)
            )
    return tuple((digest_maker(kind), digests) for kind, digests in sorted(wanted.items()))

"""One scan from beginning to end: roots, walk, inspection, limits, coverage.

The seam for what makes it fast is between the walker's batches and the inspector's matches: a batch names its
directory by descriptor and path, and a match stands by itself.
"""

from contextlib import closing
from typing import Callable, Iterator, List, Optional, Set

from agent.module import ANYWHERE, Cancelled, DeadlineReached
from agent.scan.coverage import Coverage
from agent.scan.fence import Fence
from agent.scan.inspector import Examine, Inspector
from agent.scan.judging import Match
from agent.scan.limits import Limits
from agent.scan.mounts import Mounts
from agent.scan.plan import Plan
from agent.scan.roots import GlobUse, RootFinder
from agent.scan.texts import path_text
from agent.scan.walk import Walker
from protocol.acl import PathRules


def scan(
    plan: Plan,
    *,
    coverage: Coverage,
    check: Callable[[], None],
    truncate: Callable[[str], None],
    rules: PathRules = ANYWHERE,
    examine: Optional[Examine] = None,
) -> Iterator[Match]:
    """Yield the matches of all searches of a plan.

    `check` is called in every loop and may raise to end the scan; `truncate` is told of a match limit that
    cut a search's matches. What `rules` do not allow is counted and said, never looked at. `examine` is asked
    of each file that some search selects; what it says travels with the matches.
    """
    limits = Limits(plan, coverage.note, truncate)
    closed = limits.closed
    mounts = Mounts()
    fence = Fence(rules)
    for text in plan.unknown:
        coverage.skip("unknown-account")
        coverage.note(text)
    finder = RootFinder(plan, coverage, check, fence, mounts)
    walker = Walker(
        plan, finder.roots, coverage=coverage, mounts=mounts, fence=fence, closed=closed, check=check
    )
    inspector = Inspector(
        plan, coverage=coverage, mounts=mounts, fence=fence, closed=closed, check=check, examine=examine
    )
    try:
        with closing(walker.batches()) as batches:
            for batch in batches:
                for match in inspector.inspect(batch):
                    if limits.admits(match):
                        yield match
                if len(closed) == len(plan.searches):
                    break
        _note_unused(plan, finder.globs, coverage, closed)
    except (Cancelled, DeadlineReached):
        # What was kept for the end is found all the same.
        yield from limits.ranked()
        raise
    else:
        yield from limits.ranked()
    finally:
        coverage.finish()


def _note_unused(plan: Plan, globs: List[GlobUse], coverage: Coverage, closed: Set[int]) -> None:
    for use in globs:
        if not use.is_used() and use.search not in closed:
            coverage.note(f"search {plan.searches[use.search].label}: {path_text(use.path)} matched nothing")

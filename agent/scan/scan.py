"""One scan from beginning to end: roots, walk, judging here or in workers, limits, coverage.

Rules:

* The answer is the same whoever judged: here, or by any number of workers (`agent.scan.settling`).
* A small question pays for no other process: the first files are judged here, one after the other and as they
  are asked for. So is a scan that needs names only, whatever its size.
* Beyond that, workers judge batches while the walk goes on (`agent.scan.pool`). Where none can be started, as
  on a system that has no such sockets, everything is judged here.
"""

import os
from typing import Callable, Generator, NamedTuple, Optional

from agent.module import ANYWHERE, UNBOUNDED, Budget
from agent.scan.coverage import Coverage
from agent.scan.fence import Fence
from agent.scan.inspector import Examine
from agent.scan.items import Match
from agent.scan.mounts import Mounts
from agent.scan.plan import Plan
from agent.scan.recalling import QuickDigests
from agent.scan.run import Effort, Run
from agent.scan.settling import Settlement
from agent.scan.turns import PoolFailure
from protocol.acl import PathRules

_MAX_WORKERS = 8
PLAIN_EFFORT = Effort()


class Place(NamedTuple):
    """Where a scan runs, if not on the endpoint as we see it: what it may look at there, and its mounts."""

    fence: Fence
    mounts: Mounts


def scan(
    plan: Plan,
    *,
    coverage: Coverage,
    check: Callable[[], None],
    truncate: Callable[[str], None],
    rules: PathRules = ANYWHERE,
    place: Optional[Place] = None,
    examine: Optional[Examine] = None,
    cache: Optional[QuickDigests] = None,
    budget: Budget = UNBOUNDED,
    workers: Optional[int] = None,
    effort: Effort = PLAIN_EFFORT,
    progress: Callable[[], None] = lambda: None,
) -> Generator[Match, None, None]:
    """Yield the matches of all searches of a plan.

    `check` is called in every loop and may raise to end the scan; `truncate` is told of a match limit that
    cut a search's matches. What `rules` do not allow is counted and said, never looked at; a `place` judges
    that instead, where the scan runs within another root. `examine` is asked of each file that some search
    selects, by whoever judges it; what it says travels with the matches.
    `cache` gives and takes digests of files.
    `workers` is how many may be started, 0 for none; without it, as the budget says. `progress` is called
    about twice a second.
    """
    settlement = Settlement(plan, coverage=coverage, truncate=truncate)
    run = Run(
        plan,
        settlement,
        fence=Fence(rules) if place is None else place.fence,
        mounts=Mounts() if place is None else place.mounts,
        examine=examine,
        cache=cache,
        budget=budget,
        effort=effort,
        workers=usable_workers(budget) if workers is None else workers,
        check=check,
        progress=progress,
    )
    try:
        yield from run.matches()
        yield from settlement.limits.ranked()
    except PoolFailure as failure:
        yield from run.salvage()
        yield from settlement.limits.ranked()
        truncate(f"the scan ended early: {failure}")
    except Exception:
        # Cancelled or out of time: what was found so far stands, also behind a file that took too long.
        yield from run.salvage()
        yield from settlement.limits.ranked()
        raise
    finally:
        run.close()
        coverage.finish()


def usable_workers(budget: Budget) -> int:
    """Return how many workers a scan may start."""
    has_affinity = hasattr(os, "sched_getaffinity")
    usable = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(usable, budget.workers or _MAX_WORKERS)

r"""Find processes by what lies in their memory: names, libraries mapped, byte strings, regular expressions.

Each search tells the processes that satisfy it: all of its checks with `matchall`, any one check otherwise.
Every value is a check; a leading `!` turns it round. `found` means that at least one process did. A search of
`pids` alone, or with `returnregions`, tells of the processes as they are, and with the latter their mappings.

No process is stopped. Memory is read as it is at that moment, page by page; what a process maps meanwhile may
be missed. What it never touched, what it may not read itself and what it maps of devices is not read; what
was swapped out is, and so are files that it maps, but those on network file systems. With `matchall` memory
is read only where names and libraries hold; without it the memory of every process that the search is about
is.

Byte strings and expressions are looked for in what lies side by side in the address space, over the borders
of mappings and buffers: nothing up to 64 KiB long is missed at a border, and each match is counted once, up
to 1000 of each check. Expressions (RE2) match bytes, may span lines, and `^` and `$` are the ends of a line.
Answers name addresses, mappings and counts, never what is there.

What could not be read is said: `skipped` counts the processes of which memory, or a part of it, was not read,
by reason: denied (another user's, or forbidden by a security module), unreadable (pages that cannot be read,
such as beyond the end of a file that was cut), ended (it ended, or began another program), remote-filesystem,
own-process (the agent's own hold what is looked for, and are left out). `bytes_skipped` tells how much that
was where it is known. That something is not in memory (`!`) holds only where all of it was read.

`processes_seen` counts all processes, `processes_read` those of which memory was looked into,
`processes_matched` the matches, `bytes_read` what was read. A path rule of the ACL that memory could get
round refuses the module. One process reads: `workers` has no meaning here.
"""

from typing import Annotated, Any, Dict, Iterator, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleRecord
from agent.platform.process_memory import Region
from agent.scan.budget import BUDGET_FLAGS, BudgetParams, budget_from_flags
from agent.scan.memory_flags import MEMORY_FLAGS, searches_from_flags, upgrade_memory
from agent.scan.memory_process import MemoryRun, ProcessMatch
from agent.scan.memory_search import MemorySearch
from agent.scan.patterns import require_engine
from agent.scan.process_record import ProcessRecord, RegionRecord, region_record
from agent.scan.search import Label
from agent.scan.texts import path_base64, path_text

PATHS = ()
PLATFORMS = ("linux",)
EXAMPLES = (
    "mig memory --name '^sshd$' --content 'BEGIN OPENSSH PRIVATE KEY'   keys in the memory of a program",
    "mig memory --bytes fc4883e4f0e8c0000000   a beacon's first bytes in any process",
    "mig memory --library '/libpam_[^/]*\\.so' --library '^/(tmp|home|dev/shm)/'   a library from elsewhere",
    "mig memory --content 'https?://203\\.0\\.113\\.7[:/]' --matchlimit 10   who knows an address",
    "mig memory --pid 4711 --returnregions   the mappings of one process and their sizes",
)
_MOST_REGIONS = 4096


class Params(BudgetParams, frozen=True, kw_only=True):
    """What to look for."""

    searches: Annotated[
        Dict[Label, MemorySearch],
        Meta(
            description="the searches, by a label that names each in the answer",
            min_length=1,
            max_length=1000,
        ),
    ]


class PlaceRecord(ModuleRecord, frozen=True, kw_only=True):
    """Where something was found."""

    address: Annotated[str, Meta(description="address of its first byte, in hexadecimal")]
    region: Annotated[RegionRecord, Meta(description="the mapping that this lies in")]


class MatchRecord(ModuleRecord, frozen=True, kw_only=True):
    """What was found of one check on memory."""

    check: Annotated[str, Meta(description="the check, as bytes=... or content=...")]
    count: Annotated[int, Meta(description="how often it was found; 1000 is: at least")]
    places: Annotated[Tuple[PlaceRecord, ...], Meta(description="the first places, 10 at most")]


class Record(ProcessRecord, frozen=True, kw_only=True):
    """A process that one search found."""

    search: Annotated[str, Meta(description="label of the search that found it")]
    checks: Annotated[
        Optional[Tuple[str, ...]],
        Meta(description="checks that hold, as name=value, of a search where any one is enough"),
    ] = None
    matches: Annotated[
        Tuple[MatchRecord, ...], Meta(description="what was found in its memory, by check")
    ] = ()
    regions: Annotated[
        Optional[Tuple[RegionRecord, ...]],
        Meta(description="its mappings by address, where asked for, 4096 at most"),
    ] = None
    regions_count: Annotated[
        Optional[int], Meta(description="how many mappings it has, where they are asked for")
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each process and search that wants it.

    Raises:
        InvalidInput: `unsupported` without an engine for regular expressions where one is needed;
            `acl-refused` where path rules forbid to read memory.

    """
    if any(one.names or one.libraries or one.contents for one in params.searches.values()):
        require_engine("a regular expression on processes or memory")
    memory = MemoryRun(params.searches, params.budget(context), context)
    try:
        for match in memory.matches():
            yield _record(match)
    finally:
        memory.finish()


def _record(match: ProcessMatch) -> Record:
    options = match.search.options
    executable = match.executable
    return Record(
        search=match.label,
        pid=match.pid,
        process=path_text(match.name),
        executable=path_text(executable) if executable else None,
        executable_b64=path_base64(executable) if executable else None,
        deleted=match.is_deleted,
        checks=None if options.matchall else match.checks or None,
        matches=tuple(
            MatchRecord(
                check=said,
                count=found.number,
                places=tuple(
                    PlaceRecord(address=f"{address:#x}", region=_region(match.places[address]))
                    for address in found.addresses
                ),
            )
            for said, found in match.found
        ),
        regions=tuple(map(_region, match.regions[:_MOST_REGIONS])) if options.returnregions else None,
        regions_count=len(match.regions) if options.returnregions else None,
    )


def _region(region: Region) -> RegionRecord:
    return region_record(region.start, region.end, region.permissions, region.path)


FLAGS = (*MEMORY_FLAGS, *BUDGET_FLAGS)


def from_flags(values: Dict[str, Any]) -> Dict[str, Any]:
    """Make the parameters of the command line's flags: one search, labelled s1.

    Raises:
        InvalidInput: `usage`, for flags that contradict each other.

    """
    return {**searches_from_flags(values), **budget_from_flags(values)}


def upgrade(parameters: Any) -> Any:
    """Rewrite the ancestor's spellings to canonical ones."""
    return upgrade_memory(parameters)

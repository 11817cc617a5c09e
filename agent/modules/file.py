r"""Find files by name, size, mode, age, owner, type, attributes, content, first bytes, entropy and hash.

Each search looks below its paths and reports the files that satisfy it: all checks with `matchall`, any one
check otherwise. `found` means that at least one file did. Paths may be globs; a path that is a link is
followed; a link to a file is looked at under the link's own name; links to directories are not followed.

Names, modes, extended attributes and lines of contents are matched by RE2 regular expressions, found anywhere
unless anchored with `^` and `$`; a leading `!` inverts. Names and modes are text; contents are bytes, so
binaries can be searched. A line has no length limit of meaning, but one of more than 16 MiB is matched in
pieces, which is noted.

With `decompress` what gzip, xz, bzip2 or zstd packed is looked at in place of the file's own bytes: contents,
byte strings, first bytes, entropy and digests. What does not unpack to its end is an error: what was found in
its beginning stands, whatever its rest could change satisfies no check. zstd needs Python 3.14.

Files and links to files are looked at. A search that asks for types looks at entries of every type instead,
as they are: links are not followed, and only regular files are read. Owners and groups are named as the
endpoint's own /etc/passwd and /etc/group have them; no directory service is asked.

File systems that the kernel makes up, such as /proc, are searched only where a path names them or leads into
them. Network, FUSE and automounted ones are not even touched, also where a path names them, unless
`remotefs` is given: many endpoints share them. Files that consist of holes are not read.

With `containers` the paths are those within containers, and only these are searched: each container's root is
entered, and no link leads out of it. Limits are for each container then. Linux only.

What could not be read, vanished, changed or was left out is in the notes and counted in the statistics:
`files_seen`, `files_read`, `bytes_read`, `skipped` by reason, `errors`, `changed`.
"""

import stat
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from typing import Annotated, Any, Dict, Iterator, Optional, Tuple

from msgspec import Meta

from agent.module import Context, Flag, ModuleRecord
from agent.scan.batch import LINK
from agent.scan.budget import BUDGET_FLAGS, BudgetParams, budget_from_flags
from agent.scan.checks import TYPE_NAMES, FileType
from agent.scan.coverage import Coverage
from agent.scan.flags import SEARCH_FLAGS, searches_from_flags
from agent.scan.items import Match
from agent.scan.mounts import Mounts
from agent.scan.plan import Plan, make_plan
from agent.scan.recalling import QuickDigests
from agent.scan.scan import Place, scan
from agent.scan.search import Label, Search
from agent.scan.spellings import upgrade_searches
from agent.scan.texts import mode_text, path_texts, time_text
from protocol.errors import InvalidInput

ALIASES = ("filechecker",)
PATHS = ("searches.*.paths",)
# Walking by descriptor needs openat(2).
PLATFORMS = ("linux", "darwin")
EXAMPLES = (
    "mig file --path /etc --name '^passwd$'   a file by its name",
    "mig file --path /usr/bin --path /tmp --sha256 DIGEST   a known bad file by its hash",
    "mig file --path /home --name '^authorized_keys$' --content ' eve@'   where a key is let in",
    "mig file --path /usr --mode '^u' --mtime '<7d' --returnsha256   what became setuid within a week",
    "mig file --path / --setuid --owner '!root' --exclude /var/lib/docker   who lends out rights",
    "mig file --path / --onefilesystem --capability any --capability '!cap_net_raw'   more than ping may",
    "mig file --path /tmp --path /dev/shm --type fifo --type socket   where processes may meet",
    "mig file --path /usr/bin --name . --newest 10 --returnhash sha256   what changed last",
    "mig file --path /var/log --name '\\.gz$' --content ' 203\\.0\\.113\\.7 ' --decompress   in rotated logs",
    "mig file --path /tmp --magic elf --magic script --name '!\\.(so|sh)$'   programs that do not say so",
    "mig file --container '*' --path /etc/passwd --name . --returnsha256   the same file within containers",
    "mig file --path '/opt/*/conf' --name '\\.conf$' --content '!^Listen 127'   where a line is missing",
)


ContainerName = Annotated[str, Meta(min_length=1, max_length=256)]


class Params(BudgetParams, frozen=True, kw_only=True):
    """What to look for."""

    searches: Annotated[
        Dict[Label, Search],
        Meta(
            description="the searches, by a label that names each in the answer",
            min_length=1,
            max_length=1000,
        ),
    ]
    containers: Annotated[
        Tuple[ContainerName, ...],
        Meta(
            description="containers to search within, and nothing else: ids, the first 12 or more digits of"
            " them, names, or * for all that run",
            max_length=1000,
        ),
    ] = ()


class Record(ModuleRecord, frozen=True, kw_only=True):
    """A file that one search found."""

    search: Annotated[str, Meta(description="label of the search that found the file")]
    path: Annotated[
        str,
        Meta(
            description=r"path of the file, as the search's path leads to it; where it is not UTF-8, escaped"
            r" with \xff for a byte and \\ for a backslash"
        ),
    ]
    path_b64: Annotated[
        Optional[str], Meta(description="bytes of the path in base64, only where it is not UTF-8")
    ] = None
    type: Annotated[
        FileType,
        Meta(
            description="what it is; of a link its target's facts are given, or its own where the search asks"
            " for types"
        ),
    ]
    size_bytes: Annotated[int, Meta(description="size in bytes")]
    mode: Annotated[
        str,
        Meta(description="type, special and permission bits as letters, such as -rw-r--r-- or urwxr-xr-x"),
    ]
    uid: Annotated[int, Meta(description="number of the owner")]
    gid: Annotated[int, Meta(description="number of the group")]
    mtime: Annotated[str, Meta(description="last change of the content, RFC 3339 in UTC")]
    hashes: Annotated[
        Optional[Dict[str, str]],
        Meta(
            description="digests in hexadecimal by algorithm, of those that the search asks for; with"
            " decompress of what is packed"
        ),
    ] = None
    cached: Annotated[
        bool,
        Meta(
            description="the digests were computed by an earlier scan, and by all that stat says still hold"
        ),
    ] = False
    checks: Annotated[
        Optional[Tuple[str, ...]],
        Meta(description="checks that matched, as filter=value, of a search where any one is enough"),
    ] = None
    container: Annotated[Optional[str], Meta(description="id of the container that the path is in")] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each file and search that wants it.

    Raises:
        InvalidInput: `unsupported` where a search needs regular expressions and there is no engine for them,
            or where there are no containers; `acl-refused` where access rules limit paths within them.

    """
    if not params.containers:
        yield from _find(params, context, None)
        return
    if not sys.platform.startswith("linux"):
        raise InvalidInput("unsupported", "containers are looked into on Linux only")
    # Only here: most questions are none about containers, and it knows engines and stores.
    from agent.scan.container_scan import run_within  # noqa: PLC0415

    yield from run_within(
        params.containers, lambda inner, place: _find(params, inner, place), Record, context
    )


def _find(params: Params, context: Context, place: Optional[Place]) -> Iterator[Record]:
    """Yield the records of the searches: on the endpoint or, where there is a place, within it."""
    now_ns = time.time_ns()
    plan = make_plan(params.searches, now_ns=now_ns)
    coverage = Coverage(context.note, max_errors=plan.max_errors)

    def progress() -> None:
        context.statistics.update(coverage.statistics())
        context.progress()

    with ExitStack() as stack:
        found = scan(
            plan,
            coverage=coverage,
            rules=context.paths,
            place=place,
            check=context.check,
            truncate=context.truncate,
            cache=stack.enter_context(_kept_digests(context, now_ns)),
            budget=params.budget(context),
            progress=progress,
        )
        # Closed at once also where the reader has enough: there may be workers.
        stack.enter_context(closing(found))
        try:
            for match in found:
                yield _record(plan, match)
        finally:
            context.statistics.update(coverage.statistics())


@contextmanager
def _kept_digests(context: Context, now_ns: int) -> Iterator[Optional[QuickDigests]]:
    if context.digest_cache is None:
        yield None
        return
    try:
        from agent.scan.cache import DigestCache  # noqa: PLC0415  (needs xxhash, which few builds use)

        cache = DigestCache(context.digest_cache, now_ns=now_ns, type_of=Mounts().stated_type)
    except (ImportError, OSError) as error:
        context.note(f"the digest cache is not used: {error}")
        yield None
        return
    with closing(cache):
        yield cache


def _record(plan: Plan, match: Match) -> Record:
    status = match.status
    path, path_b64 = path_texts(match.path)
    return Record(
        search=plan.searches[match.search].label,
        path=path,
        path_b64=path_b64,
        type="link" if match.kind == LINK else TYPE_NAMES[stat.S_IFMT(status.st_mode)],
        size_bytes=status.st_size,
        mode=mode_text(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=time_text(status.st_mtime_ns),
        hashes=dict(match.digests) if match.digests else None,
        cached=match.is_cached,
        checks=match.checks or None,
    )


def upgrade(parameters: Any) -> Any:
    """Rewrite the ancestor's spellings, `filechecker`'s included, to canonical ones."""
    return upgrade_searches(parameters)


_CONTAINER_FLAG = Flag("container", "search within this container, by id or name; * is all", repeat=True)
FLAGS = (_CONTAINER_FLAG, *SEARCH_FLAGS, *BUDGET_FLAGS)


def from_flags(values: Dict[str, Any]) -> Dict[str, Any]:
    """Make the parameters of the command line's flags.

    Raises:
        InvalidInput: `usage`, for flags that contradict each other or that are missing.

    """
    within = {"containers": list(values["container"])} if values.get("container") else {}
    return {**searches_from_flags(values), **within, **budget_from_flags(values)}

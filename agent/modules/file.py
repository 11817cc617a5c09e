r"""Find files by name, size, mode, age, owner, type, attributes, content and hash.

Each search looks below its paths and reports the files that satisfy it: all checks with `matchall`, any one
check otherwise. `found` means that at least one file did. Paths may be globs; a path that is a link is
followed; a link to a file is looked at under the link's own name; links to directories are not followed.

Names, modes, extended attributes and lines of contents are matched by RE2 regular expressions, found anywhere
unless anchored with `^` and `$`; a leading `!` inverts. Names and modes are text; contents are bytes, so
binaries can be searched.
A line has no length limit of meaning, but one of more than 16 MiB is matched in pieces, which is noted.

Files and links to files are looked at. A search that asks for types looks at entries of every type instead,
as they are: links are not followed, and only regular files are read. Owners and groups are named as the
endpoint's own /etc/passwd and /etc/group have them; no directory service is asked.

File systems that the kernel makes up, such as /proc, are searched only where a path names them or leads into
them. Network, FUSE and automounted ones are not even touched, also where a path names them, unless
`remotefs` is given: many endpoints share them. Files that consist of holes are not read.

What could not be read, vanished, changed or was left out is in the notes and counted in the statistics:
`files_seen`, `files_read`, `bytes_read`, `skipped` by reason, `errors`, `changed`.
"""

import itertools
import stat
import time
from typing import Annotated, Any, Dict, Iterable, Iterator, List, Optional, Tuple

from msgspec import Meta

from agent.module import Context, Flag, ModuleParams, ModuleRecord
from agent.scan.batch import LINK
from agent.scan.checks import TYPE_NAMES, FileType
from agent.scan.coverage import Coverage
from agent.scan.judging import Match
from agent.scan.plan import Plan, make_plan
from agent.scan.scan import scan
from agent.scan.search import FILTER_FIELDS, HASH_KINDS, Label, Search
from agent.scan.spellings import upgrade_searches
from agent.scan.texts import mode_text, path_base64, path_text, time_text
from protocol.errors import InvalidInput

_CHECKS_PER_PROGRESS = 64  # a check is made for each entry and each piece that is read
ALIASES = ("filechecker",)
# Mode letters begin with the special bits: `urwxr-xr-x`.
SETUID = "^u"
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
    "mig file --path '/opt/*/conf' --name '\\.conf$' --content '!^Listen 127'   where a line is missing",
)


class Params(ModuleParams, frozen=True, kw_only=True):
    """What to look for."""

    searches: Annotated[
        Dict[Label, Search],
        Meta(
            description="the searches, by a label that names each in the answer",
            min_length=1,
            max_length=1000,
        ),
    ]


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
        Meta(description="digests in hexadecimal by algorithm, of those that the search asks for"),
    ] = None
    checks: Annotated[
        Optional[Tuple[str, ...]],
        Meta(description="checks that matched, as filter=value, of a search where any one is enough"),
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each file and search that wants it.

    Raises:
        InvalidInput: `unsupported` where a search needs regular expressions and there is no engine for them.

    """
    plan = make_plan(params.searches, now_ns=time.time_ns())
    coverage = Coverage(context.note, max_errors=plan.max_errors)
    checks = itertools.count(1)

    def check() -> None:
        context.check()
        if next(checks) % _CHECKS_PER_PROGRESS == 0:
            context.statistics.update(coverage.statistics())
            context.progress()

    try:
        found = scan(plan, coverage=coverage, rules=context.paths, check=check, truncate=context.truncate)
        for match in found:
            # Before each record, since a reader that has enough never comes back for the end.
            context.statistics.update(coverage.statistics())
            yield _record(plan, match)
    finally:
        context.statistics.update(coverage.statistics())


def _record(plan: Plan, match: Match) -> Record:
    return Record(
        search=plan.searches[match.search].label,
        path=path_text(match.path),
        path_b64=path_base64(match.path),
        type="link" if match.kind == LINK else TYPE_NAMES[stat.S_IFMT(match.status.st_mode)],
        size_bytes=match.status.st_size,
        mode=mode_text(match.status.st_mode),
        uid=match.status.st_uid,
        gid=match.status.st_gid,
        mtime=time_text(match.status.st_mtime_ns),
        hashes=dict(match.digests) or None,
        checks=match.checks or None,
    )


def upgrade(parameters: Any) -> Any:
    """Rewrite the ancestor's spellings, `filechecker`'s included, to canonical ones."""
    return upgrade_searches(parameters)


def _values(name: str, text: str, metavar: str) -> Flag:
    return Flag(name, text, repeat=True, metavar=metavar)


FLAGS = (
    _values("path", "file or directory to search; may hold * ? [...] and **", "PATH"),
    _values("name", "regular expression on the file's name; ! inverts", "REGEX"),
    _values("size", "size in bytes or k m g t: <n at most, >n at least", "SIZE"),
    _values("mode", "regular expression on the mode text, such as ^u for setuid", "REGEX"),
    _values("mtime", "age of the last change in d h m: <90d within, >5h before", "AGE"),
    _values("ctime", "age of the last change of owner, mode, links or content, as --mtime", "AGE"),
    _values("atime", "age of the last access, as --mtime", "AGE"),
    _values("owner", "owner by name or number, any of them; ! inverts", "USER"),
    _values("group", "group by name or number, any of them; ! inverts", "GROUP"),
    _values("type", "file directory link fifo socket block character, any of them; ! inverts", "TYPE"),
    _values("xattr", "regular expression on extended attributes, name or name=value; ! inverts", "REGEX"),
    _values("capability", "capability that the file gives, such as cap_net_raw, or any; ! inverts", "CAP"),
    Flag("setuid", "same as --mode ^u: files that run as their owner", is_bool=True, default=False),
    _values("content", "regular expression on each line; ! inverts: no line matches", "REGEX"),
    *(
        _values(kind.replace("_", "-"), f"{kind} digest; several are alternatives", "HEX")
        for kind in HASH_KINDS
    ),
    _values("sha2", "SHA-2 digest, its kind told by its length", "HEX"),
    _values("sha3", "SHA-3 digest, its kind told by its length", "HEX"),
    _values("exclude", "leave out by name or absolute path, and all below; may hold * ? [...] **", "GLOB"),
    _values("mismatch", "filter to turn round: name size mode mtime owner content md5 ...", "FILTER"),
    Flag("maxdepth", "how deep to search; 1 is the files directly in the path", type=int, default=1000),
    Flag("maxerrors", "name at most so many unreadable things; 0 is all", type=int, default=30),
    Flag("matchlimit", "report at most so many files; 0 is all", type=int, default=1000),
    Flag("newest", "report only so many files, those changed last", type=int),
    Flag("oldest", "report only so many files, those not changed for the longest", type=int),
    Flag("remotefs", "look into network, FUSE and automounted file systems", is_bool=True, default=False),
    Flag("onefilesystem", "stay on the file system of each path", is_bool=True, default=False),
    Flag("matchall", "a file must satisfy every check (the default)", is_bool=True, default=False),
    Flag("matchany", "any one check is enough", is_bool=True, default=False),
    Flag("macroal", "content expressions must match all lines", is_bool=True, default=False),
    Flag("returnsha256", "give the SHA-256 of each file found", is_bool=True, default=False),
    _values("returnhash", "give this digest of each file found: md5 sha1 sha256 ...", "KIND"),
)


def from_flags(values: Dict[str, Any]) -> Dict[str, Any]:
    """Make the parameters of the command line's flags: one search, labelled s1.

    Raises:
        InvalidInput: `usage`, for flags that contradict each other or that are missing.

    """
    given = {name.replace("-", "_"): value for name, value in values.items()}
    if given.get("matchall") and given.get("matchany"):
        raise InvalidInput("usage", "--matchall and --matchany exclude each other")
    if not given.get("path"):
        raise InvalidInput("usage", "name at least one --path to search")
    search: Dict[str, Any] = {
        name: list(given[name])
        for name in ("path", *FILTER_FIELDS, "sha2", "sha3", "exclude")
        if given.get(name)
    }
    if given.get("setuid"):
        search["mode"] = [*search.get("mode", ()), SETUID]
    search["options"] = _options(given)
    upgraded: Dict[str, Any] = upgrade_searches({"searches": {"s1": search}})
    return upgraded


def _options(given: Dict[str, Any]) -> Dict[str, Any]:
    numbers = (("maxdepth", 1000), ("maxerrors", 30), ("matchlimit", 1000))
    # What has no meaning for most searches stands in an action only where it was asked for.
    others = ("newest", "oldest", "remotefs", "onefilesystem")
    return {
        **{name: given.get(name, default) for name, default in numbers},
        "matchall": not given.get("matchany"),
        "mismatch": list(given.get("mismatch") or ()),
        "macroal": bool(given.get("macroal")),
        "returnsha256": bool(given.get("returnsha256")),
        **{name: given[name] for name in others if given.get(name)},
        **({"returnhashes": _kinds(given["returnhash"])} if given.get("returnhash") else {}),
    }


def _kinds(names: Iterable[str]) -> List[str]:
    return list(dict.fromkeys(name.lower().replace("-", "_") for name in names))

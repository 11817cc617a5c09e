"""The flags of a file search on the command line, for every module that selects files by one."""

import shlex
from typing import Any, Dict, Iterable, List

from agent.module import Flag
from agent.scan.search import FILTER_FIELDS, HASH_KINDS
from agent.scan.spellings import upgrade_searches
from protocol.errors import InvalidInput

# Mode letters begin with the special bits: `urwxr-xr-x`.
SETUID = "^u"
# On POSIX, or a share on Windows; what follows is judged with the parameters.
_ABSOLUTE = ("/", "\\\\")


def _values(name: str, text: str, metavar: str) -> Flag:
    return Flag(name, text, repeat=True, metavar=metavar)


SEARCH_FLAGS = (
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
    _values("bytes", "bytes in hexadecimal, found anywhere in the file; ! inverts", "HEX"),
    _values("magic", "what the first bytes say: elf pe script zip pem ..., any of them; ! inverts", "TYPE"),
    _values("entropy", "entropy in bits per byte: <n at most, >n at least; packed is above 7.9", "BITS"),
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
    Flag("decompress", "look into what gzip, xz, bzip2 or zstd packed", is_bool=True, default=False),
    Flag("returnsha256", "give the SHA-256 of each file found", is_bool=True, default=False),
    Flag(
        "fresh", "compute all digests anew, take none that the endpoint has kept", is_bool=True, default=False
    ),
    _values("returnhash", "give this digest of each file found: md5 sha1 sha256 ...", "KIND"),
)


def searches_from_flags(values: Dict[str, Any]) -> Dict[str, Any]:
    """Make the member `searches` of the command line's flags: one search, labelled s1.

    Raises:
        InvalidInput: `usage`, for flags that contradict each other or that are missing.

    """
    given = {name.replace("-", "_"): value for name, value in values.items()}
    if given.get("matchall") and given.get("matchany"):
        raise InvalidInput("usage", "--matchall and --matchany exclude each other")
    if not given.get("path"):
        raise InvalidInput("usage", "name at least one --path to search")
    for path in given["path"]:
        if not path.startswith(_ABSOLUTE) and path[1:2] != ":":
            raise InvalidInput("usage", f"--path {path!r}: endpoints know absolute paths only, such as /etc")
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
    others = ("newest", "oldest", "remotefs", "onefilesystem", "decompress", "fresh")
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


def searches_from_line(line: str) -> Dict[str, Any]:
    """Make the member `searches` of flags on one line, as the ancestor has it: `-path /etc -name x`.

    Raises:
        InvalidInput: `bad-parameters`, for a flag that is not known or lacks its value; `usage` as above.

    """
    known = {flag.name: flag for flag in SEARCH_FLAGS}
    values: Dict[str, Any] = {}
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InvalidInput("bad-parameters", f"the flags {line[:256]!r}: {error}") from None
    while words:
        name, separator, value = words.pop(0).partition("=")
        flag = known.get(name.lstrip("-")) if name.startswith("-") else None
        if flag is None:
            raise InvalidInput("bad-parameters", f"{name[:256]!r} is no flag of a file search")
        if flag.is_bool:
            values[flag.name] = value.lower() not in ("false", "0")
            continue
        if not separator and not words:
            raise InvalidInput("bad-parameters", f"{name} has no value")
        text = value if separator else words.pop(0)
        try:
            typed = flag.type(text)
        except ValueError:
            raise InvalidInput("bad-parameters", f"{name}: {text[:256]!r} is no number") from None
        values[flag.name] = [*values.get(flag.name, ()), typed] if flag.repeat else typed
    return searches_from_flags(values)

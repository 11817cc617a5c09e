"""What a file search is: the one declaration of its filters and options.

It stands in the scan core because every module that selects files by it shares the declaration. What can be
known to be wrong without touching a file is refused while decoding: by the investigator's client before
signing, and by the endpoint's gate again.
"""

from typing import Annotated, ClassVar, Dict, Literal, Optional, Tuple

import msgspec
from msgspec import Meta

from agent.scan.capabilities import mask_of
from agent.scan.magic import MAGIC_NAMES
from agent.scan.patterns import require_pattern, split_inverse

# The hash filters, by the names that hashlib (and `agent.scan.digests`) and the search's fields share.
HASH_KINDS = (
    "md5", "sha1", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "xxh3_128",
)  # fmt: skip
# Filter names as `mismatch` and `checks` say them -> the field that holds the values.
FILTER_FIELDS: Dict[str, str] = {
    "name": "names",
    "size": "sizes",
    "mode": "modes",
    "mtime": "mtimes",
    "ctime": "ctimes",
    "atime": "atimes",
    "owner": "owners",
    "group": "groups",
    "type": "types",
    "xattr": "xattrs",
    "capability": "capabilities",
    "content": "contents",
    "bytes": "bytes",
    "magic": "magics",
    "entropy": "entropies",
    **{kind: kind for kind in HASH_KINDS},
}

HashKind = Literal[
    "md5", "sha1", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "xxh3_128",
]  # fmt: skip
FilterName = Literal[
    "name", "size", "mode", "mtime", "ctime", "atime", "owner", "group", "type",
    "xattr", "capability", "content", "bytes", "magic", "entropy",
    "md5", "sha1", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "xxh3_128",
]  # fmt: skip
TypeFilter = Literal[
    "file", "directory", "link", "fifo", "socket", "block", "character",
    "!file", "!directory", "!link", "!fifo", "!socket", "!block", "!character",
]  # fmt: skip
# Narrower than the ancestor's, which let any character through: a label becomes a column, a member name and a
# part of file names wherever results go, so it is kept to characters that need no quoting anywhere.
Label = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
RootPath = Annotated[
    str,
    Meta(
        # Absolute on POSIX, or a drive or share on Windows; NUL cannot stand in a path.
        pattern=r"^(/|[A-Za-z]:[\\/]|\\\\)[^\x00]*\Z",
        max_length=4096,
    ),
]
ShortText = Annotated[str, Meta(max_length=1024)]
Regex = Annotated[str, Meta(min_length=1, max_length=16_384)]
Size = Annotated[str, Meta(pattern=r"^[<>]?[0-9]{1,20}[kmgt]?\Z")]
Age = Annotated[str, Meta(pattern=r"^[<>][0-9]{1,9}[dhm]\Z")]
# What passwd(5) and group(5) can hold; a comma or a blank in it would be a slip.
Account = Annotated[str, Meta(pattern=r"^!?[^\s:,!][^\s:,]{0,254}\Z")]
Capability = Annotated[str, Meta(pattern=r"^!?(any|cap_[a-z_]{1,32})\Z")]
# At least one byte; as long a string as anybody copies out of a report.
HexBytes = Annotated[str, Meta(pattern=r"^!?([0-9a-f]{2}){1,1024}\Z")]
Magic = Annotated[str, Meta(pattern=r"^!?[a-z0-9]{2,16}\Z")]
Bits = Annotated[str, Meta(pattern=r"^[<>][0-8](\.[0-9]{1,6})?\Z")]
# A path, or the name of a file or directory, which has no slash.
Exclusion = Annotated[str, Meta(pattern=r"^(/|[^/\x00]+\Z)[^\x00]*\Z", max_length=4096)]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Hex40 = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z")]
Hex56 = Annotated[str, Meta(pattern=r"^[0-9a-f]{56}\Z")]
Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Hex96 = Annotated[str, Meta(pattern=r"^[0-9a-f]{96}\Z")]
Hex128 = Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# As many matches are held in memory until the end.
Ranked = Annotated[int, Meta(ge=0, le=100_000)]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one search walks and judges."""

    maxdepth: Annotated[
        Count,
        Meta(description="how deep to search: 1 is the files directly in the root, 0 is without limit"),
    ] = 0
    matchall: Annotated[
        bool,
        Meta(description="a file must satisfy every check; otherwise any one check is enough"),
    ] = False
    matchlimit: Annotated[
        Count,
        Meta(description="report at most so many files of this search, and say so; 0 is without limit"),
    ] = 0
    mismatch: Annotated[
        Tuple[FilterName, ...],
        Meta(description="filters to turn round: what does not satisfy their checks matches"),
    ] = ()
    macroal: Annotated[
        bool,
        Meta(description="content expressions must match all lines of a file, not only one"),
    ] = False
    newest: Annotated[
        Ranked,
        Meta(description="report only so many files, those changed last (mtime); 0 is all"),
    ] = 0
    oldest: Annotated[
        Ranked,
        Meta(description="report only so many files, those not changed for the longest (mtime); 0 is all"),
    ] = 0
    remotefs: Annotated[
        bool,
        Meta(description="also look into network, FUSE and automounted file systems"),
    ] = False
    onefilesystem: Annotated[
        bool,
        Meta(description="stay on the file system on which each path lies"),
    ] = False
    decompress: Annotated[
        bool,
        Meta(
            description="look into what is packed with gzip, xz, bzip2 or zstd: contents, bytes, magics,"
            " entropies and digests are then those of what is packed"
        ),
    ] = False
    returnsha256: Annotated[bool, Meta(description="give the SHA-256 of each file that matched")] = False
    returnhashes: Annotated[
        Tuple[HashKind, ...],
        Meta(description="digests to give of each file that matched"),
    ] = ()
    fresh: Annotated[
        bool,
        Meta(description="read every file anew, also where the endpoint keeps digests of earlier scans"),
    ] = False
    maxerrors: Annotated[
        Count,
        Meta(description="name at most so many things that could not be read; 0 is all; all are counted"),
    ] = 0


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One search: where to look and which files to find.

    Values of `owners`, `groups`, `types`, `magics` and of one hash are alternatives, together one check; a
    value with a leading `!` is a check of its own. Several values of another filter are several checks.
    """

    paths: Annotated[
        Tuple[RootPath, ...],
        Meta(
            description="where to look: absolute paths of files or directories; may hold * ? [...] and **",
            min_length=1,
            max_length=4096,
        ),
    ]
    description: Annotated[
        Optional[ShortText],
        Meta(description="what is looked for; shown to people, never interpreted"),
    ] = None
    names: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on the file's name, without directories; ! inverts"),
    ] = ()
    sizes: Annotated[
        Tuple[Size, ...],
        Meta(description="sizes in bytes or k m g t (1024 based): <n at most, >n at least, n exactly"),
    ] = ()
    modes: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions on the mode text, such as -rw-r--r-- or urwxr-xr-x; ! inverts"),
    ] = ()
    mtimes: Annotated[
        Tuple[Age, ...],
        Meta(description="age of the last change in d h m: <90d within the last 90 days, >5h before that"),
    ] = ()
    ctimes: Annotated[
        Tuple[Age, ...],
        Meta(
            description="age of the last change of the file's status (owner, mode, links, content), as mtimes"
        ),
    ] = ()
    atimes: Annotated[
        Tuple[Age, ...],
        Meta(description="age of the last access that the file system has noted, as mtimes"),
    ] = ()
    owners: Annotated[
        Tuple[Account, ...],
        Meta(description="owners by name in the endpoint's /etc/passwd or by number, any of them; ! inverts"),
    ] = ()
    groups: Annotated[
        Tuple[Account, ...],
        Meta(description="groups by name in the endpoint's /etc/group or by number, any of them; ! inverts"),
    ] = ()
    types: Annotated[
        Tuple[TypeFilter, ...],
        Meta(
            description="file, directory, link, fifo, socket, block or character, any of them; ! inverts."
            " With it entries of every type are looked at, and links are not followed;"
            " without it only files and links to files are"
        ),
    ] = ()
    xattrs: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on extended attributes, each as name and as name=value;"
            " a leading !: no attribute matches; Linux only"
        ),
    ] = ()
    capabilities: Annotated[
        Tuple[Capability, ...],
        Meta(
            description="capabilities that the file gives, such as cap_net_raw, or any; ! inverts; Linux only"
        ),
    ] = ()
    contents: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on each line of the file; a leading !: no line matches"),
    ] = ()
    bytes: Annotated[
        Tuple[HexBytes, ...],
        Meta(description="byte strings in hexadecimal, found anywhere in the file; a leading !: not in it"),
    ] = ()
    magics: Annotated[
        Tuple[Magic, ...],
        Meta(description="types that a file's first bytes say, such as elf or zip, any of them; ! inverts"),
    ] = ()
    entropies: Annotated[
        Tuple[Bits, ...],
        Meta(description="entropy in bits per byte, 0 to 8: <n at most, >n at least; packed is above 7.9"),
    ] = ()
    md5: Annotated[Tuple[Hex32, ...], Meta(description="MD5 digests in hexadecimal, any of them")] = ()
    sha1: Annotated[Tuple[Hex40, ...], Meta(description="SHA-1 digests, any of them")] = ()
    sha256: Annotated[Tuple[Hex64, ...], Meta(description="SHA-256 digests, any of them")] = ()
    sha384: Annotated[Tuple[Hex96, ...], Meta(description="SHA-384 digests, any of them")] = ()
    sha512: Annotated[Tuple[Hex128, ...], Meta(description="SHA-512 digests, any of them")] = ()
    sha3_224: Annotated[Tuple[Hex56, ...], Meta(description="SHA3-224 digests, any of them")] = ()
    sha3_256: Annotated[Tuple[Hex64, ...], Meta(description="SHA3-256 digests, any of them")] = ()
    sha3_384: Annotated[Tuple[Hex96, ...], Meta(description="SHA3-384 digests, any of them")] = ()
    sha3_512: Annotated[Tuple[Hex128, ...], Meta(description="SHA3-512 digests, any of them")] = ()
    xxh3_128: Annotated[
        Tuple[Hex32, ...], Meta(description="XXH3 digests of 128 bits (not cryptographic), any of them")
    ] = ()
    excludes: Annotated[
        Tuple[Exclusion, ...],
        Meta(
            description="what to leave out, with all that is below it: names, or absolute paths;"
            " may hold * ? [...] and **",
            max_length=1000,
        ),
    ] = ()
    options: Annotated[Options, Meta(description="how to walk and judge")] = Options()

    NEEDS_CHECK: ClassVar[bool] = True

    def has_check(self) -> bool:
        """Tell whether anything but the place tells which files are wanted."""
        return any(getattr(self, field) for field in FILTER_FIELDS.values())

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; msgspec turns the ValueError into its own error with the place."""
        if self.NEEDS_CHECK and not self.has_check():
            raise ValueError("the search has no check (names, sizes, a hash, ...), so it could match nothing")
        for filter_name in self.options.mismatch:
            if not getattr(self, FILTER_FIELDS[filter_name]):
                raise ValueError(f"mismatch names {filter_name!r}, but the search has no such check")
        if self.options.macroal and not self.contents:
            raise ValueError("macroal is about contents, and the search has none")
        if self.options.newest and self.options.oldest:
            raise ValueError("newest and oldest exclude each other: make two searches")
        self._require_texts()

    def _require_texts(self) -> None:
        for path in (*self.paths, *self.excludes):
            try:
                path.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:
                raise ValueError(f"the path {path!r} is not text") from None
        for field in ("names", "modes", "xattrs", "contents"):
            for value in getattr(self, field):
                require_pattern(split_inverse(value)[0], field, on_lines=field == "contents")
        for value in self.capabilities:
            mask_of(split_inverse(value)[0])
        for value in self.magics:
            if split_inverse(value)[0] not in MAGIC_NAMES:
                raise ValueError(f"there is no magic {value!r}; there are {', '.join(MAGIC_NAMES)}")


class Selection(Search, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which files a module is to look into: a search, or all files below its paths where it has no check."""

    NEEDS_CHECK: ClassVar[bool] = False

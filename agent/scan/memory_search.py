"""What a search in memory is: the one declaration of its checks and options."""

from typing import Annotated, Optional, Tuple

import msgspec
from msgspec import Meta

from agent.scan.patterns import require_pattern, require_raw_pattern, split_inverse
from agent.scan.search import Count, HexBytes, Regex, ShortText

MAX_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h
_MAX_VALUES = 1000
# An address of 64 bits, as far as JSON takes it.
Address = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class MemoryOptions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How one search judges, and what it reads."""

    matchall: Annotated[
        bool, Meta(description="a process must satisfy every check; otherwise any one check is enough")
    ] = False
    offset: Annotated[
        Address,
        Meta(description="look at memory from this address on; whatever lies there first may be read"),
    ] = 0
    maxlength: Annotated[
        Address,
        Meta(description="read at most so many bytes of the memory of each process; 0 is without limit"),
    ] = 0
    matchlimit: Annotated[
        Count, Meta(description="report at most so many processes of this search; 0 is without limit")
    ] = 0
    returnregions: Annotated[
        bool, Meta(description="list the mappings of each process that matched, 4096 of them at most")
    ] = False


class MemorySearch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which processes to find. Every value is a check of its own; a leading `!` turns it round."""

    description: Annotated[
        Optional[ShortText],
        Meta(description="what is looked for; shown to people, never interpreted"),
    ] = None
    pids: Annotated[
        Tuple[Annotated[int, Meta(ge=1, le=MAX_PID)], ...],
        Meta(description="look at these processes only, by their numbers", max_length=_MAX_VALUES),
    ] = ()
    names: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on the process's own name (of 15 bytes), the path of its"
            " program or the name of that file: one of the three matches; !: none does",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    libraries: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on the paths of the files that it maps, but its program's: one"
            " matches; !: none does",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    bytes: Annotated[
        Tuple[HexBytes, ...],
        Meta(
            description="byte strings in hexadecimal, found anywhere in its memory; !: not in it",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    contents: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on the bytes of its memory; ^ and $ are the ends of a line, or"
            " of what lies side by side; !: none matches",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    options: Annotated[MemoryOptions, Meta(description="how to judge, and what to read")] = MemoryOptions()

    def has_check(self) -> bool:
        """Tell whether anything but its number tells which process is wanted."""
        return bool(self.names or self.libraries or self.bytes or self.contents)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; msgspec turns the ValueError into its own error with the place."""
        if not (self.has_check() or self.pids or self.options.returnregions):
            raise ValueError("the search has no check (names, libraries, bytes, contents) and no pids")
        for field in ("names", "libraries"):
            for value in getattr(self, field):
                require_pattern(split_inverse(value)[0], field)
        for value in self.contents:
            require_raw_pattern(split_inverse(value)[0], "contents")

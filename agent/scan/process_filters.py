"""Which processes a question is about: the declaration of its filters.

What can be known to be wrong is refused while decoding: before signing, and by the endpoint's gate again.
"""

from typing import Annotated, Optional, Tuple

from msgspec import Meta

from agent.module import ModuleParams
from agent.scan.capabilities import mask_of
from agent.scan.patterns import require_pattern, split_inverse
from agent.scan.search import (
    Account,
    Age,
    Capability,
    Hex32,
    Hex40,
    Hex56,
    Hex64,
    Hex96,
    Hex128,
    Regex,
)

MAX_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h
_MAX_VALUES = 1000
Pid = Annotated[int, Meta(ge=0, le=1 << 32)]
Port = Annotated[int, Meta(ge=1, le=65535)]
ContainerName = Annotated[str, Meta(pattern=r"^!?[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")]
# Filters that are regular expressions.
EXPRESSIONS = ("names", "commands", "executables", "ancestors", "open_files", "libraries", "variables")


class ProcessFilters(ModuleParams, frozen=True, kw_only=True):
    """All filters given must hold. Values of one are alternatives; those with a leading `!` leave out."""

    pids: Annotated[Tuple[Pid, ...], Meta(description="numbers, any of them", max_length=_MAX_VALUES)] = ()
    names: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on the process's own name (of 15 bytes) and on the name of"
            " its program's file, any of them; a leading ! leaves out",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    commands: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on the command line: all arguments, with blanks between them;"
            " a leading ! leaves out",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    users: Annotated[
        Tuple[Account, ...],
        Meta(
            description="users by name in the endpoint's /etc/passwd or by number (the effective user), any"
            " of them; a leading ! leaves out",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    executables: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on the path of the program's file, any of them; ! leaves out",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    ancestors: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on the names, as in names, of the parent, its parent and so"
            " on: one of them matches; a leading !: none does",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    open_files: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on the paths of what it has open, any of them; a leading !:"
            " it has none such open",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    libraries: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on the paths of the files that it maps, but its program's, any"
            " of them; a leading !: it maps none such",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    variables: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on the names, never the values, of its environment's variables,"
            " any of them; a leading !: it has none such",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    ports: Annotated[
        Tuple[Port, ...],
        Meta(description="ports on which it listens by TCP or UDP, any of them", max_length=_MAX_VALUES),
    ] = ()
    capabilities: Annotated[
        Tuple[Capability, ...],
        Meta(
            description="capabilities in its effective set, such as cap_net_raw, or any; any of them;"
            " a leading ! leaves out; Linux only",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    containers: Annotated[
        Tuple[ContainerName, ...],
        Meta(
            description="containers that it runs in, by name, id or the first 12 or more digits of an id, or"
            " any; any of them; a leading ! leaves out; Linux only",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    starts: Annotated[
        Tuple[Age, ...],
        Meta(
            description="when it was started, in d h m: <1h within the last hour, >7d before the last seven"
            " days; all of them",
            max_length=_MAX_VALUES,
        ),
    ] = ()
    deleted: Annotated[
        Optional[bool],
        Meta(
            description="whether its program's file was deleted or replaced since it was started; Linux only"
        ),
    ] = None
    fromtemporary: Annotated[
        Optional[bool],
        Meta(
            description="whether its program lies, or lay, below /tmp, /var/tmp, /dev/shm or /run/user, or in"
            " memory alone (memfd)"
        ),
    ] = None
    kernel: Annotated[
        Optional[bool], Meta(description="only threads of the kernel (true), or none of them (false)")
    ] = None
    md5: Annotated[
        Tuple[Hex32, ...], Meta(description="MD5 digests of its program in hexadecimal, any of them")
    ] = ()
    sha1: Annotated[Tuple[Hex40, ...], Meta(description="SHA-1 digests of its program, any of them")] = ()
    sha256: Annotated[Tuple[Hex64, ...], Meta(description="SHA-256 digests of its program, any of them")] = ()
    sha384: Annotated[Tuple[Hex96, ...], Meta(description="SHA-384 digests of its program, any of them")] = ()
    sha512: Annotated[
        Tuple[Hex128, ...], Meta(description="SHA-512 digests of its program, any of them")
    ] = ()
    sha3_224: Annotated[
        Tuple[Hex56, ...], Meta(description="SHA3-224 digests of its program, any of them")
    ] = ()
    sha3_256: Annotated[
        Tuple[Hex64, ...], Meta(description="SHA3-256 digests of its program, any of them")
    ] = ()
    sha3_384: Annotated[
        Tuple[Hex96, ...], Meta(description="SHA3-384 digests of its program, any of them")
    ] = ()
    sha3_512: Annotated[
        Tuple[Hex128, ...], Meta(description="SHA3-512 digests of its program, any of them")
    ] = ()
    xxh3_128: Annotated[
        Tuple[Hex32, ...],
        Meta(description="XXH3 digests of its program of 128 bits (not cryptographic), any of them"),
    ] = ()

    def __post_init__(self) -> None:
        """Refuse what could match nothing; msgspec turns the ValueError into its own error with the place."""
        for field in EXPRESSIONS:
            for value in getattr(self, field):
                require_pattern(split_inverse(value)[0], field)
        for value in self.capabilities:
            mask_of(split_inverse(value)[0])

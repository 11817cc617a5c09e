"""What may be known of a container, whoever tells it; what is not known is None, or empty.

Names, images and mount points are text of whoever made the container.
"""

from typing import NamedTuple, Optional, Tuple

# What a runtime gives without being asked (Docker's list; Podman and CRI-O give some of these).
USUAL_CAPABILITIES = frozenset(
    {
        "cap_audit_write", "cap_chown", "cap_dac_override", "cap_fowner", "cap_fsetid", "cap_kill",
        "cap_mknod", "cap_net_bind_service", "cap_net_raw", "cap_setfcap", "cap_setgid",
        "cap_setpcap", "cap_setuid", "cap_sys_chroot",
    }
)  # fmt: skip
MAX_TEXT = 1024
MAX_LISTED = 500


class MountFacts(NamedTuple):
    """A mount point within a container; `source` is a path of the endpoint, or a volume's name."""

    target: str
    source: Optional[str]
    type: Optional[str]
    is_read_only: bool


class ContainerFacts(NamedTuple):
    """A container. `source` says by what it is known; `pid` is that of its first process, where it runs."""

    id: str
    runtime: str
    source: str
    name: Optional[str] = None
    image: Optional[str] = None
    digest: Optional[str] = None
    state: Optional[str] = None
    created: Optional[str] = None
    started: Optional[str] = None
    pid: int = 0
    user: Optional[str] = None
    is_privileged: Optional[bool] = None
    capabilities_added: Tuple[str, ...] = ()
    network: Optional[str] = None
    restart: Optional[str] = None
    is_read_only: Optional[bool] = None
    mounts: Tuple[MountFacts, ...] = ()
    environment: Tuple[str, ...] = ()
    pids: Tuple[int, ...] = ()
    namespace: Optional[str] = None
    shared: Tuple[str, ...] = ()


def merge(first: ContainerFacts, second: ContainerFacts) -> ContainerFacts:
    """Return what both sources know of one container; the first is believed where both do."""
    values = {}
    for field in ContainerFacts._fields:
        value = getattr(first, field)
        values[field] = getattr(second, field) if value in (None, (), 0, "") and value is not False else value
    return ContainerFacts(**values)


def bounded(text: Optional[str]) -> Optional[str]:
    """Return a text, cut where it is long; None where it is empty."""
    return text[:MAX_TEXT] if text else None


def names_only(environment: Tuple[str, ...]) -> Tuple[str, ...]:
    """Return the names of environment variables, without their values."""
    return tuple(sorted({entry.partition("=")[0][:MAX_TEXT] for entry in environment}))[:MAX_LISTED]


def added(capabilities: Tuple[str, ...]) -> Tuple[str, ...]:
    """Return the capabilities that a runtime does not give by itself, in lower case with `cap_`."""
    plain = {one.lower() for one in capabilities}
    named = {one if one.startswith("cap_") else f"cap_{one}" for one in plain}
    return tuple(sorted(one[:64] for one in named - USUAL_CAPABILITIES))[:MAX_LISTED]

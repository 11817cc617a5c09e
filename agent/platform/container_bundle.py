"""A container as its OCI bundle tells: the `config.json` that every runtime is started with.

Source: https://github.com/opencontainers/runtime-spec/blob/main/config.md; annotations as containerd's CRI
plugin, CRI-O and Podman write them.
"""

from typing import Dict, List, Optional

import msgspec

from agent.platform.container_facts import (
    MAX_LISTED,
    ContainerFacts,
    MountFacts,
    added,
    bounded,
    names_only,
)
from agent.scan.capabilities import NAMES

MAX_BYTES = 4 << 20
# Mounts that every container has, and that are nobody's files.
_OWN_TYPES = frozenset({"proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup", "cgroup2", "shm"})
_NAMES = ("io.kubernetes.cri.container-name", "io.kubernetes.cri-o.Name", "nerdctl/name", "io.podman.name")
_IMAGES = ("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image")
# As many capabilities were there when the first of the last ones came: who has all of those is privileged.
_LEAST_ALL = len(NAMES) - 4


class BadBundle(Exception):
    """The file is no configuration of a container."""


class _User(msgspec.Struct):
    uid: int = 0
    gid: int = 0
    username: Optional[str] = None


class _Capabilities(msgspec.Struct):
    bounding: Optional[List[str]] = None


class _Process(msgspec.Struct):
    user: Optional[_User] = None
    env: Optional[List[str]] = None
    capabilities: Optional[_Capabilities] = None


class _Root(msgspec.Struct):
    path: Optional[str] = None
    readonly: bool = False


class _Mount(msgspec.Struct):
    destination: str = ""
    type: Optional[str] = None
    source: Optional[str] = None
    options: Optional[List[str]] = None


class _Namespace(msgspec.Struct):
    type: str = ""
    path: Optional[str] = None


class _Seccomp(msgspec.Struct):
    """That there is one is all that is asked."""


class _Linux(msgspec.Struct):
    namespaces: Optional[List[_Namespace]] = None
    seccomp: Optional[_Seccomp] = None
    maskedPaths: Optional[List[str]] = None  # noqa: N815  (as the specification has it)


class _Spec(msgspec.Struct):
    process: Optional[_Process] = None
    root: Optional[_Root] = None
    mounts: Optional[List[_Mount]] = None
    linux: Optional[_Linux] = None
    annotations: Optional[Dict[str, str]] = None


def read_bundle(data: bytes, container: str, runtime: str) -> ContainerFacts:
    """Return what a configuration says of the container that is started with it.

    Raises:
        BadBundle: it is none.

    """
    try:
        spec = msgspec.json.decode(data, type=_Spec)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBundle(str(error)[:200]) from None
    notes = spec.annotations or {}
    process, linux = spec.process or _Process(), spec.linux or _Linux()
    bounding = tuple((process.capabilities.bounding or ()) if process.capabilities is not None else ())
    root = spec.root or _Root()
    return ContainerFacts(
        id=container,
        runtime=_runtime_of(notes, runtime),
        source="bundle",
        name=_first(notes, _NAMES),
        image=_first(notes, _IMAGES),
        created=bounded(notes.get("io.kubernetes.cri-o.Created")),
        user=_user_of(process.user),
        # As runtimes make it so: all capabilities, and neither a filter of system calls nor masked paths.
        is_privileged=len(set(bounding)) >= _LEAST_ALL and linux.seccomp is None and not linux.maskedPaths,
        capabilities_added=added(bounding),
        network=_network_of(linux),
        is_read_only=root.readonly,
        mounts=tuple(
            MountFacts(
                one.destination[:4096],
                bounded(one.source),
                bounded(one.type),
                "ro" in (one.options or ()),
            )
            for one in (spec.mounts or ())[:MAX_LISTED]
            if one.type not in _OWN_TYPES
        ),
        environment=names_only(tuple(process.env or ())),
    )


def _first(notes: Dict[str, str], names: "tuple[str, ...]") -> Optional[str]:
    return next((bounded(notes[name]) for name in names if notes.get(name)), None)


def _runtime_of(notes: Dict[str, str], runtime: str) -> str:
    if notes.get("io.container.manager") == "libpod":
        return "podman"
    return "cri-o" if runtime == "podman" and "io.kubernetes.cri-o.ContainerID" in notes else runtime


def _user_of(user: Optional[_User]) -> Optional[str]:
    if user is None:
        return None
    return bounded(user.username) or f"{user.uid}:{user.gid}"


def _network_of(linux: _Linux) -> Optional[str]:
    """Return `host`, `own`, or the path of the namespace that it joins."""
    for one in linux.namespaces or ():
        if one.type == "network":
            return bounded(one.path) or "own"
    return "host" if linux.namespaces is not None else None

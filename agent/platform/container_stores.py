"""Containers as runtimes keep them on disk: what containerd runs, and the stores of Podman and CRI-O.

Rules: nothing is locked and nothing is opened through a link at its end; what is read is bounded, and what
vanishes meanwhile is left out. Stores below the homes of users are theirs to forge: what stands there is what
they say.

Sources: containerd's runtime v2 (docs/runtime-v2.md: bundles below `io.containerd.runtime.v2.task`),
containers/storage (`containers.json`, docs/containers-storage.conf.5.md).
"""

import os
import stat
from pathlib import Path
from typing import Callable, Iterator, List, Optional

import msgspec

from agent.platform.container_bundle import MAX_BYTES, BadBundle, read_bundle
from agent.platform.container_facts import ContainerFacts, bounded, merge

_TASKS = (
    "run/containerd/io.containerd.runtime.v2.task",
    "run/docker/containerd/io.containerd.runtime.v2.task",
)
_STORES = ("var/lib/containers/storage", "run/containers/storage")
_HOME_STORE = ".local/share/containers/storage"
_KINDS = ("overlay-containers", "vfs-containers", "btrfs-containers")
_MAX_ENTRIES = 10_000
_PID_BYTES = 16

Lose = Callable[[str], None]


class _Metadata(msgspec.Struct):
    image_name: Optional[str] = msgspec.field(default=None, name="image-name")
    image_id: Optional[str] = msgspec.field(default=None, name="image-id")
    name: Optional[str] = None
    pod_id: Optional[str] = msgspec.field(default=None, name="pod-id")


class _Stored(msgspec.Struct):
    id: str
    names: Optional[List[str]] = None
    metadata: Optional[str] = None
    created: Optional[str] = None


def stored_containers(root: str, homes: "tuple[str, ...]", lose: Lose) -> Iterator[ContainerFacts]:
    """Yield what the runtimes keep below a root; `homes` are directories of users, as seen from there."""
    base = Path(root)
    for place in _TASKS:
        yield from _tasks(base / place, lose)
    stores = [base / place for place in _STORES[:1]]
    stores += [base / home.lstrip("/") / _HOME_STORE for home in homes]
    for store in stores:
        for kind in _KINDS:
            yield from _store(store / kind, base / _STORES[1] / kind, lose)


def _tasks(base: Path, lose: Lose) -> Iterator[ContainerFacts]:
    """Yield what containerd runs: a directory for each namespace, and in it a bundle for each container."""
    for namespace in _entries(base):
        for bundle in _entries(namespace):
            data = _read(bundle / "config.json", lose)
            if data is None:
                continue
            runtime = "docker" if namespace.name == "moby" else "containerd"
            try:
                facts = read_bundle(data, bundle.name[:128], runtime)
            except BadBundle as bad:
                lose(f"{bundle / 'config.json'}: {bad}")
                continue
            yield facts._replace(pid=_pid(bundle / "init.pid"))


def _store(base: Path, running: Path, lose: Lose) -> Iterator[ContainerFacts]:
    data = _read(base / "containers.json", lose)
    if data is None:
        return
    try:
        listed = msgspec.json.decode(data, type=List[_Stored])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        lose(f"{base / 'containers.json'}: {str(error)[:200]}")
        return
    for one in listed[:_MAX_ENTRIES]:
        # It becomes a part of paths: nothing but an id may.
        if one.id.isalnum():
            yield _stored(one, base / one.id / "userdata", running / one.id / "userdata", lose)


def _stored(one: _Stored, kept: Path, running: Path, lose: Lose) -> ContainerFacts:
    try:
        more = msgspec.json.decode(one.metadata or "{}", type=_Metadata)
    except (msgspec.MsgspecError, RecursionError):
        more = _Metadata()
    facts = ContainerFacts(
        id=one.id[:128],
        runtime="cri-o" if more.pod_id else "podman",
        source="store",
        name=bounded(more.name or next(iter(one.names or ()), None)),
        image=bounded(more.image_name),
        digest=bounded(f"sha256:{more.image_id}" if more.image_id else None),
        created=bounded(one.created),
        pid=_pid(running / "pidfile") or _pid(kept / "pidfile"),
    )
    for place in (running, kept):
        data = _read(place / "config.json", lose)
        if data is None:
            continue
        try:
            return merge(facts, read_bundle(data, facts.id, facts.runtime))
        except BadBundle as bad:
            lose(f"{place / 'config.json'}: {bad}")
    return facts


def _entries(directory: Path) -> List[Path]:
    try:
        found = sorted(entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    return [Path(path) for path in found[:_MAX_ENTRIES]]


def _read(path: Path, lose: Lose) -> Optional[bytes]:
    """Return a file's bytes; None where there is none, or none that may be read so."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        lose(f"{path}: {error.strerror}")
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            lose(f"{path}: is no file of a container's size")
            return None
        return os.read(descriptor, MAX_BYTES)
    except OSError as error:
        lose(f"{path}: {error.strerror}")
        return None
    finally:
        os.close(descriptor)


def _pid(path: Path) -> int:
    """Return the number in a file of a runtime; 0 where there is none."""
    data = _read(path, lambda _: None) or b""
    text = data[:_PID_BYTES].strip()
    return int(text) if text.isdigit() else 0

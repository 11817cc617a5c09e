"""Packages that come as images: snaps and flatpaks. What is in them is checked by their own systems.

Sources: snapcraft.io/docs, "The snap format" and snapd's state.json; docs.flatpak.org, "Under the hood"
(installations, branches, `active`); freedesktop.org, AppStream metadata (`releases`).
"""

import json
import re
from typing import Any, Dict, Iterator, List, Optional

from agent.platform.packages import Package, field_text
from agent.platform.packages_languages import read_homes
from agent.platform.rooted import Rooted

_SNAP_STATE = b"/var/lib/snapd/state.json"
_SNAP_MOUNTS = (b"/snap", b"/var/lib/snapd/snap")
_MOST_BYTES = 4 << 20
_FLATPAK = b"/var/lib/flatpak"
_FLATPAK_OF_USER = b"/.local/share/flatpak"
# AppStream lists the newest release first. Bounded, or a file of nothing but openings would take for ever.
_RELEASE = re.compile(rb"<release\b[^>]{0,400}?\bversion=[\"']([^\"'<>]{1,100})[\"']")
_COMMIT_DIGITS = 12


def read_snaps(files: Rooted) -> Iterator[Package]:
    """Yield the snaps that snapd knows; where it keeps no state, those that are mounted."""
    data = files.read(_SNAP_STATE)
    if data is None:
        yield from _mounted_snaps(files)
        return
    try:
        snaps = json.loads(data.decode("utf-8", "replace"))["data"]["snaps"]
        items = list(snaps.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        files.lose(_SNAP_STATE, "is not what snapd writes")
        return
    for name, snap in items:
        if isinstance(snap, dict) and isinstance(name, str):
            yield _snap(
                files, name.encode("utf-8", "replace"), _revision(snap), is_active=bool(snap.get("active"))
            )


def _revision(snap: Dict[str, Any]) -> bytes:
    current = snap.get("current")
    return str(current).encode("utf-8", "replace")[:32] if isinstance(current, (str, int)) else b""


def _mounted_snaps(files: Rooted) -> Iterator[Package]:
    for mount in _SNAP_MOUNTS:
        for entry in files.list(mount):
            revision = files.link(mount + b"/" + entry.name + b"/current")
            if entry.is_directory and revision is not None:
                yield _snap(files, entry.name, revision, is_active=True)


def _snap(files: Rooted, name: bytes, revision: bytes, *, is_active: bool) -> Package:
    facts: Dict[bytes, bytes] = {}
    for mount in _SNAP_MOUNTS:
        if b"/" not in name + revision and not facts:
            path = b"/".join((mount, name, revision, b"meta/snap.yaml"))
            facts = _top_level(files.read(path, _MOST_BYTES) or b"")
    return Package(
        type="snap",
        name=field_text(name),
        # A snap that is switched off is not mounted, and its version stands nowhere else.
        version=field_text(facts.get(b"version", b"")),
        state=None if is_active else "disabled",
        revision=field_text(revision) or None,
        path=b"/".join((_SNAP_MOUNTS[0], name)),
    )


def _top_level(data: bytes) -> Dict[bytes, bytes]:
    """Return the plain values at the top of a YAML document; snapd's own are written so."""
    facts: Dict[bytes, bytes] = {}
    for line in data.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon and name and not name[:1].isspace() and value.strip():
            facts.setdefault(name, value.strip().strip(b"'\""))
    return facts


def read_flatpaks(files: Rooted) -> Iterator[Package]:
    """Yield the applications and runtimes of flatpak, of the system and of people."""
    homes: List[bytes] = [_FLATPAK, *(home + _FLATPAK_OF_USER for home in read_homes(files))]
    for home in homes:
        for kind in (b"app", b"runtime"):
            for place in files.expand(b"/" + kind + b"/*/*/*", below=home):
                active = files.link(place + b"/active")
                if active is not None:
                    yield _flatpak(files, place, active)


def _flatpak(files: Rooted, place: bytes, active: bytes) -> Package:
    name, arch, branch = place.split(b"/")[-3:]
    return Package(
        type="flatpak",
        name=field_text(name),
        version=_release(files, place, name) or field_text(branch),
        arch=field_text(arch),
        revision=field_text(active.rpartition(b"/")[2][:_COMMIT_DIGITS]) or None,
        path=place,
    )


def _release(files: Rooted, place: bytes, name: bytes) -> Optional[str]:
    shared = place + b"/active/files/share/"
    for file in (b"metainfo/" + name + b".metainfo.xml", b"appdata/" + name + b".appdata.xml"):
        found = _RELEASE.search(files.read(shared + file, _MOST_BYTES) or b"")
        if found is not None:
            return field_text(found[1])
    return None

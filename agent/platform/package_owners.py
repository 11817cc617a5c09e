"""Which package put a file there, by the databases of dpkg, rpm and apk.

The databases are read once, when the first file is asked for; then a file costs a look into a dictionary.
Paths are as the databases have them, which need not be where files lie today: on a system whose /bin and /lib
are links into /usr a package may own /lib/x that is found as /usr/lib/x. Both names are asked for.

A file that dpkg was told to divert belongs under its new name to the package whose file it is, and under the
old one to the package that diverts it.

Sources: dpkg(1), section FILES; dpkg-divert(1); the formats that `agent.platform.packages_rpm` and
`agent.platform.packages_apk` name.
"""

import os
from typing import Callable, Dict, List, Optional, Tuple, Union

from agent.platform.rooted import Rooted

_DPKG = b"/var/lib/dpkg"
# Directories of the root that are links into /usr on systems that were merged (file-hierarchy(7)).
_MERGED = (b"/bin/", b"/sbin/", b"/lib/", b"/lib32/", b"/lib64/", b"/libx32/", b"/libexec/")


class PackageOwners:
    """Knows the owner of each packaged file of one system.

    Args:
        root: where that system's `/` lies.
        files: how to read it, where the caller has a way of its own; then `root` has no meaning.
        check: called in long loops; may raise.

    """

    def __init__(
        self, root: str = "/", *, files: Optional[Rooted] = None, check: Callable[[], None] = lambda: None
    ) -> None:
        self._files = files or Rooted(root)
        self._check = check
        self._owners: Optional[Dict[bytes, str]] = None

    def owner(self, path: Union[str, bytes]) -> Optional[str]:
        """Return the name of the package that owns a file or directory; None where no package does."""
        if self._owners is None:
            self._owners = self._load()
        name = os.fsencode(path)
        for candidate in _names(name):
            found = self._owners.get(candidate)
            if found is not None:
                return found
        return None

    def has_databases(self) -> bool:
        """Tell whether there is any database: without one, that nobody owns a file means nothing."""
        if self._owners is None:
            self._owners = self._load()
        return bool(self._owners)

    def _load(self) -> Dict[bytes, str]:
        owners: Dict[bytes, str] = {}
        self._load_dpkg(owners)
        return owners

    def _load_dpkg(self, owners: Dict[bytes, str]) -> None:
        diversions = self._diversions()
        for name, path, is_sums in self._dpkg_lists():
            self._check()
            data = self._files.read(path)
            for line in (data or b"").split(b"\n"):
                # `md5sums` of an image without dpkg: a digest, two blanks, a path without its first slash.
                file = b"/" + line[34:] if is_sums else line
                if len(file) > 1:
                    moved = diversions.get(file)
                    if moved is not None and moved[1] != name:
                        file = moved[0]
                    owners.setdefault(file, name)

    def _dpkg_lists(self) -> List[Tuple[str, bytes, bool]]:
        """Return the files that list packages' files: name of the package, path, whether it has digests."""
        found: List[Tuple[str, bytes, bool]] = []
        for directory, suffix in ((_DPKG + b"/info", b".list"), (_DPKG + b"/status.d", b".md5sums")):
            for entry in self._files.list(directory):
                if entry.name.endswith(suffix):
                    # `libc6:amd64.list` where several architectures can be installed side by side.
                    name = entry.name[: -len(suffix)].partition(b":")[0].decode("ascii", "backslashreplace")
                    found.append((name, directory + b"/" + entry.name, suffix == b".md5sums"))
        return found

    def _diversions(self) -> Dict[bytes, Tuple[bytes, str]]:
        """Return for each diverted path its new name and the package that diverts it (`:` for the admin)."""
        lines = (self._files.read(_DPKG + b"/diversions") or b"").split(b"\n")
        triples = zip(lines[::3], lines[1::3], lines[2::3])
        return {old: (new, package.decode("ascii", "backslashreplace")) for old, new, package in triples}


def _names(path: bytes) -> List[bytes]:
    """Return the names under which a database may have a path."""
    if path.startswith(b"/usr/") and path[4:].startswith(_MERGED):
        return [path, path[4:]]
    if path.startswith(_MERGED):
        return [path, b"/usr" + path]
    return [path]

"""Which package put a file there, by the databases of dpkg, rpm and apk.

The databases are read once, when the first file is asked for; then a file costs a look into a dictionary.
Paths are as the databases have them, which need not be where files lie today: on a system whose /bin and /lib
are links into /usr a package may own /lib/x that is found as /usr/lib/x. Both names are asked for.

A file that dpkg was told to divert belongs under its new name to the package whose file it is, and under the
old one to the package that diverts it.

Sources: those of `agent.platform.packages_dpkg`, `agent.platform.packages_rpm` and
`agent.platform.packages_apk`.
"""

import os
from typing import Callable, Dict, List, Optional, Union

from agent.platform.packages_apk import ApkDatabase
from agent.platform.packages_dpkg import DpkgDatabase
from agent.platform.packages_rpm import RpmDatabase
from agent.platform.rooted import Rooted

_PATHS_PER_CHECK = 1024
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
        databases = (
            DpkgDatabase(self._files),
            RpmDatabase(self._files, self._check),
            ApkDatabase(self._files),
        )
        for database in databases:
            for count, (package, path) in enumerate(database.owned()):
                if not count % _PATHS_PER_CHECK:
                    self._check()
                owners.setdefault(path, package)
        return owners


def _names(path: bytes) -> List[bytes]:
    """Return the names under which a database may have a path."""
    if path.startswith(b"/usr/") and path[4:].startswith(_MERGED):
        return [path, path[4:]]
    if path.startswith(_MERGED):
        return [path, b"/usr" + path]
    return [path]

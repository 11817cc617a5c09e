"""All packages of a system, whatever installed them, and what each one's files should be."""

from typing import Callable, Dict, Iterator, Optional, Tuple

from agent.platform import packages_languages
from agent.platform.packages import Expected, Package
from agent.platform.packages_apk import ApkDatabase
from agent.platform.packages_dpkg import DpkgDatabase, is_removed
from agent.platform.packages_images import read_flatpaks, read_snaps
from agent.platform.packages_rpm import RpmDatabase
from agent.platform.rooted import Rooted

TYPES = ("dpkg", "rpm", "apk", "snap", "flatpak", "pip", "npm", "gem")
# Those that keep no digests of their files.
WITHOUT_MANIFEST = ("snap", "flatpak", "npm", "gem")
_LANGUAGES = ("pip", "npm", "gem")


class PackageSources:
    """The packages of one system, by type.

    Args:
        files: of that system.
        check: called in long loops; may raise.

    """

    def __init__(self, files: Rooted, check: Callable[[], None] = lambda: None) -> None:
        self._files = files
        self._check = check
        self._dpkg = DpkgDatabase(files)
        self._rpm = RpmDatabase(files, check)
        self._apk = ApkDatabase(files)
        self.removed = 0

    def packages(self, types: Tuple[str, ...]) -> Iterator[Package]:
        """Yield the packages of the types wanted; those that were removed are only counted, in `removed`."""
        readers: Dict[str, Callable[[], Iterator[Package]]] = {
            "dpkg": self._dpkg.packages,
            "rpm": self._rpm.packages,
            "apk": self._apk.packages,
            "snap": lambda: read_snaps(self._files),
            "flatpak": lambda: read_flatpaks(self._files),
        }
        for name, read in readers.items():
            if name in types:
                for package in read():
                    if is_removed(package):
                        self.removed += 1
                    else:
                        yield package
        languages = tuple(name for name in _LANGUAGES if name in types)
        if languages:
            yield from packages_languages.read_packages(self._files, languages, self._check)

    def expected(self, package: Package) -> Optional[Iterator[Expected]]:
        """Return what should be there of the package that was yielded last; None where nothing says that."""
        if package.type == "dpkg":
            return self._dpkg.expected(package)
        if package.type == "rpm":
            return self._rpm.expected(package)
        if package.type == "apk":
            return self._apk.expected(package)
        return packages_languages.read_expected(self._files, package)

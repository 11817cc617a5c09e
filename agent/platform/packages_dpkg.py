"""Packages that dpkg installed, and what their files should be.

Of an image that was built without dpkg (distroless) each package has a file of its own below `status.d`.

dpkg keeps MD5 digests of the files of most packages and of the configuration files that it installed; no
modes, owners or sizes. Of a file without a digest it is only known that it should be there. What the system's
configuration told dpkg to leave out is not expected, nor is a file of another package's that was diverted.

Sources: dpkg(1), dpkg-query(1), deb-md5sums(5), dpkg.cfg(5), dpkg-divert(1).
"""

from typing import Dict, Iterator, List, Optional, Tuple

from agent.platform.packages import Expected, Package, field_text, name_and_version, number, stanzas
from agent.platform.rooted import Rooted
from agent.scan.globs import NameGlob

_HOME = b"/var/lib/dpkg"
STATUS = _HOME + b"/status"
STATUS_PARTS = _HOME + b"/status.d"
_INFO = _HOME + b"/info/"
_HEX = frozenset(b"0123456789abcdef")
_MD5_DIGITS = 32
# States in which nothing of a package but its configuration is on the disk.
_REMOVED = ("config-files", "not-installed")


def _package(fields: Dict[bytes, bytes], files: Rooted) -> Optional[Package]:
    named = name_and_version(fields)
    if named is None:
        return None
    # "install ok installed": what is wanted, whether something is wrong, and what is.
    state = fields.get(b"status", b"").split()
    text = field_text(state[-1]) if state else "unknown"
    key = _INFO + fields[b"package"]
    arch = fields.get(b"architecture", b"")
    if fields.get(b"multi-arch") == b"same" and arch:
        key += b":" + arch
    status = files.status(key + b".list")
    made = _make(fields, named, None if text == "installed" else text, key=key)
    return made._replace(installed_s=int(status.st_mtime) if status is not None else None)


def _make(fields: Dict[bytes, bytes], named: Tuple[str, str], state: Optional[str], key: bytes) -> Package:
    source = fields.get(b"source", b"").partition(b" ")[0]
    kilobytes = number(fields.get(b"installed-size"))
    return Package(
        type="dpkg",
        name=named[0],
        version=named[1],
        arch=field_text(fields[b"architecture"]) if b"architecture" in fields else None,
        source=field_text(source) if source else None,
        state=state,
        size_bytes=kilobytes << 10 if kilobytes is not None else None,
        key=key,
    )


class DpkgDatabase:
    """The packages of one system; what concerns manifests is read when the first is asked for."""

    def __init__(self, files: Rooted) -> None:
        self._files = files
        self._conffiles: Optional[Dict[str, List[Tuple[bytes, str]]]] = None
        self._diverted: Dict[bytes, Tuple[bytes, str]] = {}
        self._left_out = _LeftOut()

    def packages(self) -> Iterator[Package]:
        """Yield the packages; those that were removed, and left their configuration, have that state."""
        for fields in stanzas(self._files.read(STATUS) or b""):
            package = _package(fields, self._files)
            if package is not None:
                yield package
        for entry in self._files.list(STATUS_PARTS):
            if entry.is_directory or entry.name.endswith(b".md5sums"):
                continue
            for fields in stanzas(self._files.read(STATUS_PARTS + b"/" + entry.name) or b""):
                named = name_and_version(fields)
                if named is not None:
                    yield _make(fields, named, None, key=STATUS_PARTS + b"/" + entry.name)

    def owned(self) -> Iterator[Tuple[str, bytes]]:
        """Yield each file and directory with the name of its package, as it lies after diversions."""
        diverted = read_diversions(self._files)
        for directory, suffix in ((_INFO, b".list"), (STATUS_PARTS + b"/", b".md5sums")):
            for entry in self._files.list(directory):
                if not entry.name.endswith(suffix):
                    continue
                # `libc6:amd64.list` where several architectures can be installed side by side.
                package = field_text(entry.name[: -len(suffix)].partition(b":")[0])
                for line in (self._files.read(directory + entry.name) or b"").split(b"\n"):
                    path = line if suffix == b".list" else b"/" + line[_MD5_DIGITS + 2 :]
                    if len(path) > 1:
                        yield package, _diverted(diverted, path, package)

    def expected(self, package: Package) -> Optional[Iterator[Expected]]:
        """Return what should be there of a package; None where it has no list of its files."""
        if self._conffiles is None:
            self._conffiles = {
                _identity(fields): list(_conffiles(fields[b"conffiles"]))
                for fields in stanzas(self._files.read(STATUS) or b"")
                if b"conffiles" in fields and b"package" in fields
            }
            self._diverted = read_diversions(self._files)
            self._left_out = _LeftOut(self._files)
        sums = self._files.read(package.key + b".md5sums")
        listed = self._files.read(package.key + b".list")
        if sums is None and listed is None:
            return None
        conffiles = self._conffiles.get(f"{package.name}:{package.arch or ''}", [])
        return self._expected(package, conffiles, sums or b"", listed or b"")

    def _expected(
        self, package: Package, conffiles: List[Tuple[bytes, str]], sums: bytes, listed: bytes
    ) -> Iterator[Expected]:
        told = set()
        for path, digest in conffiles:
            told.add(path)
            yield Expected(path, "file", "md5", digest, is_config=True)
        for line in sums.split(b"\n"):
            text, path = line[:_MD5_DIGITS], b"/" + line[_MD5_DIGITS + 2 :]
            if len(path) > 1 and _is_digest(text) and path not in told and not self._left_out.covers(path):
                told.add(path)
                place = _diverted(self._diverted, path, package.name)
                yield Expected(place, "file", "md5", text.decode("ascii"))
        for path in listed.split(b"\n"):
            if path.startswith(b"/") and path not in told and not self._left_out.covers(path):
                yield Expected(_diverted(self._diverted, path, package.name))


def is_removed(package: Package) -> bool:
    """Tell whether a package is known and not installed."""
    return package.state in _REMOVED


def _identity(fields: Dict[bytes, bytes]) -> str:
    return f"{field_text(fields[b'package'])}:{field_text(fields.get(b'architecture', b''))}"


def _conffiles(value: bytes) -> Iterator[Tuple[bytes, str]]:
    for line in value.split(b"\n"):
        words = line.split(b" ")
        # "/etc/x DIGEST", or behind it "obsolete" or "remove-on-upgrade": such need not be there any more.
        if len(words) == 2 and words[0].startswith(b"/") and _is_digest(words[1]):  # noqa: PLR2004
            yield words[0], words[1].decode("ascii")


def _is_digest(text: bytes) -> bool:
    return len(text) == _MD5_DIGITS and _HEX.issuperset(text)


def read_diversions(files: Rooted) -> Dict[bytes, Tuple[bytes, str]]:
    """Return for each diverted path its new name, and who diverts it: a package, or `:` for a person."""
    lines = (files.read(_HOME + b"/diversions") or b"").split(b"\n")
    triples = zip(lines[::3], lines[1::3], lines[2::3])
    return {old: (new, field_text(package)) for old, new, package in triples}


def _diverted(diverted: Dict[bytes, Tuple[bytes, str]], path: bytes, package: str) -> bytes:
    """Return where a file of a package lies: elsewhere, where somebody else diverted it."""
    new, by = diverted.get(path, (path, package))
    return path if by == package else new


class _LeftOut:
    """Paths that dpkg was configured not to unpack: the last pattern that fits decides (dpkg(1))."""

    def __init__(self, files: Optional[Rooted] = None) -> None:
        self._patterns: List[Tuple[NameGlob, bool]] = []
        if files is None:
            return
        names = [b"/etc/dpkg/dpkg.cfg"]
        names += [b"/etc/dpkg/dpkg.cfg.d/" + entry.name for entry in files.list(b"/etc/dpkg/dpkg.cfg.d")]
        for name in names:
            for line in (files.read(name) or b"").split(b"\n"):
                option, _, value = line.strip().lstrip(b"-").replace(b" ", b"=", 1).partition(b"=")
                if option in (b"path-exclude", b"path-include") and value.strip():
                    # As fnmatch(3) is asked there, `*` also goes over slashes.
                    self._patterns.append((NameGlob(value.strip(b" =\"'")), option == b"path-exclude"))

    def covers(self, path: bytes) -> bool:
        is_out = False
        for glob, leaves_out in self._patterns:
            if leaves_out != is_out and glob.matches(path):
                is_out = leaves_out
        return is_out

"""Packages of Python, Node.js and Ruby: where their installers put them, or among files that were found.

There is no database of these: what is looked into are the directories in which interpreters of the system, of
/usr/local, of /opt and of people's homes look, and whatever else somebody walks and asks `package_at` about.

Sources: packaging.python.org, "Recording installed projects" (METADATA, RECORD) and the egg-info that came
before it; npm's documentation, "package.json"; RubyGems guides, "Specification reference".
"""

import base64
import binascii
import csv
import json
import re
from typing import Callable, Dict, Iterator, List, Optional, Tuple

from agent.platform.packages import Expected, Package, field_text, name_and_version, number, stanzas
from agent.platform.rooted import Rooted

_MOST_BYTES = 4 << 20
_MOST_PATH = 4096
_HOME = 5  # passwd(5)
_PREFIXES = (b"/usr", b"/usr/local", b"/opt/*", b"~/.local", b"~/.pyenv/versions/*")
_PYTHON_PLACES = (
    *(
        prefix + b"/lib/python*/" + kind
        for prefix in _PREFIXES
        for kind in (b"site-packages", b"dist-packages")
    ),
    b"/usr/lib64/python*/site-packages",
    b"/usr/local/lib64/python*/site-packages",
)
_NODE_PLACES = (
    b"/usr/lib/node_modules",
    b"/usr/local/lib/node_modules",
    b"/usr/share/nodejs",
    b"/opt/*/lib/node_modules",
    b"~/.nvm/versions/node/*/lib/node_modules",
    b"~/.npm-global/lib/node_modules",
)
_RUBY_HOMES = (
    b"/var/lib/gems/*",
    b"/usr/lib/ruby/gems/*",
    b"/usr/lib64/ruby/gems/*",
    b"/usr/share/gems",
    b"/usr/share/rubygems-integration/*",
    b"/usr/local/lib/ruby/gems/*",
    b"/usr/local/bundle",
    b"/usr/local/share/gems",
    b"/opt/*/lib/ruby/gems/*",
    b"~/.gem/ruby/*",
    b"~/.local/share/gem/ruby/*",
    b"~/.rbenv/versions/*/lib/ruby/gems/*",
    b"~/.rvm/gems/*",
)
_GEM_FILE = re.compile(rb"(.+)-([0-9][0-9A-Za-z.]*)(?:-(.+))?\.gemspec\Z", re.DOTALL)
# Which files a walk has to show to `package_at`.
MARKS = r"^(METADATA|PKG-INFO|package\.json)$|\.(egg-info|gemspec)$"
_RECORD_FIELDS = 3
_Reader = Callable[[Rooted, bytes], Iterator[Package]]
_RECORD_ALGORITHMS = ("sha256", "sha384", "sha512")


def read_homes(files: Rooted) -> List[bytes]:
    """Return the home directories of the accounts, each once."""
    lines = (files.read(b"/etc/passwd") or b"").split(b"\n")
    homes = [line.split(b":")[_HOME] for line in lines if line.count(b":") > _HOME]
    homes += files.expand(b"/home/*")
    return list(dict.fromkeys(home for home in homes if home.startswith(b"/") and home.strip(b"/")))


def read_packages(files: Rooted, types: Tuple[str, ...], check: Callable[[], None]) -> Iterator[Package]:
    """Yield the packages of the types wanted (pip, npm, gem) in the usual places."""
    readers: Dict[str, Tuple[Tuple[bytes, ...], _Reader]] = {
        "pip": (_PYTHON_PLACES, _python),
        "npm": (_NODE_PLACES, _node),
        "gem": (_RUBY_HOMES, _ruby),
    }
    homes = read_homes(files)
    for name, (patterns, read) in readers.items():
        if name not in types:
            continue
        seen = set()
        for place in _places(files, patterns, homes):
            real = files.inside(place)
            if real not in seen:
                seen.add(real)
                for package in read(files, place):
                    check()
                    yield package


def _places(files: Rooted, patterns: Tuple[bytes, ...], homes: List[bytes]) -> Iterator[bytes]:
    for pattern in patterns:
        if pattern.startswith(b"~"):
            for home in homes:
                yield from files.expand(pattern[1:], below=home)
        else:
            yield from files.expand(pattern)


def _python(files: Rooted, place: bytes) -> Iterator[Package]:
    for entry in files.list(place):
        path = place + b"/" + entry.name
        if entry.name.endswith(b".dist-info"):
            yield from _one(package_at(files, path + b"/METADATA"))
        elif entry.name.endswith(b".egg-info"):
            yield from _one(package_at(files, path + b"/PKG-INFO" if entry.is_directory else path))
        elif entry.name.endswith(b".egg") and entry.is_directory:
            yield from _one(package_at(files, path + b"/EGG-INFO/PKG-INFO"))


def _node(files: Rooted, place: bytes) -> Iterator[Package]:
    # Links may lead round in circles: each directory is looked into once, under the first of its names.
    seen = set()
    pending = [place]
    while pending:
        directory = pending.pop()
        real = files.inside(directory)
        if real in seen or len(directory) > _MOST_PATH:
            continue
        seen.add(real)
        for entry in files.list(directory):
            path = directory + b"/" + entry.name
            if not (entry.is_directory or entry.is_link):
                continue
            if entry.name.startswith(b"@"):
                pending.append(path)
                continue
            yield from _one(package_at(files, path + b"/package.json"))
            if entry.is_directory:
                pending.append(path + b"/node_modules")


def _ruby(files: Rooted, place: bytes) -> Iterator[Package]:
    for directory in (place + b"/specifications", place + b"/specifications/default"):
        for entry in files.list(directory):
            if entry.name.endswith(b".gemspec"):
                yield from _one(package_at(files, directory + b"/" + entry.name))


def _one(package: Optional[Package]) -> Iterator[Package]:
    if package is not None:
        yield package


def package_at(files: Rooted, path: bytes) -> Optional[Package]:
    """Return the package that a file tells of, by its name and what is in it; None where it tells of none."""
    directory, _, name = path.rpartition(b"/")
    if name == b"package.json":
        return _node_package(files, path)
    if name.endswith(b".gemspec"):
        return _ruby_package(path, directory, name)
    kind = directory.rpartition(b"/")[2]
    is_meta = name == b"METADATA" and kind.endswith(b".dist-info")
    is_egg = name.endswith(b".egg-info") or (
        name == b"PKG-INFO" and kind.endswith((b".egg-info", b"EGG-INFO"))
    )
    if not (is_meta or is_egg):
        return None
    for fields in stanzas(files.read(path, _MOST_BYTES) or b""):
        named = name_and_version(fields)
        # The first paragraph are the fields, the rest is a description.
        return Package("pip", *named, path=path, key=directory if is_meta else b"") if named else None
    return None


def _node_package(files: Rooted, path: bytes) -> Optional[Package]:
    data = files.read(path, _MOST_BYTES)
    if data is None:
        return None
    try:
        document = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        files.lose(path, f"is no JSON: {error}"[:200])
        return None
    name, version = (
        (document.get("name"), document.get("version")) if isinstance(document, dict) else ("", "")
    )
    if not (isinstance(name, str) and isinstance(version, str) and name and version):
        return None
    texts = [field_text(text.encode("utf-8", "replace")) for text in (name, version)]
    return Package("npm", texts[0], texts[1], path=path)


def _ruby_package(path: bytes, directory: bytes, name: bytes) -> Optional[Package]:
    form = _GEM_FILE.match(name)
    if form is None or b"specifications" not in directory.split(b"/")[-2:]:
        return None
    gem, version, platform = form.groups()
    arch = field_text(platform) if platform else None
    return Package("gem", field_text(gem), field_text(version), arch=arch, path=path)


def read_expected(files: Rooted, package: Package) -> Optional[Iterator[Expected]]:
    """Return what should be there of a Python package; None where nothing records that."""
    if package.type != "pip" or not package.key:
        return None
    data = files.read(package.key + b"/RECORD", _MOST_BYTES)
    return _recorded(package.key.rpartition(b"/")[0], data) if data is not None else None


def _recorded(place: bytes, data: bytes) -> Iterator[Expected]:
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    for row in csv.reader(line for line in lines if "\0" not in line):
        if len(row) != _RECORD_FIELDS or not row[1]:
            # What is compiled when it is first used has no digest, nor has the record itself.
            continue
        algorithm, _, text = row[1].partition("=")
        digest = _decoded(text)
        path = row[0].encode("utf-8", "surrogateescape")
        if algorithm in _RECORD_ALGORITHMS and digest is not None:
            size = number(row[2].encode("utf-8", "surrogateescape"))
            whole = path if path.startswith(b"/") else place + b"/" + path
            yield Expected(whole, "file", algorithm, digest, size_bytes=size)


def _decoded(text: str) -> Optional[str]:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex() or None
    except (binascii.Error, ValueError):
        return None

"""List installed packages by name and version, and tell which of their files are not what was installed.

Every package that satisfies all filters is a record; without a filter, all are. With `verify` the records are
files instead: those of the chosen packages that are missing or differ from the manifest, with what differs.
`found` means that there is such a package or file.

Versions compare by the rules of the system that a package belongs to: `<1.2.3-4` or `>=2.0,<2.4-1`, several
expressions being alternatives. dpkg and rpm compare epochs first: where a version has one and the expression
does not, that is noted. What cannot be compared, since one of the two is no version there, is no match; it is
counted and noted. Of rpm's versions the release is compared only where the expression has one.

Databases are read as data and no tool of the endpoint is run: dpkg, rpm (SQLite, ndb, Berkeley DB), apk,
snapd and flatpak; Python (pip), Node.js (npm) and Ruby (gem) packages in the directories of the system, of
/usr/local, of /opt and of people's homes, and below `paths`. `root` names another system's root directory,
such as a mounted image. A package that dpkg removed and of which configuration is left is not there.

Manifests lie beside what they describe: that a file is as its manifest says is worth as much as the database.
dpkg keeps digests alone; rpm sizes, modes, owners, times and link targets too; apk modes and owners; pip
digests and sizes. Snap, flatpak, npm and gem keep none. Configuration files, which are meant to be changed,
are left out of `verify` unless `config` is given.

Statistics: `packages_seen`, `files_seen` and `bytes_read` of `verify`, `not_compared`, `skipped` by reason,
`errors`.
"""

import time
from collections import Counter
from typing import Annotated, Any, Dict, Iterator, List, Literal, Optional, Tuple, get_args

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.platform.package_sources import WITHOUT_MANIFEST, PackageSources
from agent.platform.package_verify import Verifier
from agent.platform.packages import Expected, Package
from agent.platform.packages_languages import MARKS, package_at
from agent.platform.rooted import Rooted
from agent.platform.versions import VersionRange
from agent.scan.coverage import Coverage
from agent.scan.fence import Fence
from agent.scan.patterns import require_engine, require_pattern, split_inverse
from agent.scan.plain_flags import plain_flags, plural_parameters
from agent.scan.plan import make_plan
from agent.scan.process_checks import TextFilter
from agent.scan.scan import scan
from agent.scan.search import Options, Regex, RootPath, Search
from agent.scan.texts import path_base64, path_text, time_text

PATHS = ("root", "paths")
PLATFORMS = ("linux", "darwin")
EXAMPLES = (
    "mig pkg --name '^openssh-server$' --version '<1:9.2p1-2+deb12u3'   who still has the hole",
    "mig pkg --name '^liblzma5$|^xz-libs$' --version '>=5.6.0,<5.6.2'   a version between two others",
    "mig pkg --name '^lodash$' --type npm --path /srv --version '<4.17.21'   in applications, too",
    "mig pkg --name '^(coreutils|openssh-server|sudo)$' --verify   programs that are not what was installed",
    "mig pkg --type rpm --root /mnt/image --name '^kernel-core$'   in a mounted image",
)
Type = Literal["dpkg", "rpm", "apk", "snap", "flatpak", "pip", "npm", "gem"]
Expression = Annotated[str, Meta(min_length=2, max_length=512)]
_NAMED = 5
_SINGULAR = {
    "names": "name",
    "sources": "source",
    "versions": "version",
    "version_patterns": "version_pattern",
    "types": "type",
    "paths": "path",
}
_PACKAGES_PER_PROGRESS = 50


class Params(ModuleParams, frozen=True, kw_only=True):
    """Which packages to tell of; all filters must hold, several values of one are alternatives."""

    names: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on the name; a leading ! leaves out", max_length=1000),
    ] = ()
    sources: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on the name of the source package that it was built from,"
            " or on its own where none is known; a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    versions: Annotated[
        Tuple[Expression, ...],
        Meta(description="version expressions such as <1.2.3-4 or >=2.0,<2.4, any of them", max_length=1000),
    ] = ()
    version_patterns: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on the version; a leading ! leaves out", max_length=1000),
    ] = ()
    types: Annotated[
        Tuple[Type, ...],
        Meta(description="dpkg rpm apk snap flatpak pip npm gem, any of them; without it all", max_length=8),
    ] = ()
    paths: Annotated[
        Tuple[RootPath, ...],
        Meta(
            description="directories below which to look for further Python, Node.js and Ruby packages",
            max_length=100,
        ),
    ] = ()
    root: Annotated[
        RootPath, Meta(description="root directory of the system to look at, such as a mounted image")
    ] = "/"
    verify: Annotated[
        bool, Meta(description="tell which files of the packages differ from their manifest")
    ] = False
    config: Annotated[bool, Meta(description="with verify: tell of configuration files, too")] = False

    def __post_init__(self) -> None:
        """Refuse expressions that are none; msgspec turns the ValueError into its own error."""
        for field in ("names", "sources", "version_patterns"):
            for expression in getattr(self, field):
                require_pattern(split_inverse(expression)[0], field)
        for expression in self.versions:
            VersionRange(expression)


class Record(ModuleRecord, frozen=True, kw_only=True):
    """An installed package, or with `verify` a file of one that is not what was installed."""

    type: Annotated[Type, Meta(description="the packaging system")]
    name: Annotated[str, Meta(description="name of the package")]
    version: Annotated[
        str, Meta(description="its version, with epoch and release where the system has such; may be empty")
    ]
    arch: Annotated[
        Optional[str], Meta(description="architecture that it was built for, or platform of a gem")
    ] = None
    source: Annotated[
        Optional[str], Meta(description="source package that it was built from, where it says")
    ] = None
    state: Annotated[
        Optional[str],
        Meta(description="its state, where it is not simply installed, such as half-configured"),
    ] = None
    revision: Annotated[
        Optional[str], Meta(description="revision of a snap, or the beginning of a flatpak's commit")
    ] = None
    installed: Annotated[
        Optional[str],
        Meta(description="when it was installed or last upgraded, where known: RFC 3339 in UTC"),
    ] = None
    size_bytes: Annotated[
        Optional[int], Meta(description="what it takes on the disk, as its maker says, in bytes")
    ] = None
    path: Annotated[
        Optional[str],
        Meta(description="where it was found, where there is no database; with verify the file that differs"),
    ] = None
    path_b64: Annotated[
        Optional[str], Meta(description="bytes of the path in base64, only where it is not UTF-8")
    ] = None
    differs: Annotated[
        Optional[Tuple[str, ...]],
        Meta(description="what differs: missing type size digest mode owner group target mtime"),
    ] = None
    is_config: Annotated[bool, Meta(description="the file is one that is meant to be changed")] = False


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each package, or with `verify` for each file that differs.

    Raises:
        InvalidInput: `unsupported` where regular expressions are asked for and there is no engine for them.

    """
    filters = _Filters(params)
    files = Rooted(params.root, fence=Fence(context.paths), note=context.note)
    look = _Look(params, context, files)
    seen = 0
    try:
        for package in look.packages():
            context.check()
            seen += 1
            if not seen % _PACKAGES_PER_PROGRESS:
                context.statistics["packages_seen"] = seen
                context.progress()
            if not filters.hold(package):
                continue
            if params.verify:
                yield from look.differing(package)
            else:
                yield _record(package, package.path)
    finally:
        context.statistics["packages_seen"] = seen
        filters.tell(context)
        look.tell()


class _Filters:
    """What packages must satisfy, and what could not be compared."""

    def __init__(self, params: Params) -> None:
        if params.names or params.sources or params.version_patterns:
            require_engine("a search for packages by regular expressions")
        self._names = TextFilter(params.names)
        self._sources = TextFilter(params.sources)
        self._patterns = TextFilter(params.version_patterns)
        self._versions = [VersionRange(expression) for expression in params.versions]
        self._not_compared: List[str] = []
        self._without_epoch: List[str] = []

    def hold(self, package: Package) -> bool:
        texts = (package.name, package.source or package.name, package.version)
        name, source, version = (text.encode("utf-8", "surrogatepass") for text in texts)
        return (
            self._names.holds([name])
            and self._sources.holds([source])
            and self._patterns.holds([version])
            and (not self._versions or self._is_between(package))
        )

    def _is_between(self, package: Package) -> bool:
        verdicts = [version.holds(package.type, package.version) for version in self._versions]
        if None in verdicts and True not in verdicts:
            self._not_compared.append(f"{package.name} {package.version} ({package.type})")
        if any(version.lacks_epoch(package.type, package.version) for version in self._versions):
            self._without_epoch.append(f"{package.name} {package.version}")
        return True in verdicts

    def tell(self, context: Context) -> None:
        context.statistics["not_compared"] = len(self._not_compared)
        for found, words in (
            (self._not_compared, "not compared, since it or the expression is no version there"),
            (self._without_epoch, "has an epoch, the expression has none and was compared as epoch 0"),
        ):
            for text in found[:_NAMED]:
                context.note(f"{text}: {words}")
            if len(found) > _NAMED:
                context.note(f"{len(found) - _NAMED} further packages: {words}")


class _Look:
    """Reads one system's packages and files, and counts what was seen."""

    def __init__(self, params: Params, context: Context, files: Rooted) -> None:
        self._types: Tuple[str, ...] = params.types or get_args(Type)
        self._params = params
        self._context = context
        self._files = files
        self._sources = PackageSources(files, context.check)
        self._verifier = Verifier(files, context.check)
        self._without: Counter[str] = Counter()
        self._checked = 0
        self._elsewhere: Optional[Coverage] = None

    def packages(self) -> Iterator[Package]:
        yield from self._sources.packages(self._types)
        if self._params.paths:
            yield from self._below_paths()

    def _below_paths(self) -> Iterator[Package]:
        """Yield the packages of languages below the paths that were named."""
        require_engine("a search for packages below paths")
        search = Search(paths=self._params.paths, names=(MARKS,), options=Options(matchall=True))
        coverage = self._elsewhere = Coverage(self._context.note)
        found = scan(
            make_plan({"packages": search}, time.time_ns()),
            coverage=coverage,
            rules=self._context.paths,
            check=self._context.check,
            truncate=self._context.truncate,
            workers=0,
        )
        here = Rooted("/", fence=Fence(self._context.paths), note=self._context.note)
        for match in found:
            package = package_at(here, match.path)
            if package is not None and package.type in self._types:
                yield package
        self._files.errors += here.errors

    def differing(self, package: Package) -> Iterator[Record]:
        """Yield the files of a package that are not what its manifest says."""
        expected = self._sources.expected(package)
        if expected is None:
            self._without[package.type] += 1
            return
        for entry in expected:
            self._context.check()
            if entry.is_config and not self._params.config:
                continue
            self._checked += 1
            differs = self._verifier.differences(entry)
            if differs:
                yield _differing(package, entry, differs)

    def tell(self) -> None:
        """Put the counts into the statistics, and say what could not be verified."""
        files, statistics = self._files, self._context.statistics
        skipped = Counter(files.skipped)
        if self._sources.removed:
            skipped["removed"] = self._sources.removed
        errors = files.errors
        if self._elsewhere is not None:
            skipped.update(self._elsewhere.skipped)
            errors += self._elsewhere.errors
            self._elsewhere.finish()
        if self._params.verify:
            statistics.update(files_seen=self._checked, bytes_read=self._verifier.bytes_read)
            for name, count in sorted(self._without.items()):
                kind = (
                    f"{name} keeps no manifest"
                    if name in WITHOUT_MANIFEST
                    else f"{name} has no list of files"
                )
                self._context.note(f"{count} packages not verified: {kind}")
                skipped["no-manifest"] += count
        statistics.update(skipped=dict(sorted(skipped.items())), errors=errors)


def _record(package: Package, path: Optional[bytes]) -> Record:
    installed = package.installed_s
    return Record(
        type=package.type,  # type: ignore[arg-type]  # one of TYPES, which a test holds to the declaration
        name=package.name,
        version=package.version,
        arch=package.arch,
        source=package.source,
        state=package.state,
        revision=package.revision,
        installed=time_text(installed * 1_000_000_000) if installed is not None else None,
        size_bytes=package.size_bytes,
        path=path_text(path) if path is not None else None,
        path_b64=path_base64(path) if path is not None else None,
    )


def _differing(package: Package, entry: Expected, differs: Tuple[str, ...]) -> Record:
    return Record(
        type=package.type,  # type: ignore[arg-type]  # as above
        name=package.name,
        version=package.version,
        arch=package.arch,
        path=path_text(entry.path),
        path_b64=path_base64(entry.path),
        differs=differs,
        is_config=entry.is_config,
    )


def upgrade(parameters: Any) -> Any:
    """Rewrite the ancestor's parameters: `pkgmatch.matches` and `vermatch`; a lone text becomes a list."""
    if not isinstance(parameters, dict):
        return parameters
    upgraded: Dict[str, Any] = dict(parameters)
    matches = upgraded.pop("pkgmatch", None)
    if isinstance(matches, dict) and "matches" in matches:
        upgraded.setdefault("names", matches["matches"])
    elif matches is not None:
        # Not as the ancestor has it: left as it is, to be refused by its name.
        upgraded["pkgmatch"] = matches
    pattern = upgraded.pop("vermatch", "")
    if pattern:
        upgraded.setdefault("version_patterns", pattern)
    return plural_parameters(upgraded, _SINGULAR)


FLAGS = plain_flags(Params, _SINGULAR)


def from_flags(values: Dict[str, Any]) -> Any:
    """Make the parameters of the command line's flags."""
    return plural_parameters(values, _SINGULAR)

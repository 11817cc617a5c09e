"""Build the three programs, each as one executable zip file.

    python build_zipapp.py [--platform linux-x86_64] [--config config.toml] [--keys keys/] [--output dist/]
                           [--only agent|server|client] [--with yara] [--lock]

writes `mig-agent-<platform>`, `mig-server`, `mig`, for each a list of what it holds (`*.cdx.json`,
CycloneDX), and `SHA256SUMS`. Into the agent go the table [agent] of the configuration and the investigators'
public keys (`startup/baked.py`). `--with` adds an optional part to agent and client (`startup/additions.py`).

Same sources, keys and configuration, built by the same Python: the same bytes. A file whose inputs have not
changed is left alone.
`--lock` writes requirements/*.lock anew, after a change of the requirements.
"""

import argparse
import json
import platform as host
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from startup.additions import ADDITIONS, Addition, choose, left_out
from startup.additions import PROGRAMS as WITH_ADDITIONS
from startup.archive import BuildFailure, Part, digest_of, sha256, write_archive, write_whole
from startup.baked import load_baked, read_sources, read_toml
from startup.bytecode import byte_code_of
from startup.wheels import (
    INTERPRETERS,
    PLATFORMS,
    Wheel,
    WheelCache,
    make_lock,
    merge,
    read_pins,
    resolve,
    select,
)

ROOT = Path(__file__).resolve().parent
STARTUP = ROOT / "startup"
MAX_AGENT_BYTES = 15_000_000
_STATE = ".build-inputs.json"
_SLOW_S = 1.0
_DEFAULT_NATIVE = ("memfd", "directory")


class Program(NamedTuple):
    """One of the three files: its packages, entry point, locked requirements and interpreters.

    `as_text` is what goes without byte code, for the sake of size: a process loads little of it.
    """

    name: str
    packages: tuple[str, ...]
    entry: str
    extra: str
    lock: str
    interpreters: tuple[str, ...]
    as_text: tuple[str, ...] = ()


_ALL = tuple(INTERPRETERS)
_USUAL_WHEELS = ("msgspec", "re2")
_NEWER = tuple(version for version in INTERPRETERS if version not in {"3.9", "3.10"})
PROGRAMS = {
    "agent": Program(
        "mig-agent",
        ("agent", "protocol"),
        "agent.main:main",
        "agent",
        "agent.lock",
        _ALL,
        as_text=("agent/modules/", "agent/platform/"),
    ),
    "server": Program("mig-server", ("server", "protocol"), "server.main:main", "server", "run.lock", _NEWER),
    "client": Program(
        "mig", ("client", "agent", "protocol"), "client.main:main", "client", "run.lock", _NEWER
    ),
}


class Request(NamedTuple):
    """What to build from what; `root` holds the sources, pyproject.toml and requirements/."""

    root: Path
    config: Path
    keys: Path
    output: Path
    platform: str
    only: tuple[str, ...]
    wheels: Path
    additions: tuple[str, ...] = ()


class Built(NamedTuple):
    """A file that stands in the output directory; `parts` is empty where nothing had to be done."""

    path: Path
    sha256: str
    parts: tuple[Part, ...]


def compose_files(
    request: Request, program: Program, sources: Mapping[str, bytes], build: str
) -> dict[str, bytes]:
    """Return everything that stands in a program's zip except its wheels."""
    files = dict(sources)
    files["__main__.py"] = (STARTUP / "bootstrap.py").read_bytes()
    for name in ("startup/__init__.py", "startup/natives.py"):
        files[name] = (ROOT / name).read_bytes()
    licence = request.root / "LICENSE"
    if licence.exists():
        files["LICENSE"] = licence.read_bytes()
    if program.extra == "agent":
        keys = sorted(Path(name).name for name in sources if name.startswith("agent/baked/keys/"))
        facts = {
            "version": _version(request.root),
            "platform": request.platform,
            "build": build,
            "keys": keys,
            "with": sorted(request.additions),
        }
        files["agent/baked/build.json"] = json.dumps(facts, sort_keys=True).encode()
    return files


def startup_facts(program: Program, platform: str, files: Mapping[str, bytes], build: str) -> dict[str, Any]:
    """Return what the start-up code needs to know."""
    config = json.loads(files.get("agent/baked/config.json", b"{}"))
    return {
        "program": program.name,
        "entry": program.entry,
        "platform": platform,
        "build": build,
        "oldest": _numbers(program.interpreters[0]),
        "newest": _numbers(program.interpreters[-1]),
        "native": config.get("native", _DEFAULT_NATIVE),
    }


def prelude(program: Program, version: str) -> bytes:
    """Return the shell script that stands before the zip."""
    oldest, newest = program.interpreters[0], program.interpreters[-1]
    check = (
        f"import sys; sys.exit(not {(*_numbers(oldest),)} <= sys.version_info[:2] <= {(*_numbers(newest),)})"
    )
    text = (STARTUP / "prelude.sh").read_text("utf-8")
    for name, value in {
        "PROGRAM": program.name,
        "VERSION": version,
        "VERSIONS": " ".join(reversed(program.interpreters)),
        "CHECK": check,
        "OLDEST": oldest,
        "NEWEST": newest,
    }.items():
        text = text.replace(f"@{name}@", value)
    return text.encode()


def _numbers(interpreter: str) -> list[int]:
    return [int(part) for part in interpreter.split(".")]


def _version(root: Path) -> str:
    return str(read_toml(root / "pyproject.toml")["project"]["version"])


def sbom(program: Program, version: str, wheels: Iterable[Wheel]) -> bytes:
    """Return the list of what a file holds, as CycloneDX 1.5 JSON: names, versions, hashes of wheels."""
    components = [
        {
            "type": "library",
            "name": wheel.name,
            "version": wheel.version,
            "purl": f"pkg:pypi/{wheel.name}@{wheel.version}?file_name={wheel.path.name}",
            "bom-ref": wheel.path.name,
            "hashes": [{"alg": "SHA-256", "content": sha256(wheel.path.read_bytes())}],
        }
        for wheel in wheels
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": program.name, "version": version}},
        "components": components,
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


class Builder:
    """Builds what a request asks for, leaving alone what has not changed."""

    def __init__(self, request: Request, *, now: datetime, say: Callable[[str], None]) -> None:
        self._request = request
        self._now = now
        self._say = say
        self._additions = choose(request.additions, request.platform)
        self._project = read_toml(request.root / "pyproject.toml")["project"]
        self._state_path = request.output / _STATE
        self._state: dict[str, list[str]] = {}
        if self._state_path.exists():
            self._state = json.loads(self._state_path.read_bytes())

    def build(self) -> list[Built]:
        """Build every program asked for, then write SHA256SUMS.

        Raises:
            BuildFailure: with one line that says why.

        """
        built = [self._build(PROGRAMS[key]) for key in self._request.only]
        write_whole(self._state_path, json.dumps(self._state, sort_keys=True, indent=1).encode())
        sums = "".join(f"{self._digest(name)}  {name}\n" for name in sorted(self._listed()))
        write_whole(self._request.output / "SHA256SUMS", sums.encode())
        return built

    def _listed(self) -> Iterator[str]:
        for name in self._state:
            yield name
            yield f"{name}.cdx.json"

    def _digest(self, name: str) -> str:
        return sha256((self._request.output / name).read_bytes())

    def _build(self, program: Program) -> Built:
        is_agent = program.extra == "agent"
        sources = read_sources(self._request.root, program.packages)
        if is_agent:
            for module in left_out(self._additions):
                sources.pop(module, None)
            sources |= load_baked(self._request.config, self._request.keys, self._now)
        build = digest_of(
            [
                *sources.items(),
                *_own_code(),
                *((path.name, path.read_bytes()) for path in self._locks(program)),
                ("project", self._roots_text(program)),
            ]
        )
        name = f"{program.name}-{self._request.platform}" if is_agent else program.name
        path = self._request.output / name
        tools = f"zlib {zlib.ZLIB_RUNTIME_VERSION} python {host.python_version()}"
        inputs = f"{build} {self._request.platform} {tools}"
        known = self._state.get(name)
        if (
            known
            and known[0] == inputs
            and path.exists()
            and self._digest(name) == known[1]
            and self._has_list(name)
        ):
            return Built(path, known[1], ())
        return self._write(program, path, sources, build, inputs)

    def _has_list(self, name: str) -> bool:
        return (self._request.output / f"{name}.cdx.json").exists()

    def _roots_text(self, program: Program) -> bytes:
        return json.dumps([self._roots(program), self._project["version"]]).encode()

    def _added(self, program: Program) -> tuple[Addition, ...]:
        return self._additions if program.extra in WITH_ADDITIONS else ()

    def _locks(self, program: Program) -> list[Path]:
        return [
            self._lock_path(name)
            for name in (program.lock, *(addition.lock for addition in self._added(program)))
        ]

    def _lock_path(self, name: str) -> Path:
        return self._request.root / "requirements" / name

    def _roots(self, program: Program) -> list[str]:
        extras = [program.extra, *(addition.extra for addition in self._added(program))]
        optional = self._project["optional-dependencies"]
        return [
            *self._project["dependencies"],
            *(root for extra in extras for root in optional.get(extra, [])),
        ]

    def _lazy(self, program: Program) -> set[str]:
        """Return the packages whose libraries no process loads before it needs them."""
        pins = [pin for addition in self._added(program) for pin in read_pins(self._lock_path(addition.lock))]
        return {pin.name.replace("-", "_") for pin in pins}

    def _write(
        self, program: Program, path: Path, sources: Mapping[str, bytes], build: str, inputs: str
    ) -> Built:
        started = time.monotonic()
        pins = [pin for path in self._locks(program) for pin in read_pins(path)]
        fetched = WheelCache(self._request.wheels, say=self._say).fetch(
            pins, self._request.platform, program.interpreters
        )
        wheels = select(fetched, self._roots(program))
        files = compose_files(self._request, program, sources, build)
        for name, content in merge(wheels).items():
            if files.setdefault(name, content) != content:
                raise BuildFailure(f"{name} stands in a wheel and in our own sources")
        files |= byte_code_of(_to_compile(program, files))
        version = str(self._project["version"])
        parts = write_archive(
            path,
            prelude(program, version),
            files,
            startup_facts(program, self._request.platform, files, build),
            self._lazy(program),
        )
        write_whole(path.with_name(f"{path.name}.cdx.json"), sbom(program, version, wheels))
        size = path.stat().st_size
        limit = MAX_AGENT_BYTES + sum(addition.room_bytes for addition in self._added(program))
        if program.extra == "agent" and size > limit:
            raise BuildFailure(f"{path.name} has {size:,} bytes; an agent may have {limit:,}")
        digest = self._digest(path.name)
        self._state[path.name] = [inputs, digest]
        if time.monotonic() - started > _SLOW_S:
            self._say(f"  {path.name} in {time.monotonic() - started:.1f} s")
        return Built(path, digest, tuple(parts))


def _to_compile(program: Program, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the sources that every start compiles, if nobody has: our own, and of wheels the usual ones."""
    packages = (*program.packages, "startup", *_USUAL_WHEELS)
    return {
        name: content
        for name, content in files.items()
        if name.endswith(".py")
        and (name == "__main__.py" or name.split("/", maxsplit=1)[0] in packages)
        and not name.startswith(program.as_text)
    }


def _own_code() -> list[tuple[str, bytes]]:
    return [
        (path.name, path.read_bytes())
        for path in (ROOT / "build_zipapp.py", *STARTUP.glob("*.*"))
        if path.is_file()
    ]


def install_line(url: str, built: Built) -> str:
    """Return the command that fetches an agent, compares its hash, and installs it."""
    platform = built.path.name.removeprefix("mig-agent-")
    path = "/sbin/mig-agent"
    check = f'echo "{built.sha256}  {path}" | sha256sum -c'
    return f"wget -O {path} {url.rstrip('/')}/agents/{platform} && {check} && chmod +x {path} && {path}"


def write_locks(root: Path, wheels: Path) -> None:
    """Write requirements/*.lock anew from requirements/*.txt."""
    cache = WheelCache(wheels, say=_say)
    requirements = root / "requirements"
    agent = make_lock(read_pins(requirements / "agent.txt"), cache, _ALL)
    run = make_lock(resolve(requirements / "run.txt"), cache, _NEWER)
    for addition in ADDITIONS.values():
        pins = read_pins(requirements / Path(addition.lock).with_suffix(".txt"))
        write_whole(requirements / addition.lock, make_lock(pins, cache, _ALL).encode())
    write_whole(requirements / "agent.lock", agent.encode())
    write_whole(requirements / "run.lock", run.encode())


def _say(line: str) -> None:
    print(f"{line}\n", end="", flush=True)  # at once and whole: several threads fetch


def _report(built: Iterable[Built], request: Request) -> None:
    for item in built:
        size = item.path.stat().st_size
        state = "built" if item.parts else "unchanged"
        print(f"{item.path}  {size / 1e6:.1f} MB  {state}  sha256 {item.sha256}")
        if item.parts:
            largest = ", ".join(f"{part.name} {part.size_bytes / 1e6:.2f}" for part in item.parts[:8])
            print(f"  MB by part: {largest}")
        if item.path.name.startswith("mig-agent-"):
            url = read_toml(request.config).get("server", {}).get("url", "https://SERVER")
            print(f"  install with: {install_line(url, item)}")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build mig-agent, mig-server and mig.")
    here = f"{sys.platform}-{host.machine()}"
    parser.add_argument(
        "--platform", choices=sorted(PLATFORMS), default=here if here in PLATFORMS else "linux-x86_64"
    )
    parser.add_argument(
        "--config", type=Path, default=ROOT / "config.toml", help="its table [agent] is baked in"
    )
    parser.add_argument(
        "--keys", type=Path, default=ROOT / "keys", help="directory of the investigators' *.asc"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument(
        "--with",
        dest="additions",
        action="append",
        choices=sorted(ADDITIONS),
        default=[],
        help="add an optional part to agent and client: yara, the module yara (10 MB); may be repeated",
    )
    parser.add_argument("--only", choices=sorted(PROGRAMS), help="build one of the three")
    parser.add_argument(
        "--lock", action="store_true", help="write requirements/*.lock anew and build nothing"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the command line; exit 2 with one line where the build is refused."""
    options = _parse(argv)
    wheels = ROOT / "var" / "wheels"
    only = (options.only,) if options.only else tuple(PROGRAMS)
    request = Request(
        ROOT,
        options.config,
        options.keys,
        options.output,
        options.platform,
        only,
        wheels,
        tuple(sorted(set(options.additions))),
    )
    try:
        if options.lock:
            write_locks(ROOT, wheels)
            return
        _report(Builder(request, now=datetime.now(UTC), say=_say).build(), request)
    except BuildFailure as failure:
        print(f"build_zipapp: {failure}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

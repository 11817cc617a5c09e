"""The wheels that go into the zip files: locked by hash, fetched for every interpreter, merged into one tree.

Rules:
1. `requirements/agent.lock` and `requirements/run.lock` name every wheel by SHA-256; pip checks them
   (`--require-hashes`), and so does this code whenever it takes a wheel from the cache.
2. One tree serves several interpreters: the wheels of all of them are unpacked over each other, since the
   names of extension modules carry the interpreter's version. A path with two contents stops the build.
3. A wheel that the oldest interpreter takes and that is pure or abi3 serves the newer ones too. (pip would
   pick cryptography's cp311-abi3 wheel for 3.11, which does not load on 3.9.)
4. Nothing is compiled and no dependency is resolved here: what a lock does not name is not fetched.
"""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

from startup.archive import BuildFailure, sha256, write_whole

# `--python-version 3.9` would mean 3.9.0, for which current cryptography has no wheel.
INTERPRETERS = {
    "3.9": "3.9.18",
    "3.10": "3.10.13",
    "3.11": "3.11.7",
    "3.12": "3.12.1",
    "3.13": "3.13.0",
    "3.14": "3.14.0",
}
# pip's names of the systems whose wheels each platform takes; glibc 2.28 is the floor.
PLATFORMS = {
    "linux-x86_64": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"),
    "linux-aarch64": ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"),
}
# Imported by nothing at run time, though their metadata ask for them.
NOT_NEEDED = {
    "pycparser": "cffi parses C with it; only cffi's compiled backend is used",
    "polyfactory": "Litestar makes examples for its OpenAPI page with it, where asked to",
    "faker": "polyfactory's",
}
_DROPPED_SUFFIXES = (
    ".pyi",
    ".pyx",
    ".pxd",
    ".c",
    ".h",
    ".a",
    "/py.typed",
    ".pyc",
    "/RECORD",
    "/WHEEL",
    "/INSTALLER",
    "/top_level.txt",
)
_DROPPED = re.compile(
    r"(^|/)(tests?|__pycache__)/"
    r"|^cffi/|(^|/)_testcapi\.|^sqlalchemy/testing/|^alembic/(testing|templates)/"
    r"|\.data/|\.dist-info/sboms/"
)
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[([a-z,]+)\])?==([^\s;\\]+)(?:\s*;\s*(.*?))?\s*\\?$")
_MARKER = re.compile(r'^python_version\s*(<|>=)\s*"(\d+\.\d+)"$')
_REQUIRES = re.compile(r"^([A-Za-z0-9._-]+)\s*(?:\[([a-z, ]+)\])?")


class Pin(NamedTuple):
    """One distribution at one version, for the interpreters that its marker names; hashes of its wheels."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def serves(self, interpreter: str) -> bool:
        """Tell whether the marker includes an interpreter such as `3.9`."""
        if not self.marker:
            return True
        match = _MARKER.match(self.marker)
        if not match:
            raise BuildFailure(f"{self.name}: only python_version < or >= is understood, not {self.marker}")
        ours, theirs = (tuple(map(int, text.split("."))) for text in (interpreter, match.group(2)))
        return ours < theirs if match.group(1) == "<" else ours >= theirs


class Wheel(NamedTuple):
    """A wheel in the cache."""

    path: Path
    name: str
    version: str
    requires: tuple[str, ...]

    @property
    def serves_newer(self) -> bool:
        """Pure or abi3: taken for the oldest interpreter, it serves the newer ones."""
        tags = self.path.stem.split("-")
        return "none" in tags[-2].split(".") or "abi3" in tags[-2].split(".")


def canonical(name: str) -> str:
    """Return a distribution's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: Path) -> list[Pin]:
    """Read the pinned lines of a requirements or lock file (`-r` lines and comments are passed over)."""
    pins: list[Pin] = []
    for line in path.read_text("utf-8").splitlines():
        text = line.split(" #")[0].strip()
        if text.startswith("--hash="):
            pins[-1] = pins[-1]._replace(
                hashes=(*pins[-1].hashes, text[7:].rstrip("\\ ").removeprefix("sha256:"))
            )
        elif text and not text.startswith(("#", "-r")):
            match = _PIN.match(text)
            if not match:
                raise BuildFailure(f"{path.name}: not a pinned distribution: {text}")
            pins.append(Pin(canonical(match.group(1)), match.group(3), match.group(4) or "", ()))
    return pins


class WheelCache:
    """Wheels on disk, fetched once."""

    def __init__(self, directory: Path, *, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._say = say

    def fetch(
        self, pins: Iterable[Pin], platform: str, interpreters: Iterable[str], *, locked: bool = True
    ) -> list[Wheel]:
        """Return the wheels of these distributions for every interpreter, fetching what is missing.

        Args:
            pins: what to fetch; markers decide for which interpreter.
            platform: a name of `PLATFORMS`.
            interpreters: oldest first.
            locked: refuse what the pins' hashes do not name; False only where the lock is being made.

        Raises:
            BuildFailure: pip found no wheel, or a hash differs.

        """
        oldest, *newer = interpreters
        wanted = [pin for pin in pins if pin.name not in NOT_NEEDED]
        wheels = {wheel.path: wheel for wheel in self._fetch_for(wanted, platform, oldest, locked=locked)}
        served = {(wheel.name, wheel.version) for wheel in wheels.values() if wheel.serves_newer}
        rest = [pin for pin in wanted if (pin.name, pin.version) not in served]
        with ThreadPoolExecutor(max_workers=3) as pool:
            for found in pool.map(
                lambda version: self._fetch_for(rest, platform, version, locked=locked), newer
            ):
                wheels.update((wheel.path, wheel) for wheel in found)
        return sorted(wheels.values())

    def _fetch_for(
        self, pins: Iterable[Pin], platform: str, interpreter: str, *, locked: bool
    ) -> list[Wheel]:
        chosen = [pin for pin in pins if pin.serves(interpreter)]
        lines = sorted(_lock_line(pin._replace(marker="")) for pin in chosen)
        place = self._directory / platform
        key = sha256(" ".join(sorted(f"{pin.name}=={pin.version}" for pin in chosen)).encode())
        index = place / f"{interpreter}-{key[:16]}.json"
        if not index.exists():
            place.mkdir(parents=True, exist_ok=True)
            write_whole(
                index, json.dumps(self._download(lines, place, platform, interpreter, locked=locked)).encode()
            )
        wheels = [_read_wheel(place / name) for name in json.loads(index.read_bytes())]
        allowed = {digest for pin in chosen for digest in pin.hashes}
        for wheel in wheels if locked else ():
            if sha256(wheel.path.read_bytes()) not in allowed:
                raise BuildFailure(
                    f"{wheel.path.name} in the wheel cache is not what the lock names; delete it"
                )
        return wheels

    def _download(
        self, lines: list[str], place: Path, platform: str, interpreter: str, *, locked: bool
    ) -> list[str]:
        if not lines:
            return []
        self._say(f"  fetching {len(lines)} wheels for {platform}, Python {interpreter}")
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            requirements = Path(scratch) / "requirements.txt"
            requirements.write_text("".join(lines), "utf-8")
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ]
            command += [
                "--only-binary=:all:",
                "--implementation=cp",
                f"--python-version={INTERPRETERS[interpreter]}",
            ]
            command += [f"--platform={tag}" for tag in PLATFORMS[platform]]
            command += ["--require-hashes"] if locked else []
            command += [f"--dest={scratch}", f"--requirement={requirements}"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                problem = next(
                    (line for line in result.stderr.splitlines() if line.startswith("ERROR")), result.stderr
                )
                raise BuildFailure(f"pip download for {platform}, Python {interpreter}: {problem.strip()}")
            names = sorted(path.name for path in Path(scratch).glob("*.whl"))
            for name in names:
                (Path(scratch) / name).replace(place / name)
        return names


def _read_wheel(path: Path) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        [metadata] = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        headers = Parser().parsestr(archive.read(metadata).decode("utf-8"), headersonly=True)
    requires = tuple(headers.get_all("Requires-Dist") or ())
    return Wheel(path, canonical(headers["Name"]), headers["Version"], requires)


def select(wheels: Iterable[Wheel], roots: Iterable[str]) -> list[Wheel]:
    """Return the wheels that these requirements (`name` or `name[extra]`) need, directly or through others.

    Only what the lock resolved is there to be selected, so markers other than extras need no second reading.
    """
    by_name: dict[str, list[Wheel]] = {}
    for wheel in wheels:
        by_name.setdefault(wheel.name, []).append(wheel)
    pending = [_parse_requirement(root) for root in roots]
    for name, _ in pending:
        if name not in by_name:
            raise BuildFailure(f"{name} is required, but no lock names it")
    done: set[tuple[str, str]] = set()
    while pending:
        name, extras = pending.pop()
        for extra in ("", *extras):
            if (name, extra) in done or name not in by_name:
                continue
            done.add((name, extra))
            for line in {line for wheel in by_name[name] for line in wheel.requires}:
                wanted = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
                if (wanted.group(1) if wanted else "") == extra:
                    pending.append(_parse_requirement(line))
    names = {name for name, _ in done}
    return [wheel for wheel in sorted(wheels) if wheel.name in names]


def _parse_requirement(line: str) -> tuple[str, tuple[str, ...]]:
    match = _REQUIRES.match(line)
    if not match:
        raise BuildFailure(f"not a requirement: {line}")
    extras = tuple(extra.strip() for extra in (match.group(2) or "").split(",") if extra.strip())
    return canonical(match.group(1)), extras


def merge(wheels: Iterable[Wheel]) -> dict[str, bytes]:
    """Unpack wheels over each other, without what is not needed at run time.

    Raises:
        BuildFailure: two wheels hold different contents under one path.

    """
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel.path) as archive:
            for name in archive.namelist():
                if name.endswith(("/", *_DROPPED_SUFFIXES)) or _DROPPED.search(name):
                    continue
                content = archive.read(name)
                if files.setdefault(name, content) != content:
                    raise BuildFailure(f"{name} differs between the wheels of {wheel.name}")
    return files


def _lock_line(pin: Pin) -> str:
    marker = f" ; {pin.marker}" if pin.marker else ""
    hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in pin.hashes)
    return f"{pin.name}=={pin.version}{marker}{hashes}\n"


def make_lock(pins: Iterable[Pin], cache: WheelCache, interpreters: tuple[str, ...]) -> str:
    """Return the text of a lock file: these distributions with the hash of every wheel that is taken."""
    pins = sorted(pin._replace(hashes=()) for pin in pins if pin.name not in NOT_NEEDED)
    hashes: dict[tuple[str, str], set[str]] = {}
    for platform in PLATFORMS:
        for wheel in cache.fetch(pins, platform, interpreters, locked=False):
            hashes.setdefault((wheel.name, wheel.version), set()).add(sha256(wheel.path.read_bytes()))
    locked = [pin._replace(hashes=tuple(sorted(hashes[pin.name, pin.version]))) for pin in pins]
    head = "# Made by `python build_zipapp.py --lock`: every wheel that the zip files hold.\n"
    return head + "".join(_lock_line(pin) for pin in locked)


def resolve(requirements: Path) -> list[Pin]:
    """Let pip resolve a requirements file for the Python that runs this; return everything, pinned."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report=-",
    ]
    command += ["--disable-pip-version-check", "--only-binary=:all:", f"--requirement={requirements}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildFailure(
            f"pip cannot resolve {requirements.name}: {result.stderr.strip().splitlines()[-1]}"
        )
    found: Mapping[str, list[dict[str, dict[str, str]]]] = json.loads(result.stdout)
    items = (item["metadata"] for item in found["install"])
    return [Pin(canonical(item["name"]), item["version"], "", ()) for item in items]

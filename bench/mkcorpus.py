"""Makes the corpora on which the scan is measured: the same seed gives the same bytes, names, modes, times.

    python bench/mkcorpus.py [DEST] [many] [large] [text]

many   200,000 small files of text, 0 to 16,384 bytes (log-normal, median about 2.2 KiB, 2 % empty), in 2,000
       directories three levels down; 25 hold a line `migbench-needle-<n>`, 40 are setuid; 1.3 GB of disk
large  4 files of 1 GiB of random bytes; 4.3 GB of disk
text   64 files of 16 MiB of log lines, 7 of which hold a needle; 1.1 GB of disk
crowd  1,000,000 names of 100 small files (hard links), in 1,000 directories; 50 MB of disk; made when named

DEST is /var/tmp/mig-corpus where none is given. A manifest DEST/<name>.json holds counts, bytes, the paths
with needles, and digests. What is there already is left alone: a manifest is written last.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

DEFAULT = Path("/var/tmp/mig-corpus")  # noqa: S108  (a place for gigabytes that survives a restart)
NAMES = ("many", "large", "text")
DISK_BYTES = {"many": 1_300_000_000, "large": 4_300_000_000, "text": 1_100_000_000, "crowd": 50_000_000}
SEED = 20261120
NEWEST = 1793491200  # 2026-11-01T00:00:00Z
_YEARS_S = 3 * 365 * 86400
_MOST_BYTES = 16384
_EMPTY = 0.02
_MODES = ((0.85, 0o644), (0.93, 0o755), (0.97, 0o600), (1.0, 0o640))  # below which draw, the mode
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_"
_PROGRAMS = (
    "sshd", "kernel", "systemd", "cron", "nginx", "postfix/smtpd", "sudo", "dhclient", "named", "rsyslogd",
)  # fmt: skip
_SUFFIXES = (
    ["txt"] * 30 + ["py"] * 15 + ["c"] * 10 + ["h"] * 10 + ["json"] * 10 + ["conf"] * 8 + ["log"] * 8
    + ["so"] * 4 + ["key"] * 2 + ["sql"] * 1 + ["php"] * 2
)  # fmt: skip

Manifest = dict[str, Any]


class Shape(NamedTuple):
    """How much of each corpus to make. Anything but the whole is for tests: its needles lie elsewhere."""

    files: int = 200_000
    vocabulary_bytes: int = 8 << 20
    large_files: int = 4
    large_pieces: int = 256  # of 4 MiB
    lines: int = 120_000
    text_files: int = 64
    text_bytes: int = 16 << 20
    crowd_files: int = 1_000_000


WHOLE = Shape()


def _words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices(_LETTERS, k=rng.randint(2, 11))) for _ in range(count)]


def _prose(rng: random.Random, size: int) -> bytes:
    """Return lines of 20 to 110 characters of a vocabulary of 4,000 words."""
    words, lines, total = _words(rng, 4000), [], 0
    while total < size:
        wanted, line, length = rng.randint(20, 110), [], 0
        while length < wanted:
            word = words[int(rng.random() * 4000)]
            line.append(word)
            length += len(word) + 1
        lines.append(" ".join(line) + "\n")
        total += len(lines[-1])
    return "".join(lines).encode()[:size]


def _with_needle(content: bytes, number: int) -> bytes:
    needle = b"\nmigbench-needle-%d\n" % number
    middle = len(content) // 2
    content = content[:middle] + needle + content[middle:]
    return content[:_MOST_BYTES] if b"migbench-needle" in content[: _MOST_BYTES - 40] else content


def make_many(destination: Path, shape: Shape = WHOLE) -> Manifest:
    """Make the many small files; every random number is drawn in the order that the bytes depend on."""
    rng = random.Random(SEED)  # noqa: S311  (a corpus, no secret)
    prose = _prose(rng, shape.vocabulary_bytes)
    needles = set(rng.sample(range(shape.files), min(25, shape.files)))
    setuid = set(rng.sample(range(shape.files), min(40, shape.files)))
    known = set(rng.sample(range(shape.files), min(10, shape.files)))
    manifest: Manifest = {"files": shape.files, "bytes": 0, "needles": [], "suid": [], "known": []}
    directory = ""
    for number in range(shape.files):
        if number % 100 == 0:
            leaf = number // 100
            directory = f"{destination}/d{leaf // 100:02d}/e{leaf // 5 % 20:02d}/f{leaf % 5}"
            Path(directory).mkdir(parents=True, exist_ok=True)
        size = 0 if rng.random() < _EMPTY else min(_MOST_BYTES, int(rng.lognormvariate(7.7, 1.1)))
        offset = int(rng.random() * (len(prose) - _MOST_BYTES))
        content = prose[offset : offset + size]
        path = f"{directory}/{number:06d}-{rng.getrandbits(24):06x}.{_SUFFIXES[int(rng.random() * 100)]}"
        if number in needles:
            content = _with_needle(content, number)
            manifest["needles"].append(path)
        _write(path, content)
        draw = rng.random()
        mode = next(mode for border, mode in _MODES if draw < border)
        if number in setuid:
            mode = 0o4755
            manifest["suid"].append(path)
        os.chmod(path, mode)  # noqa: PTH101  (a Path for each of 200,000 doubles the time)
        modified = NEWEST - int(rng.random() * _YEARS_S)
        os.utime(path, (modified, modified))
        manifest["bytes"] += len(content)
        if number in known:
            digests = {kind: hashlib.new(kind, content).hexdigest() for kind in ("md5", "sha256")}
            manifest["known"].append({"path": path, **digests})
    return manifest


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", 0) as file:  # noqa: PTH123  (as above)
        file.write(content)


def make_large(destination: Path, shape: Shape = WHOLE) -> Manifest:
    """Make the large files."""
    size = shape.large_files * shape.large_pieces << 22
    manifest: Manifest = {"files": shape.large_files, "bytes": size, "sha256": {}}
    for number in range(shape.large_files):
        rng, digest = random.Random(SEED + 100 + number), hashlib.sha256()  # noqa: S311
        path = destination / f"big{number}.bin"
        with path.open("wb", 0) as file:
            for _ in range(shape.large_pieces):
                piece = rng.randbytes(4 << 20)
                digest.update(piece)
                file.write(piece)
            # What was just written lies in smaller pieces of memory than what was read from the disk, as
            # files are found on a machine, and takes a sixth longer to map.
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        manifest["sha256"][str(path)] = digest.hexdigest()
    return manifest


def _log_lines(rng: random.Random, count: int) -> list[str]:
    words = _words(rng, 3000)
    return [
        f"Nov {rng.randint(1, 30):2d}"
        f" {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
        f" host{rng.randint(0, 200):03d} {rng.choice(_PROGRAMS)}[{rng.randint(100, 65000)}]: "
        + " ".join(words[int(rng.random() * 3000)] for _ in range(rng.randint(3, 12)))
        + f" from 10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(0, 255)}"
        f" port {rng.randint(1024, 65535)}\n"
        for _ in range(count)
    ]


def make_text(destination: Path, shape: Shape = WHOLE) -> Manifest:
    """Make the log files, each of blocks of a thousand lines that follow each other."""
    rng = random.Random(SEED + 200)  # noqa: S311
    lines = _log_lines(rng, shape.lines)
    manifest: Manifest = {"files": shape.text_files, "bytes": 0, "needles": []}
    needles = set(rng.sample(range(shape.text_files), min(7, shape.text_files)))
    for number in range(shape.text_files):
        own = random.Random(SEED + 300 + number)  # noqa: S311
        blocks: list[str] = []
        total = 0
        while total < shape.text_bytes:
            start = int(own.random() * (shape.lines - 1000))
            blocks.append("".join(lines[start : start + 1000]))
            total += len(blocks[-1])
        path = destination / f"syslog.{number:02d}"
        if number in needles:
            needle = f"Nov 20 12:00:00 host000 sshd[666]: migbench-needle-{number} Accepted backdoor\n"
            blocks.insert(len(blocks) * 3 // 4, needle)
            manifest["needles"].append(str(path))
        content = "".join(blocks).encode()
        manifest["bytes"] += len(content)
        path.write_bytes(content)
    return manifest


def make_crowd(destination: Path, shape: Shape = WHOLE) -> Manifest:
    """Make a million names: what a scan must hold in memory is by name, not by byte."""
    sources = [destination / f"file{number:02d}" for number in range(100)]
    for source in sources:
        source.write_bytes(source.name.encode() * 100)
    for number in range(100, shape.crowd_files):
        if number % 1000 in (0, 100):
            directory = destination / f"d{number // 1000:03d}"
            directory.mkdir(exist_ok=True)
        os.link(sources[number % 100], f"{directory}/a-name-of-usual-length-{number:06d}.txt")
    return {"files": shape.crowd_files, "bytes": shape.crowd_files * 600}


def make(root: Path, name: str, shape: Shape = WHOLE) -> Manifest:
    """Make one corpus below `root`, unless it stands there whole, and return its manifest."""
    makers = {"many": make_many, "large": make_large, "text": make_text, "crowd": make_crowd}
    manifest_path = root / f"{name}.json"
    if manifest_path.exists():
        found: Manifest = json.loads(manifest_path.read_bytes())
        return found
    (root / name).mkdir(parents=True, exist_ok=True)
    manifest = makers[name](root / name, shape)
    manifest_path.write_text(json.dumps(manifest, indent=1))
    return manifest


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", type=Path, default=DEFAULT, metavar="DEST")
    parser.add_argument("names", nargs="*", metavar="CORPUS", help=f"{', '.join(NAMES)} by default")
    options = parser.parse_args()
    names = options.names or NAMES
    if not set(names) <= set(DISK_BYTES):
        parser.error(f"the corpora are {', '.join(DISK_BYTES)}")
    for name in names:
        began = time.monotonic()
        manifest = make(options.root.absolute(), name)
        sys.stdout.write(
            f"{name} {manifest['files']} files {manifest['bytes']} bytes {time.monotonic() - began:.1f} s\n"
        )


if __name__ == "__main__":
    main()

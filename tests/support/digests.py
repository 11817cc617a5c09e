"""Digests of many files as openssl has them and as the scan core has them, to be compared."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agent.module import Context
from agent.scan.coverage import Coverage
from agent.scan.plan import make_plan
from agent.scan.scan import scan
from agent.scan.search import Options, Search

_LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128, "sha3_256": 64}
_ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


class Compared(NamedTuple):
    """How many files were compared, and the paths whose digests differ or that one of both lacks."""

    files: int
    different: tuple[bytes, ...]


def compare_with_openssl(roots: Sequence[Path], kinds: Sequence[str] = ("sha256",)) -> Compared:
    """Hash all files below some directories both ways, links to files too."""
    ours = scan_digests(roots, kinds)
    different: set[bytes] = set()
    for kind in kinds:
        theirs = openssl_digests(roots, kind)
        different.update(ours.keys() ^ theirs.keys())
        different.update(path for path in ours if ours[path].get(kind) != theirs.get(path))
    # /etc/mtab leads to the table of mounts, which changes when somebody mounts something meanwhile.
    different = {path for path in different if not os.path.realpath(path).startswith(b"/proc/")}
    return Compared(len(ours), tuple(sorted(different)))


def scan_digests(roots: Sequence[Path], kinds: Sequence[str]) -> dict[bytes, dict[str, str]]:
    """Return the digests by path that the scan core reports."""
    # Turned round, a digest that no file has lets every file match, and all that is asked for is reported.
    search = Search(
        paths=tuple(map(str, roots)),
        options=Options(mismatch=tuple(kinds)),  # type: ignore[arg-type]
        **{kind: ("0" * _LENGTHS[kind],) for kind in kinds},  # type: ignore[arg-type]
    )
    context = Context()
    found = scan(
        make_plan({"s1": search}, now_ns=0),
        coverage=Coverage(context.note),
        check=lambda: None,
        truncate=context.truncate,
    )
    return {match.path: dict(match.digests) for match in found}


def openssl_digests(roots: Sequence[Path], kind: str) -> dict[bytes, str]:
    """Return the digests by path that `openssl dgst -r` prints."""
    words = " ".join(shlex.quote(str(root)) for root in roots)
    # With one file at a time openssl would start as often; a batch prints whole lines, so batches may mix.
    command = f"find {words} -xtype f -print0 | xargs -0 -r -n 256 openssl dgst -{kind.replace('_', '-')} -r"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    digests = {}
    for line in done.stdout.splitlines():
        digest, _, name = line.lstrip(b"\\").partition(b" *")
        if line.startswith(b"\\"):
            for escape, character in _ESCAPES.items():
                name = name.replace(escape, character)
        digests[name] = digest.decode()
    return digests

"""Tests that the bench of the scan core still runs, on corpora so small that its figures mean nothing."""

import hashlib
import runpy
from pathlib import Path

import pytest

from tests.support.benches import run_bench
from tests.support.tree import ROOT

TINY = {
    "files": 200, "vocabulary_bytes": 1 << 15, "large_files": 2, "large_pieces": 1, "lines": 1100,
    "text_files": 8, "text_bytes": 1000, "crowd_files": 2000,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mkcorpus = runpy.run_path(str(ROOT / "bench/mkcorpus.py"))
    root = tmp_path_factory.mktemp("corpora")
    for name in mkcorpus["DISK_BYTES"]:
        mkcorpus["make"](root, name, mkcorpus["Shape"](**TINY))
    return root


@pytest.mark.slow
def test_a_case_runs_and_gives_a_row_with_its_goal(corpora: Path) -> None:
    words = ["--corpus", str(corpora), "--runs", "1", "--agent", "none", "--cases", "size", "content-many"]
    done = run_bench("scan.py", *words)
    assert "| size, small files | ≤ 1 x the time of find |" in done.stdout
    assert "| content, one literal, small files | ≤ 1.3 x the time of rg -j2 |" in done.stdout
    assert done.stderr.splitlines() == ["size", "content-many"]


def test_the_corpora_are_the_same_bytes_everywhere(corpora: Path) -> None:
    # Pinned: who changes one byte makes new figures incomparable with all that were measured before.
    assert {name: state_of(corpora / name) for name in ("many", "large", "text")} == {
        "many": "413952dd3a260f70",
        "large": "19bc4374b04b2891",
        "text": "b43d56632ed1dcf8",
    }


def state_of(root: Path) -> str:
    """Return one digest of the names, modes, times and contents below a directory."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        status = path.stat()
        mtime = status.st_mtime_ns if root.name == "many" else 0
        digest.update(f"{path.relative_to(root)} {status.st_mode:o} {mtime} {status.st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

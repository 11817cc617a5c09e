"""Tests of scans that keep digests: the same answer as without, said to be kept where it is."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.module import Context
from agent.scan import cache, leaf, recalling, worker
from agent.scan.mounts import Mounts
from protocol.result import OperationResult
from tests.agent.scan.runs import grow, paths, run
from tests.agent.scan.test_cache import shared
from tests.agent.scan.test_independence import placed, searches, tree

__all__ = ["shared", "tree"]
ALL = {"names": ["."], "options": {"matchall": True, "returnhashes": ["sha256", "md5"]}}
FRESH = {"names": ["."], "options": {**ALL["options"], "fresh": True}}  # type: ignore[dict-item]


@pytest.fixture(autouse=True, scope="module")
def settled() -> Iterator[None]:
    """Let files count as settled that were made a moment ago, and as trusted wherever they lie."""
    patch = pytest.MonkeyPatch()
    patch.setattr(cache, "SETTLED_NS", -(10**12))
    patch.setattr(recalling, "SETTLED_NS", -(10**12))
    patch.setattr(Mounts, "stated_type", lambda _self, _device: "ext4")
    yield
    patch.undo()


def scan(shared: int, root: Path, search: Any = ALL) -> OperationResult:
    return run(Context(digest_cache=shared), s1={"paths": [str(root)], **search})


def without_label(result: OperationResult) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "cached"} for record in result.records]


@pytest.mark.slow
@pytest.mark.parametrize("files", [5, 700], ids=["judged in place", "judged by workers"])
def test_a_second_scan_reads_nothing_and_says_so(tmp_path: Path, shared: int, files: int) -> None:
    grow(tmp_path, {f"d{n % 9}/{n}": b"%d" % n for n in range(files)})
    first, second = scan(shared, tmp_path), scan(shared, tmp_path)
    assert without_label(first) == without_label(second)
    assert not any("cached" in record for record in first.records)
    assert all(record["cached"] for record in second.records)
    assert (first.statistics["files_read"], second.statistics["files_read"]) == (files, 0)
    assert (first.statistics.get("cached"), second.statistics["cached"]) == (None, files)
    assert (second.statistics["files_seen"], second.statistics["bytes_read"]) == (files, 0)
    assert second.notes == (f"not read, since earlier scans kept their digests: {files} files",)


@pytest.mark.slow
@pytest.mark.parametrize("files", [50, 700], ids=["judged in place", "judged by workers"])
def test_indicators_that_are_asked_for_again_are_found_without_reading(
    tmp_path: Path, shared: int, files: int
) -> None:
    grow(tmp_path, {f"d{n % 9}/{n:03}": b"%d" % (n // 3) for n in range(files)})
    grow(tmp_path, {"large": b"x" * (3 << 20)})
    os.mkfifo(tmp_path / "d1/fifo")
    (tmp_path / "d1/link").symlink_to("../d2/002")
    digests = [hashlib.sha256(content).hexdigest() for content in (b"0", b"7", b"x" * (3 << 20))]
    search = {"sha256": digests, "md5": ["0" * 32], "options": {"returnhashes": ["sha1"]}}
    plain = run(None, s1={"paths": [str(tmp_path)], **search})
    first, second = scan(shared, tmp_path, search), scan(shared, tmp_path, search)
    assert len(plain.records) == 8
    # The link leads to a file that was read under its own name, or will be.
    assert list(plain.records) == without_label(first) == without_label(second)
    assert all(record["cached"] for record in second.records)
    read = int(first.statistics["files_read"])
    assert files + 1 <= read <= files + 2
    assert first.statistics.get("cached", 0) == files + 2 - read
    assert (second.statistics["files_read"], second.statistics["cached"]) == (0, files + 2)
    assert second.statistics["skipped"] == plain.statistics["skipped"]


def test_a_directory_of_which_all_is_kept_is_not_even_listed_by_name(
    shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"sha256": [hashlib.sha256(b"7").hexdigest()], "options": {"matchall": True}}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # where links tell that no directory is in one
        root = Path(name)
        grow(root, {f"d{n // 100}/{n:03}": b"%d" % n for n in range(900)})
        first = scan(shared, root, search)
        (root / "d5/new").write_bytes(b"7")
        listed = root / "listed"

        def list_leaf(_directory: int, path: bytes, *about: Any) -> Any:
            listed.mkdir(exist_ok=True)
            (listed / Path(os.fsdecode(path)).name).touch()
            return leaf.list_leaf(_directory, path, *about)

        monkeypatch.setattr(worker, "list_leaf", list_leaf)
        second = scan(shared, root, search)
        seen = sorted(path.name for path in listed.iterdir())
    assert paths(first, root) == ["d0/007"]
    assert paths(second, root) == ["d0/007", "d5/new"]
    assert (second.statistics["files_read"], second.statistics["cached"]) == (1, 900)
    # The first files are judged before there are workers; of the others one directory has what is new.
    assert seen == ["d5"]


def test_a_search_that_wants_it_fresh_reads_every_file(tmp_path: Path, shared: int) -> None:
    grow(tmp_path, {"a": b"1", "b": b"2"})
    first, again = scan(shared, tmp_path), scan(shared, tmp_path, FRESH)
    assert first.records == again.records
    assert again.statistics["files_read"] == 2
    both = run(
        Context(digest_cache=shared),
        kept={"paths": [str(tmp_path)], **ALL},
        fresh={"paths": [f"{tmp_path}/a"], **FRESH},
    )
    assert (both.statistics["files_read"], both.statistics["cached"]) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"2"),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.chmod(0o700),
        lambda path: path.rename(path.with_name("x")) and path.write_bytes(b"1"),
    ],
    ids=["content", "mtime", "ctime", "inode"],
)
def test_a_file_that_changed_in_any_way_is_read_again(tmp_path: Path, shared: int, change: Any) -> None:
    grow(tmp_path, {"a": b"1"})
    scan(shared, tmp_path / "a")
    change(tmp_path / "a")
    again = scan(shared, tmp_path / "a")
    assert again.records == scan(shared, tmp_path / "a", FRESH).records
    assert again.statistics["files_read"] == 1


def test_a_search_by_content_reads_whatever_is_kept(tmp_path: Path, shared: int) -> None:
    grow(tmp_path, {"a": b"needle", "b": b"hay"})
    scan(shared, tmp_path)
    options = {"matchall": True, "returnsha256": True}
    by_content = scan(shared, tmp_path, {"contents": ["needle"], "options": options})
    assert paths(by_content, tmp_path) == ["a"]
    assert by_content.statistics["files_read"] == 2


def test_a_file_that_was_read_in_part_is_not_kept(tmp_path: Path, shared: int) -> None:
    grow(tmp_path, {"a": b"needle\n" * (1 << 19)})
    options = {"matchall": True}
    scan(shared, tmp_path, {"contents": ["!needle"], "sha256": ["0" * 64], "options": options})
    assert scan(shared, tmp_path).statistics["files_read"] == 1


def test_a_cache_that_is_none_is_done_without_and_that_is_said(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"1"})
    with (tmp_path / "a").open("rb") as other:
        result = scan(other.fileno(), tmp_path)
    assert paths(result, tmp_path) == ["a"]
    assert result.notes == ("the digest cache is not used: the digest cache is not whole",)


@pytest.mark.slow
@settings(max_examples=100)
@given(found=st.lists(searches(), min_size=1, max_size=3))
def test_searches_find_the_same_with_digests_that_were_kept(
    tree: Path, shared: int, found: list[dict[str, Any]]
) -> None:
    named = {f"s{number}": placed(search, tree) for number, search in enumerate(found)}
    plain = run(None, **named)
    for _ in range(2):
        kept = run(Context(digest_cache=shared), **named)
        assert without_label(kept) == list(plain.records)
        read = {name: kept.statistics[name] for name in ("files_seen", "skipped", "errors", "changed")}
        assert read == {name: plain.statistics[name] for name in read}

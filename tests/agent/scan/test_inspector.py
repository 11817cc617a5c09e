"""Tests of judging files: what is read, what is not, and what is said of files that change meanwhile."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.scan import lines, reading
from agent.scan.opening import open_directory, open_file
from tests.agent.scan.runs import find, grow, paths, run, step

MIB = 1 << 20


def while_open(path: Path, act: Callable[[], None]) -> Context:
    """Return a context that acts whenever the scan has a file open."""

    def look() -> bool:
        if path in [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]:
            act()
        return False

    return Context(is_cancelled=look)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
def test_digests_are_those_of_the_whole_file_whatever_its_size(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    grow(tmp_path, {"a": content})
    result = run(s1={"paths": [str(tmp_path)], "names": ["a"], "options": {"returnsha256": True}})
    assert result.records[0]["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert result.statistics["bytes_read"] == size


def test_content_is_found_across_the_border_of_two_reads(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x" * (MIB - 3) + b"needle" + b"y" * MIB})
    assert find(tmp_path, contents=["xneedley"]) == ["a"]
    assert find(tmp_path, contents=["!needle"]) == []


def test_content_in_binaries_is_found_behind_any_number_of_bytes_without_a_newline(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"\x7fELF" + b"\x00\xff" * 200_000 + b"needle\x00", "b": b"\x00" * 200_000})
    assert find(tmp_path, contents=["needle"]) == ["a"]
    assert find(tmp_path, contents=["!needle"]) == ["b"]
    assert find(tmp_path, contents=[r"^\x7fELF.*\xffneedle\x00$"]) == ["a"]


def test_a_search_by_content_and_hash_reads_no_further_than_it_must(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"needle\n" + b"x\n" * (2 * MIB)})
    result = run(s1={"paths": [str(tmp_path)], "contents": ["^needle$"], "options": {"matchall": True}})
    assert result.statistics["bytes_read"] == MIB
    search = {"contents": ["!needle"], "sha256": ["0" * 64], "options": {"matchall": True}}
    assert run(s1={"paths": [str(tmp_path)], **search}).statistics["bytes_read"] == MIB


def test_a_line_beyond_the_window_is_matched_in_pieces_and_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lines.LineQuestion.__init__, "__kwdefaults__", {"max_line_bytes": MIB, "overlap_bytes": 64}
    )
    grow(tmp_path, {"a": b"x" * (3 * MIB) + b"needle"})
    result = run(s1={"paths": [str(tmp_path)], "contents": ["needle"]})
    assert paths(result, tmp_path) == ["a"]
    assert result.notes == (f"{tmp_path}/a: has a line of more than 16 MiB, which was matched in pieces",)


def test_inverted_contents_of_several_searches_do_not_touch_each_other(tmp_path: Path) -> None:
    grow(tmp_path, {"a/one": b"x\n", "b/two": b"y\n", "b/deep/three": b"z\n"})
    result = run(
        not_x={"paths": [str(tmp_path)], "contents": ["!x"]},
        not_y={
            "paths": [f"{tmp_path}/b"],
            "contents": ["!y"],
            "names": ["two"],
            "options": {"matchall": True},
        },
        flat={"paths": [f"{tmp_path}/b"], "contents": ["!q"], "options": {"maxdepth": 1}},
    )
    assert paths(result, tmp_path, "not_x") == ["b/two", "b/deep/three"]
    assert paths(result, tmp_path, "not_y") == []
    assert paths(result, tmp_path, "flat") == ["b/two"]
    assert result.notes == ()


def test_a_file_that_vanishes_before_it_is_looked_at_is_noted(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc", "b": b"abc", "c": b"abc"})
    context = Context()
    found = step(context, tmp_path, contents=["abc"])
    assert next(found) == "a"
    (tmp_path / "b").unlink()
    assert list(found) == ["c"]
    assert context.notes == [f"{tmp_path}/b: vanished while the scan ran"]
    assert context.statistics["skipped"] == {"vanished": 1}


def test_a_match_that_vanishes_later_loses_no_result(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc", "b": b"abc"})
    found = step(Context(), tmp_path, names=["."], options={"returnsha256": True})
    assert next(found) == "a"
    (tmp_path / "a").unlink()
    assert list(found) == ["b"]


@pytest.mark.parametrize("replace", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_a_file_that_is_replaced_by_something_else_is_neither_opened_nor_followed(
    tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    grow(tmp_path, {"a": b"root", "b": b"root", "c": b"root"})
    context = Context()
    found = step(context, tmp_path, contents=["root"])
    assert next(found) == "a"
    (tmp_path / "b").unlink()
    replace(tmp_path / "b")
    assert list(found) == ["c"]
    assert context.statistics["skipped"] == {"special-file": 1}


def test_a_file_that_grows_without_end_is_read_to_the_size_that_it_had_and_said_to_change(
    tmp_path: Path,
) -> None:
    grow(tmp_path, {"log": b"x\n" * MIB})

    def append() -> None:
        with (tmp_path / "log").open("ab") as log:
            log.write(b"needle\n" * MIB)

    context = while_open(tmp_path / "log", append)
    assert find(tmp_path, contents=["needle"], context=context) == []
    assert (context.statistics["bytes_read"], context.statistics["changed"]) == (2 * MIB, 1)
    assert context.notes == [f"{tmp_path}/log: changed while it was read"]


def test_a_file_that_is_truncated_while_it_is_read_is_said_to_change(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x\n" * (MIB), "b": b"y\n"})
    context = while_open(tmp_path / "a", lambda: os.truncate(tmp_path / "a", 10))
    search: dict[str, Any] = {"names": ["."], "options": {"returnsha256": True}}
    assert find(tmp_path, context=context, **search) == ["a", "b"]
    assert context.notes == [f"{tmp_path}/a: changed while it was read"]


def test_a_file_of_holes_is_not_read_and_that_is_said(tmp_path: Path) -> None:
    grow(tmp_path, {"small": b"abc"})
    with (tmp_path / "holes").open("wb") as holes:
        holes.truncate(1 << 40)
    result = run(
        s1={"paths": [str(tmp_path)], "contents": ["!needle"], "options": {"matchall": True}},
        s2={"paths": [str(tmp_path)], "sizes": [">1t"], "sha256": ["0" * 64]},
    )
    assert paths(result, tmp_path, "s1") == ["small"]
    assert paths(result, tmp_path, "s2") == ["holes"]
    assert result.statistics["skipped"] == {"sparse": 1}
    assert result.notes == (f"{tmp_path}/holes: not read: {1 << 40} bytes, of which 0 are stored",)


def test_a_large_file_that_is_mostly_stored_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SPARSE_BYTES", MIB)
    with (tmp_path / "half").open("wb") as half:
        half.write(b"x" * (MIB // 2))
        half.truncate(MIB)
    assert find(tmp_path, contents=["x"]) == ["half"]


def test_a_file_in_proc_is_read_although_it_says_size_zero(tmp_path: Path) -> None:
    own = f"/proc/{os.getpid()}"
    result = run(
        s1={"paths": [f"{own}/cmd*"], "contents": ["python"]},
        s2={"paths": [f"{own}/environ"], "names": ["."]},
    )
    assert [record["path"] for record in result.records] == [f"{own}/cmdline", f"{own}/environ"]


def test_what_blocks_or_is_consumed_in_proc_is_not_read() -> None:
    result = run(
        s1={"paths": ["/proc/kmsg", "/proc/kcore", f"/proc/{os.getpid()}/mem"], "contents": ["!needle"]}
    )
    assert result.records == ()
    assert result.statistics["skipped"]["pseudo-filesystem"] >= 2
    assert result.statistics["files_read"] == 0


def test_a_link_to_what_blocks_or_is_consumed_is_not_read_either(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x", "z": b"y"})
    (tmp_path / "innocent").symlink_to("/proc/kmsg")
    (tmp_path / "roundabout").symlink_to("/proc/self/root/proc/kmsg")
    (tmp_path / "status").symlink_to("/proc/self/comm")
    result = run(s1={"paths": [str(tmp_path)], "contents": ["!nothing"], "options": {"matchall": True}})
    assert paths(result, tmp_path) == ["a", "status", "z"]
    assert (result.statistics["skipped"], result.statistics["files_read"]) == ({"pseudo-filesystem": 2}, 3)


def test_opening_a_fifo_does_not_block_and_a_link_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    directory = open_directory(os.fsencode(tmp_path))
    try:
        os.close(open_file(b"fifo", directory, follow=False))
        with pytest.raises(OSError, match="symbolic links"):
            open_file(b"link", directory, follow=False)
    finally:
        os.close(directory)


def test_no_access_time_is_left_on_what_is_read(tmp_path: Path) -> None:
    grow(tmp_path, {"d/a": b"abc"})
    for path in (tmp_path / "d/a", tmp_path / "d"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
    assert find(tmp_path, contents=["abc"]) == ["d/a"]
    assert ((tmp_path / "d/a").stat().st_atime_ns, (tmp_path / "d").stat().st_atime_ns) == (1, 1)


def test_cancelling_ends_a_scan_inside_a_large_file(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x" * (3 * MIB)})
    stop: list[bool] = []
    context = while_open(tmp_path / "a", lambda: stop.append(True))
    inner = context._is_cancelled
    context._is_cancelled = lambda: inner() or len(stop) > 1
    result = run_operation(
        "file", {"searches": {"s1": {"paths": [str(tmp_path)], "sha256": ["0" * 64]}}}, context
    )
    assert (result.status, result.truncated) == ("cancelled", True)
    assert int(result.statistics["bytes_read"]) < 3 * MIB


def test_errors_are_named_up_to_maxerrors_and_all_are_counted(tmp_path: Path) -> None:
    missing = [f"{tmp_path}/missing{number}" for number in range(5)]
    search = {"paths": missing, "names": ["a"]}
    result = run(s1={**search, "options": {"maxerrors": 2}})
    assert result.statistics["errors"] == 5
    assert result.notes[2:] == ("3 further errors withheld (maxerrors 2)",)
    assert len(run(s1={**search, "options": {"maxerrors": 2}}, s2=search).notes) == 5

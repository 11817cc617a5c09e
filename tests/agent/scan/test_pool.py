"""Tests of workers on real files: they die for real, and the answer says what that cost and nothing else."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.module import Budget, Context
from agent.scan import pool, reading, run, settling, source
from agent.scan.coverage import Coverage
from agent.scan.items import Match
from agent.scan.plan import make_plan
from agent.scan.run import Effort
from agent.scan.scan import scan, usable_workers
from agent.scan.search import Search
from tests.agent.scan.runs import grow
from tests.agent.scan.test_independence import placed, searches, tree

__all__ = ["tree"]

KIB = 1 << 10
MIB = 1 << 20
# Everything is given to workers, from the first file on.
WORKERS_ONLY = Effort(here_files=0, here_bytes=0, defer_bytes=64 * KIB)


class Asked:
    """A scan that can be asked step by step, and what it says."""

    def __init__(
        self,
        searches: Mapping[str, Mapping[str, Any]],
        *,
        workers: int = 2,
        effort: Effort = WORKERS_ONLY,
        **options: Any,
    ) -> None:
        self.context = Context()
        plan = make_plan({name: msgspec.convert(one, Search) for name, one in searches.items()}, now_ns=0)
        self.coverage = Coverage(self.context.note)
        self.matches = scan(
            plan,
            coverage=self.coverage,
            check=options.pop("check", self.context.check),
            truncate=self.context.truncate,
            workers=workers,
            effort=effort,
            **options,
        )

    def names(self) -> list[str]:
        return [name_of(match) for match in self.matches]

    def all(self) -> tuple[list[Match], dict[str, Any], list[str]]:
        return list(self.matches), self.coverage.statistics(), self.context.notes


def name_of(match: Match) -> str:
    return os.fsdecode(match.path).rpartition("/")[2]


def descriptors() -> set[str]:
    return {link.name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


def hashes(root: Path, **more: Any) -> dict[str, Any]:
    options = {"matchall": True, "returnsha256": True, **more.pop("options", {})}
    return {"s1": {"paths": [str(root)], "sizes": [">0"], "options": options, **more}}


def children() -> set[int]:
    own = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    return {int(pid) for pid in Path(own).read_text().split()}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No scan leaves a process or a descriptor, however it ends."""
    before = descriptors()
    processes = children()
    yield
    assert children() == processes
    left = {name: Path(f"/proc/self/fd/{name}").readlink() for name in descriptors() - before}
    assert descriptors() == before, left


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(found=st.lists(searches(), min_size=1, max_size=3), lag=st.integers(1, 4))
def test_the_answer_is_the_same_whoever_judged(tree: Path, found: list[dict[str, Any]], lag: int) -> None:
    named = {f"s{number}": placed(search, tree) for number, search in enumerate(found)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "LAG", lag)
        here = Asked(named, workers=0).all()
        for workers in (1, 2, 3):
            effort = Effort(here_files=3, here_bytes=7, defer_bytes=1) if workers == 2 else WORKERS_ONLY
            assert Asked(named, workers=workers, effort=effort).all() == here


def test_large_files_are_handed_out_before_anybody_is_listened_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(_number: int, _frame: Any) -> None:
        raise AssertionError("nobody had anything to say")

    monkeypatch.setattr(run, "_LISTEN_MS", 3_600_000)
    grow(tmp_path, dict.fromkeys("abc", b"x" * 80 * KIB))
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    try:
        assert Asked(hashes(tmp_path), effort=Effort(here_bytes=64 * KIB)).names() == ["a", "b", "c"]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_what_large_files_hold_is_told_in_the_order_of_the_walk(tmp_path: Path) -> None:
    contents = {f"{number:02}": os.urandom((number % 5) * 40 * KIB + 1) for number in range(40)}
    grow(tmp_path, contents)
    matches, statistics, notes = Asked(hashes(tmp_path)).all()
    assert [name_of(match) for match in matches] == sorted(contents)
    assert [match.digests["sha256"] for match in matches] == [
        hashlib.sha256(contents[name]).hexdigest() for name in sorted(contents)
    ]
    assert statistics["bytes_read"] == sum(map(len, contents.values()))
    assert (statistics["files_seen"], statistics["files_read"], notes) == (40, 40, [])


def test_a_mapped_file_gives_the_digest_that_a_read_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAP_BYTES", 64 * KIB)
    monkeypatch.setattr(source, "WINDOW_BYTES", 256 * KIB)
    content = os.urandom(MIB + 5) + b"\nneedle\n"
    grow(tmp_path, {"a": content})
    search = hashes(tmp_path, contents=["^needle$"])
    matches, statistics, notes = Asked(search).all()
    assert [match.digests["sha256"] for match in matches] == [hashlib.sha256(content).hexdigest()]
    assert (matches, statistics, notes) == Asked(search, workers=0).all()


def test_a_file_that_is_truncated_under_a_worker_that_maps_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAP_BYTES", 64 * KIB)
    grow(tmp_path, {"a": b"a", "big": b"x" * MIB, "c": b"c"})
    maps: list[bool] = []
    mapped = source.MappedSource

    class Truncated(mapped):  # type: ignore[misc, valid-type]
        """The file loses its end after it was mapped and before it is touched: what an attacker would do."""

        def read(self, size: int) -> source.Buffer:
            data: source.Buffer = super().read(size)
            os.truncate(tmp_path / "big", 10)
            maps.append(True)
            return data

    monkeypatch.setattr(reading, "MappedSource", Truncated)
    matches, statistics, notes = Asked(hashes(tmp_path)).all()
    assert [name_of(match) for match in matches] == ["a", "big", "c"]
    assert matches[1].digests["sha256"] == hashlib.sha256(b"x" * 10).hexdigest()
    assert (notes, statistics["errors"], statistics["files_seen"]) == ([], 0, 3)


def kill_at(name: bytes, number: int = signal.SIGKILL) -> Callable[[int, os.stat_result, bytes], bytes]:
    """Return an examination during which the process that judges dies."""

    def examine(descriptor: int, status: os.stat_result, path: bytes) -> bytes:
        if path.endswith(b"/" + name):
            os.kill(os.getpid(), number)
        return b"seen"

    return examine


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_the_file_at_which_a_worker_dies_is_named_and_all_others_are_told_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    grow(tmp_path, {f"{index:03}": b"%d" % index for index in range(500)})
    asked = Asked(hashes(tmp_path), examine=kill_at(b"123", number))
    matches, statistics, notes = asked.all()
    names = [name_of(match) for match in matches]
    assert names == [f"{index:03}" for index in range(500) if index != 123]
    assert {match.examined for match in matches} == {b"seen"}
    assert notes == [f"{tmp_path}/123: not judged: the process that read it was killed by {number.name}"]
    assert (statistics["errors"], statistics["files_seen"], statistics["files_read"]) == (1, 500, 499)


def test_an_error_of_ours_at_a_file_costs_that_file_and_is_named(tmp_path: Path) -> None:
    grow(tmp_path, {f"{index}": b"x" for index in range(9)})

    def examine(descriptor: int, status: os.stat_result, path: bytes) -> bytes:
        if path.endswith(b"/4"):
            raise MemoryError("too large")
        return b"seen"

    matches, _, notes = Asked(hashes(tmp_path), examine=examine).all()
    assert len(matches) == 8
    assert notes == [f"{tmp_path}/4: not judged: MemoryError: too large"]


@pytest.mark.slow
def test_workers_that_are_killed_from_outside_are_replaced_and_nothing_is_lost_silently(
    tmp_path: Path,
) -> None:
    grow(tmp_path, {f"{index:04}": b"x" for index in range(3000)})
    before = children()
    asked = Asked(hashes(tmp_path))
    first = next(asked.matches)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
    names = {name_of(first), *asked.names()}
    lost = {note.split(":")[0].rpartition("/")[2] for note in asked.context.notes}
    assert names | lost == {f"{index:04}" for index in range(3000)}
    assert not names & lost
    assert asked.coverage.statistics()["errors"] == len(lost) <= 2


@pytest.mark.slow
def test_a_scan_whose_workers_all_die_ends_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_DEATHS", 5)
    grow(tmp_path, {f"{index:03}": b"x" for index in range(300)})

    def examine(descriptor: int, status: os.stat_result, path: bytes) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    asked = Asked(hashes(tmp_path), examine=examine)
    assert asked.names() == []
    assert asked.context.truncated
    assert asked.context.notes[-1] == "the scan ended early: 6 of its workers died"


def test_a_large_answer_of_a_worker_comes_whole(tmp_path: Path) -> None:
    grow(tmp_path, {f"{index:03}": b"x" for index in range(200)})
    asked = Asked(hashes(tmp_path), examine=lambda *about: about[2][-3:] * 10_000)
    assert [match.examined[:3] for match in asked.matches] == [b"%03d" % index for index in range(200)]


@pytest.mark.slow
def test_a_cancelled_scan_tells_what_it_had_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eight tasks, of which two workers have six at most before any of them is settled, however slow we are.
    monkeypatch.setattr(pool, "TASK_NAMES", 256)
    grow(tmp_path, {f"{index:04}": b"x" for index in range(2000)})
    told: list[Match] = []

    class Stopped(Exception):
        pass

    def check() -> None:
        if told:
            raise Stopped("enough")

    asked = Asked(hashes(tmp_path), check=check)
    told.append(next(asked.matches))
    with pytest.raises(Stopped, match="^enough$"):
        told.extend(asked.matches)
    assert asked.coverage.statistics()["files_seen"] < 2000


@pytest.mark.slow
def test_a_scan_that_is_left_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    grow(tmp_path, {f"{index:04}": b"x" for index in range(2000)})
    asked = Asked(hashes(tmp_path))
    next(asked.matches)
    asked.matches.close()
    assert asked.coverage.statistics()["files_seen"] >= 1


def test_a_small_scan_and_one_by_names_alone_start_no_worker(tmp_path: Path) -> None:
    grow(tmp_path, {f"{index:04}": b"x" for index in range(400)})
    before = children()
    names = {"s1": {"paths": [str(tmp_path)], "names": ["."]}}
    for asked, effort in ((names, WORKERS_ONLY), (hashes(tmp_path), Effort(here_files=1000))):
        for _ in Asked(asked, effort=effort).matches:
            assert children() == before


def test_where_no_worker_can_be_started_everything_is_judged_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(tmp_path, {"a": b"x", "b": b"y" * 100 * KIB, "c": b"z"})
    expected = Asked(hashes(tmp_path)).all()

    def fail(*_arguments: int) -> None:
        raise OSError("not on this system")

    monkeypatch.setattr("agent.scan.pool.socket.socketpair", fail)
    assert Asked(hashes(tmp_path)).all() == expected
    assert Asked(hashes(tmp_path), effort=Effort(here_bytes=1)).all() == expected


def test_as_many_workers_are_used_as_there_are_processors_or_fewer_where_the_budget_says_so() -> None:
    assert usable_workers(Budget(workers=1)) == 1
    assert usable_workers(Budget()) == min(len(os.sched_getaffinity(0)), 8)

"""Tests of the digest cache: it gives the digest of the very file, or none."""

import itertools
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.digest_file import FILE_BYTES, HEADER_BYTES, PROBES, RECORD_BYTES, SLOTS, open_cache
from agent.scan.cache import SETTLED_NS, DigestCache
from tests.support.apart import NOBODY, leave_mounts, mount, run_apart

NOW = 1_800_000_000 * 10**9
OLD = NOW - SETTLED_NS
FIELDS = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
DIGESTS = {"md5": "a1" * 16, "sha256": "b2" * 32, "xxh3_128": "c3" * 16}


def status(**fields: int) -> os.stat_result:
    known = {"st_dev": 5, "st_ino": 7, "st_size": 9, "st_mtime_ns": 11, "st_ctime_ns": OLD, **fields}
    times = {"st_atime": 0.0, "st_mtime": 0.0, "st_ctime": 0.0}
    numbers = (0o100644, known["st_ino"], known["st_dev"], 1, 0, 0, known["st_size"], 0, 0, 0)
    return os.stat_result(
        numbers, {**times, **{name: known[name] for name in ("st_mtime_ns", "st_ctime_ns")}}
    )


def make(descriptor: int, *, kind: str | None = "ext4", slots: int = SLOTS) -> DigestCache:
    return DigestCache(descriptor, now_ns=NOW, type_of=lambda _device: kind, slots=slots)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "digests"
    (tmp_path / "digests").unlink(missing_ok=True)


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    opened = open_cache(path, "build")
    yield opened.descriptor
    os.close(opened.descriptor)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("cache") / "digests"
    opened = open_cache(path, "build")
    yield opened.descriptor
    os.close(opened.descriptor)
    path.unlink()


def test_what_was_kept_is_recalled_in_another_process_too(path: Path, descriptor: int) -> None:
    make(descriptor).keep(status(), status(), DIGESTS)
    again = open_cache(path, "build")
    assert again.replaced == ""
    recalled = make(again.descriptor).recall(status(), DIGESTS)
    os.close(again.descriptor)
    assert recalled == DIGESTS


def test_a_file_is_recalled_only_where_all_that_is_asked_for_is_known(descriptor: int) -> None:
    cache = make(descriptor)
    cache.keep(status(), status(), DIGESTS)
    assert cache.recall(status(), ["md5"]) == {"md5": DIGESTS["md5"]}
    assert cache.recall(status(), ["md5", "sha1"]) is None


# Further apart than a test moves one.
INODES = itertools.count(1, 2**33)


@given(
    fields=st.fixed_dictionaries({name: st.integers(1, 2**62) for name in FIELDS[:4]}),
    changed=st.sampled_from(FIELDS),
    by=st.integers(1, 2**32),
)
def test_a_file_that_differs_in_any_of_five_things_is_another(
    shared: int, fields: dict[str, int], changed: str, by: int
) -> None:
    cache = make(shared)
    fields["st_ino"] = next(INODES)  # the examples before this one have left their files
    kept = status(**fields)
    cache.keep(kept, kept, DIGESTS)
    assert cache.recall(kept, DIGESTS) == DIGESTS
    other = {"st_ctime_ns": OLD, **fields}
    assert cache.recall(status(**{**other, changed: other[changed] + by}), ["sha256"]) is None


@given(data=st.data())
def test_whatever_is_damaged_in_the_file_no_wrong_digest_comes_of_it(
    shared: int, data: st.DataObject
) -> None:
    cache = make(shared, slots=1)
    kept = status(st_ino=data.draw(st.integers(1, 2**62)))
    cache.keep(kept, kept, {"sha256": DIGESTS["sha256"]})
    window = bytearray(os.pread(shared, PROBES * RECORD_BYTES, HEADER_BYTES))
    at = data.draw(st.integers(0, len(window) - 1))
    garbage = data.draw(st.binary(min_size=1, max_size=RECORD_BYTES))
    window[at : at + len(garbage)] = garbage
    os.pwrite(shared, window[: PROBES * RECORD_BYTES], HEADER_BYTES)
    assert cache.recall(kept, ["sha256"]) in (None, {"sha256": DIGESTS["sha256"]})


def test_what_changed_within_the_last_minute_is_not_kept(descriptor: int) -> None:
    young = status(st_ctime_ns=OLD + 1)
    make(descriptor).keep(young, young, DIGESTS)
    assert make(descriptor).recall(young, ["md5"]) is None


def test_what_changed_while_it_was_read_is_not_kept(descriptor: int) -> None:
    cache = make(descriptor)
    cache.keep(status(), status(st_ctime_ns=NOW), DIGESTS)
    assert cache.recall(status(), ["md5"]) is None
    assert cache.recall(status(st_ctime_ns=NOW), ["md5"]) is None


@pytest.mark.parametrize("kind", ["tmpfs", "nfs4", "overlay", "fuse.sshfs", "proc", None])
def test_file_systems_whose_times_prove_nothing_are_not_trusted(descriptor: int, kind: str | None) -> None:
    make(descriptor, kind=kind).keep(status(), status(), DIGESTS)
    assert make(descriptor).recall(status(), ["md5"]) is None
    make(descriptor).keep(status(), status(), DIGESTS)
    assert make(descriptor, kind=kind).recall(status(), ["md5"]) is None


def test_digests_that_have_no_room_in_a_record_are_not_kept(descriptor: int) -> None:
    cache = make(descriptor)
    cache.keep(status(), status(), {"sha512": "d4" * 64, "md5": DIGESTS["md5"]})
    assert cache.recall(status(), ["sha512"]) is None
    assert cache.recall(status(), ["md5"]) == {"md5": DIGESTS["md5"]}


def test_a_full_neighbourhood_makes_room_for_what_comes(descriptor: int) -> None:
    cache = make(descriptor, slots=1)
    kept = [status(st_ino=number) for number in range(1, 50)]
    for one in kept:
        cache.keep(one, one, {"md5": f"{one.st_ino:032x}"})
    recalled = [cache.recall(one, ["md5"]) for one in kept]
    assert len([digests for digests in recalled if digests is not None]) == PROBES
    assert all(
        digests in (None, {"md5": f"{one.st_ino:032x}"}) for one, digests in zip(kept, recalled, strict=True)
    )


def test_workers_that_write_at_once_leave_no_wrong_digest(descriptor: int) -> None:
    kept = [status(st_ino=number) for number in range(1, 400)]
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                # All into one neighbourhood, so that they do meet.
                cache = make(descriptor, slots=1)
                for one in kept[child::2]:
                    cache.keep(one, one, {"md5": f"{one.st_ino:032x}"})
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    cache = make(descriptor, slots=1)
    for one in kept:
        assert cache.recall(one, ["md5"]) in (None, {"md5": f"{one.st_ino:032x}"})


def test_where_nothing_can_be_written_what_is_there_is_still_recalled(descriptor: int) -> None:
    make(descriptor).keep(status(), status(), DIGESTS)

    def act() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
        cache = make(descriptor)
        other = status(st_ino=8)
        cache.keep(other, other, DIGESTS)
        return cache.recall(other, ["md5"]), cache.recall(status(), ["md5"])

    assert run_apart(act) == [None, {"md5": DIGESTS["md5"]}]


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o640), "is not this user's alone"),
        (lambda path: os.truncate(path, FILE_BYTES - 1), "is not whole"),
        (lambda path: path.write_bytes(b""), "is not whole"),
        (lambda path: write_at(path, 20, b"\xff"), "is damaged"),
        (lambda path: os.link(path, path.with_name("another")), "is not a file of its own"),
        (lambda path: path.rename(path.with_name("a")) and path.symlink_to("a"), "Too many levels"),
        (put_fifo, "is not a file of its own"),
    ],
    ids=["open to others", "cut", "empty", "damaged", "linked", "a link", "a fifo"],
)
def test_a_file_that_is_not_as_it_was_left_is_replaced_and_that_is_said(
    path: Path, spoil: Any, said: str
) -> None:
    first = open_cache(path, "build")
    make(first.descriptor).keep(status(), status(), DIGESTS)
    os.close(first.descriptor)
    spoil(path)
    second = open_cache(path, "build")
    assert said in second.replaced
    assert make(second.descriptor).recall(status(), ["md5"]) is None
    os.close(second.descriptor)
    third = open_cache(path, "build")
    os.close(third.descriptor)
    assert third.replaced == ""


def write_at(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_what_another_build_has_kept_is_not_trusted(path: Path, descriptor: int) -> None:
    make(descriptor).keep(status(), status(), DIGESTS)
    other = open_cache(path, "another build")
    assert other.replaced == "is of another build"
    assert make(other.descriptor).recall(status(), ["md5"]) is None
    os.close(other.descriptor)


def test_a_record_of_an_earlier_file_is_none_in_a_later_one(path: Path, descriptor: int) -> None:
    make(descriptor).keep(status(), status(), DIGESTS)
    table = os.pread(descriptor, FILE_BYTES - HEADER_BYTES, HEADER_BYTES)
    path.unlink()
    later = open_cache(path, "build")
    os.pwrite(later.descriptor, table, HEADER_BYTES)
    assert make(later.descriptor).recall(status(), ["md5"]) is None
    os.close(later.descriptor)


@pytest.mark.system
def test_a_disk_without_room_has_no_cache_and_no_half_one(tmp_path: Path) -> None:
    def act() -> Any:
        mount("tmpfs", tmp_path, "-o", "size=8m,mode=700")
        with pytest.raises(OSError, match="No space left"):
            open_cache(tmp_path / "digests", "build")
        return [path.name for path in tmp_path.iterdir()]

    assert run_apart(act, prepare=leave_mounts) == []


@pytest.mark.system
def test_a_file_that_belongs_to_another_user_is_replaced(path: Path) -> None:
    first = open_cache(path, "build")
    os.close(first.descriptor)
    os.chown(path, NOBODY, NOBODY)
    second = open_cache(path, "build")
    os.close(second.descriptor)
    assert second.replaced == "is not this user's alone"
    assert path.stat().st_uid == os.geteuid()

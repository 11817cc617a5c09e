"""Traps that move: somebody changes the tree all the time while it is scanned, by workers too."""

import hashlib
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.module import Context
from agent.scan import quick_reading
from tests.agent.scan.runs import grow, run, step

STEADY, VICTIMS = 600, 60
ROUNDS = 2


@contextmanager
def somebody(act: Callable[[random.Random], None]) -> Iterator[None]:
    """Have another process act again and again while the body runs."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        rng = random.Random(1)  # noqa: S311  (no secret)
        try:
            while os.getppid() == parent:
                with suppress(OSError):  # what it did a moment ago may be in its own way
                    act(rng)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files that nobody touches, between others that change all the time; secrets outside."""
    grow(tmp_path / "in", {f"d{n % 20}/steady{n:03}": b"steady %d\n" % n for n in range(STEADY)})
    grow(tmp_path / "in", {f"d{n % 20}/victim{n:03}": b"victim\n" * 1000 for n in range(VICTIMS)})
    grow(tmp_path / "in", {f"swap{n}/inside": b"steady\n" for n in range(10)})
    grow(tmp_path / "out", {"secret": b"steady secret\n", "inside": b"outside\n"})
    return tmp_path


def replace(victim: Path, rng: random.Random) -> None:
    """Do one of the things that can be done to a file under a scan."""
    what = rng.randrange(7)
    if what == 0:
        with victim.open("ab") as file:
            file.write(b"more\n" * 5000)
    elif what == 1:
        os.truncate(victim, rng.randrange(7000))
    elif what == 2:
        victim.unlink()
    else:
        new = victim.with_name("." + victim.name)
        new.unlink(missing_ok=True)
        if what == 3:
            os.mkfifo(new)
        elif what == 4:
            new.symlink_to("/dev/zero")
        elif what == 5:
            new.symlink_to(victim.name)
        else:
            new.write_bytes(b"victim\n" * 1000)
        new.replace(victim)


@pytest.mark.slow
@pytest.mark.parametrize("settled_ns", [quick_reading.SETTLED_NS, 0], ids=["one by one", "in bulk"])
def test_what_nobody_touches_is_found_whole_while_all_around_changes(
    tree: Path, monkeypatch: pytest.MonkeyPatch, settled_ns: int
) -> None:
    # What was made a moment ago is judged by itself; here it may also count as old.
    monkeypatch.setattr(quick_reading, "SETTLED_NS", settled_ns)

    def act(rng: random.Random) -> None:
        number = rng.randrange(VICTIMS)
        replace(tree / f"in/d{number % 20}/victim{number:03}", rng)

    digests = {hashlib.sha256(b"steady %d\n" % n).hexdigest() for n in range(STEADY)}
    with somebody(act):
        for _ in range(ROUNDS):
            alone = run(indicators={"paths": [str(tree / "in")], "sha256": sorted(digests)})
            assert {record["hashes"]["sha256"] for record in alone.records} == digests
            assert len(alone.records) == STEADY
            result = run(
                content={"paths": [str(tree / "in")], "contents": [r"^steady \d+$"]},
                whole={"paths": [str(tree / "in")], "names": ["^steady"], "options": {"returnsha256": True}},
            )
            by_content = [record for record in result.records if record["search"] == "content"]
            assert len({record["path"] for record in by_content}) == len(by_content) == STEADY
            whole = [record for record in result.records if record["search"] == "whole"]
            assert len(whole) == STEADY
            assert {record["hashes"]["sha256"] for record in whole} == digests
            assert result.statistics["files_seen"] >= STEADY + 10


@pytest.mark.slow
def test_a_directory_that_is_swapped_for_a_link_all_the_time_never_leads_outside(tree: Path) -> None:
    (tree / "aside").mkdir()

    def act(rng: random.Random) -> None:
        name = f"swap{rng.randrange(10)}"
        place, aside = tree / "in" / name, tree / "aside" / name
        if place.is_symlink():
            place.unlink()
            aside.rename(place)
        else:
            place.rename(aside)
            place.symlink_to(tree / "out")

    with somebody(act):
        for _ in range(ROUNDS):
            result = run(all={"paths": [str(tree / "in")], "contents": ["steady|outside"]})
            found = {record["path"].removeprefix(f"{tree}/in/") for record in result.records}
            assert not [path for path in found if path.endswith("secret")]
            assert len([path for path in found if "/steady" in path]) == STEADY
            inside = [record for record in result.records if record["path"].endswith("/inside")]
            assert {record["size_bytes"] for record in inside} <= {len(b"steady\n")}


@pytest.mark.slow
def test_what_is_moved_away_under_the_scan_is_found_whole_or_named(tmp_path: Path) -> None:
    grow(tmp_path, {f"d{n % 50:02}/e/file{n:04}": b"steady\n" for n in range(2000)})
    context = Context()
    found = step(context, tmp_path, contents=["^steady$"])
    first = next(found)
    for n in range(10, 50):
        (tmp_path / f"d{n:02}").rename(tmp_path.parent / f"{tmp_path.name}-gone{n:02}")
    # What a worker or the walk had open goes on to be read: a descriptor does not care for names.
    all_found = [first, *found]
    vanished = dict(context.statistics["skipped"])["vanished"]  # type: ignore[arg-type]
    assert vanished > 0
    assert len(context.notes) == vanished
    assert len(set(all_found)) == len(all_found) == 2000 - 40 * vanished

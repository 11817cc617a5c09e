"""Traps of names: bytes that are no text, line ends, what looks like an option, and trees without a bottom.

Each tree is larger than what is judged in place, so that names also travel to workers and back.
"""

import hashlib
import os
from pathlib import Path

import pytest

from agent.scan.texts import path_text
from tests.agent.scan.runs import find, grow, run
from tests.agent.scan.test_walk import remove_deep

CROWD = 3000
STRANGE = (
    b"-rf", b"--help", b"-", b" ", b"  lead and trail  ", b"new\nline", b"\n", b"carriage\rreturn", b"tab\t",
    b"\xff\xfe", b"caf\xe9", "café".encode(), "cafe\u0301".encode(), b"back\\slash", b"\\xff", b"\x1b[2J\x07",
    b"'\"`$(x)", b"*", b"?", b"[a]", b"{a,b}", b"**", b"...", b"~", b"%s%n", b"null\xc0\x80", b"\xed\xa0\x80",
    b"x" * 255, b"\xf0\x9f\x92\xa9" * 63, "\u202egpj.exe".encode(),
)  # fmt: skip


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with strange names among many plain ones, and in a directory of each name a file of it too."""
    root = tmp_path_factory.mktemp("crowd")
    for number in range(CROWD):
        directory = root / f"d{number % 7}"
        directory.mkdir(exist_ok=True)
        (directory / f"plain{number:04}").write_bytes(b"plain %d\n" % number)
    for name in STRANGE:
        text = os.fsdecode(name)
        grow(root, {f"d0/{text}": b"strange " + name, f"names/{text}/{text}": b"inside " + name})
    return root


def shown(root: Path, *, prefix: bytes, inside: bool) -> set[str]:
    names = (prefix + (name + b"/" + name if inside else name) for name in STRANGE)
    return {path_text(os.fsencode(root) + b"/" + name) for name in names}


def test_names_of_any_bytes_are_found_by_content_and_come_back_as_they_are(crowd: Path) -> None:
    result = run(s1={"paths": [str(crowd)], "contents": ["^(strange|inside) "]})
    found = [record["path"] for record in result.records]
    assert len(found) == 2 * len(STRANGE)
    assert set(found) == shown(crowd, prefix=b"d0/", inside=False) | shown(
        crowd, prefix=b"names/", inside=True
    )
    assert (result.notes, result.statistics["errors"]) == ((), 0)


@pytest.mark.slow
def test_digests_are_those_of_the_very_file_whatever_its_name(crowd: Path) -> None:
    digests = {hashlib.sha256(b"strange " + name).hexdigest() for name in STRANGE}
    result = run(s1={"paths": [str(crowd)], "sha256": sorted(digests), "options": {"matchall": True}})
    assert {record["hashes"]["sha256"] for record in result.records} == digests
    assert {record["path"] for record in result.records} == shown(crowd, prefix=b"d0/", inside=False)


def test_names_of_any_bytes_are_found_by_name_and_by_size(crowd: Path) -> None:
    result = run(s1={"paths": [str(crowd)], "names": ["!^plain"], "options": {"matchall": True}})
    assert len(result.records) == 2 * len(STRANGE)
    long = run(s1={"paths": [str(crowd)], "sizes": [">200"], "options": {"matchall": True}})
    assert [record["size_bytes"] for record in long.records].count(len(b"strange ") + 255) == 1


def test_a_name_with_a_line_end_is_one_name(crowd: Path) -> None:
    assert find(crowd, names=["^line$"]) == []
    assert find(crowd, names=["^new.line$"]) == []
    assert find(crowd, names=["(?s)^new.line$"]) == ["d0/new\nline", "names/new\nline/new\nline"]


def test_all_files_of_a_large_tree_are_counted_and_read_once(crowd: Path) -> None:
    result = run(s1={"paths": [str(crowd)], "contents": ["!nothing"], "options": {"matchall": True}})
    files = [Path(where, name) for where, _, names in os.walk(crowd) for name in names]
    assert len(result.records) == len(files) == CROWD + 2 * len(STRANGE)
    counts = {name: result.statistics[name] for name in ("files_seen", "files_read", "bytes_read", "errors")}
    assert counts == {
        "files_seen": len(files),
        "files_read": len(files),
        "bytes_read": sum(path.stat().st_size for path in files),
        "errors": 0,
    }


@pytest.mark.system
def test_ten_thousand_levels_are_read_to_the_last_file(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for level in range(10_000):
        name = "level0000" if level == 0 else "level"
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    for number in range(500):
        file = os.open(f"deep{number}", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
        os.write(file, b"deep down %d\n" % number)
        os.close(file)
    os.close(descriptor)
    try:
        result = run(s1={"paths": [str(tmp_path)], "contents": ["^deep down 499$"]})
        assert [len(record["path"]) > 60_000 for record in result.records] == [True]
        assert (result.statistics["files_read"], result.statistics["errors"], result.notes) == (500, 0, ())
    finally:
        remove_deep(tmp_path)


@pytest.mark.slow
def test_links_that_lead_round_in_circles_end(tmp_path: Path) -> None:
    grow(tmp_path, {f"d{number}/f{number}": b"x" for number in range(400)})
    for number in range(400):
        (tmp_path / f"d{number}" / "up").symlink_to("..")
        (tmp_path / f"d{number}" / "next").symlink_to(f"../d{(number + 1) % 400}/next")
        (tmp_path / f"d{number}" / "file").symlink_to(f"../d{(number + 1) % 400}/f{(number + 1) % 400}")
    result = run(s1={"paths": [str(tmp_path)], "contents": ["x"]})
    assert len(result.records) == 800
    assert result.statistics["skipped"] == {"dangling-link": 400, "directory-link": 400}

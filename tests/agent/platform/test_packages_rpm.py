"""Tests of reading rpm's database: what rpm itself installed, in each format, whole and broken."""

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.platform.package_owners import PackageOwners
from agent.platform.packages_rpm import RpmDatabase, parse_header
from agent.platform.rooted import Rooted
from tests.agent.platform.rpm_samples import headers, install_rpm, keep_as_berkeley, keep_as_ndb
from tests.support.examples import USUAL_EXAMPLES

pytestmark = pytest.mark.system


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return install_rpm(tmp_path)


def _keep_as_sqlite(_root: Path, _work: Path) -> None:
    """It is one."""


@pytest.mark.parametrize(
    "keep",
    [
        pytest.param(_keep_as_sqlite, id="sqlite"),
        pytest.param(keep_as_berkeley, id="berkeley"),
        pytest.param(
            lambda root, work: keep_as_berkeley(root, work, ("-c", "db_lorder=4321")), id="big-endian"
        ),
        pytest.param(
            lambda root, work: keep_as_berkeley(root, work, ("-c", "db_pagesize=512")), id="small-pages"
        ),
        pytest.param(lambda root, _work: keep_as_ndb(root), id="ndb"),
    ],
)
def test_packages_are_read_from_every_format_of_the_database(
    root: Path, tmp_path: Path, keep: Callable[[Path, Path], None]
) -> None:
    install_rpm(tmp_path, "second")
    keep(root, tmp_path)
    files = Rooted(str(root))
    found = {package.name: package for package in RpmDatabase(files).packages()}
    assert files.errors == 0
    assert sorted(found) == ["sample", "second"]
    assert found["sample"].version == "2:1.4~rc1-3"
    assert (found["sample"].arch, found["sample"].source) == ("noarch", "sample")
    owners = PackageOwners(str(root))
    assert owners.owner("/opt/sample/data") == "sample"
    assert owners.owner("/etc/second.conf") == "second"
    assert owners.owner("/etc/third.conf") is None


def test_a_manifest_says_what_rpm_says(root: Path) -> None:
    database = RpmDatabase(Rooted(str(root)))
    expected = {}
    for package in database.packages():
        entries = database.expected(package)
        assert entries is not None
        expected.update({entry.path.decode(): entry for entry in entries})
    query = "[%{FILENAMES} %{FILEDIGESTS} %{FILESIZES} %{FILEUSERNAME}\\n]"
    rpm = ["/usr/bin/rpm", "--root", str(root), "--dbpath", "/var/lib/rpm", "-q", "--qf", query, "sample"]
    said = subprocess.run(rpm, capture_output=True, text=True, check=True).stdout
    for line in said.splitlines():
        path, *facts = line.split(" ")
        entry = expected.pop(path)
        if entry.kind == "file" and not entry.may_miss:
            assert [entry.digest, str(entry.size_bytes), entry.user] == facts
            assert entry.algorithm == "sha256"
            assert entry.is_config == path.endswith(".conf")
        if entry.kind == "link":
            assert entry.target == b"data"
        assert entry.may_miss == path.endswith("cache")
    assert not expected


def test_a_view_in_the_table_s_place_is_not_run(tmp_path: Path) -> None:
    home = tmp_path / "var/lib/rpm"
    home.mkdir(parents=True)
    endless = "WITH RECURSIVE r(blob) AS (SELECT 1 UNION ALL SELECT blob FROM r) SELECT blob FROM r"
    with closing(sqlite3.connect(home / "rpmdb.sqlite")) as connection:
        connection.execute(f"CREATE VIEW Packages AS {endless}")
        connection.commit()
    notes: list[str] = []
    files = Rooted(str(tmp_path), note=notes.append)
    assert list(RpmDatabase(files).packages()) == []
    assert notes == ["/var/lib/rpm/rpmdb.sqlite: not read to its end: it has no table Packages"]


def test_what_is_not_yet_in_the_database_s_main_file_is_told(root: Path) -> None:
    (root / "var/lib/rpm/rpmdb.sqlite-wal").write_bytes(b"x")
    notes: list[str] = []
    assert len(list(RpmDatabase(Rooted(str(root), note=notes.append)).packages())) == 1
    assert notes == [
        "/var/lib/rpm/rpmdb.sqlite: what was written since rpm last tidied up (-wal) is not seen"
    ]


def test_reading_leaves_no_trace_beside_the_database(root: Path) -> None:
    for path in (root / "var/lib/rpm").glob("rpmdb.sqlite-*"):
        path.unlink()
    before = sorted(path.name for path in (root / "var/lib/rpm").iterdir())
    list(RpmDatabase(Rooted(str(root))).packages())
    assert sorted(path.name for path in (root / "var/lib/rpm").iterdir()) == before


@pytest.mark.parametrize("name", ["rpmdb.sqlite", "Packages.db", "Packages"])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8192, b"RpmP" + b"\xff" * 9000, b"SQLite format 3\0" + b"\1" * 600]
)
def test_a_database_that_is_none_is_an_error_and_no_package(
    tmp_path: Path, name: str, content: bytes
) -> None:
    home = tmp_path / "var/lib/rpm"
    home.mkdir(parents=True)
    (home / name).write_bytes(content)
    files = Rooted(str(tmp_path))
    assert list(RpmDatabase(files).packages()) == []
    assert files.errors == 1


@pytest.mark.parametrize("keep", [keep_as_berkeley, lambda root, _work: keep_as_ndb(root), _keep_as_sqlite])
def test_a_database_that_was_damaged_anywhere_gives_packages_or_errors(
    root: Path, tmp_path: Path, keep: Callable[[Path, Path], None]
) -> None:
    keep(root, tmp_path)
    path = next(path for path in (root / "var/lib/rpm").iterdir() if path.stat().st_size > 4096)
    whole = path.read_bytes()
    for at in [*range(128), *range(128, len(whole), max(1, len(whole) // 300))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        database = RpmDatabase(Rooted(str(root)))
        for package in database.packages():
            assert package.type == "rpm"
            list(database.expected(package) or ())


@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 5), st.integers(0, 200))
def test_any_bytes_are_a_header_or_are_refused(data: bytes, entries: int, size: int) -> None:
    for blob in (data, entries.to_bytes(4, "big") + size.to_bytes(4, "big") + data):
        try:
            header = parse_header(blob)
        except ValueError:
            continue
        assert all(isinstance(values, list) for values in header.values())


def test_a_header_of_an_installed_package_has_its_name(root: Path) -> None:
    (blob,) = headers(root)
    assert parse_header(blob)[1000] == [b"sample"]

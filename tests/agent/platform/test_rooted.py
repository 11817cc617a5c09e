"""Tests of reading a system's files below a root: links, bounds, what is no file, what may not be read."""

import os
from pathlib import Path

import pytest

from agent.platform.rooted import Rooted
from agent.scan.fence import Fence
from protocol.acl import PathRules
from tests.agent.scan.runs import grow


@pytest.fixture
def system(tmp_path: Path) -> Path:
    grow(tmp_path, {"outside": b"secret", "root/etc/name": b"inner", "root/usr/lib/os": b"linux"})
    return tmp_path / "root"


def test_a_file_is_read_below_the_root(system: Path) -> None:
    assert Rooted(str(system)).read(b"/etc/name") == b"inner"
    assert Rooted().read(os.fsencode(system / "etc/name")) == b"inner"


def test_what_is_not_there_is_no_error(system: Path) -> None:
    files = Rooted(str(system))
    assert files.read(b"/etc/none") is None
    assert files.read(b"/etc/name/below") is None
    assert files.list(b"/none") == []
    assert files.status(b"/none") is None
    assert files.errors == 0


@pytest.mark.parametrize(
    "target", ["../usr/lib/os", "/usr/lib/os", "../../../../usr/lib/os", "/usr/./lib//../lib/os", "hop"]
)
def test_a_link_leads_where_that_system_would_follow_it(system: Path, target: str) -> None:
    (system / "etc/hop").symlink_to("/usr/lib/os")
    (system / "etc/link").symlink_to(target)
    files = Rooted(str(system))
    assert files.read(b"/etc/link") == b"linux"
    assert files.inside(b"/etc/link") == b"/usr/lib/os"


@pytest.mark.parametrize("target", ["../../outside", "/../outside", "/outside"])
def test_no_link_leads_out_of_the_root(system: Path, target: str) -> None:
    (system / "etc/out").symlink_to(target)
    files = Rooted(str(system))
    assert files.read(b"/etc/out") is None
    assert files.read(b"/../outside") is None


def test_a_directory_that_is_a_link_leads_to_its_files(system: Path) -> None:
    (system / "lib").symlink_to("usr/lib")
    files = Rooted(str(system))
    assert files.read(b"/lib/os") == b"linux"
    assert [entry.name for entry in files.list(b"/lib")] == [b"os"]


def test_links_in_a_circle_are_an_error_and_end(system: Path) -> None:
    (system / "etc/a").symlink_to("b")
    (system / "etc/b").symlink_to("a")
    notes: list[str] = []
    files = Rooted(str(system), note=notes.append)
    assert files.read(b"/etc/a") is None
    assert (files.errors, notes) == (1, ["/etc/a: Too many levels of symbolic links"])


def test_a_fifo_and_a_device_are_named_and_not_opened(system: Path) -> None:
    os.mkfifo(system / "etc/fifo")
    (system / "etc/null").symlink_to("/dev/null")
    notes: list[str] = []
    assert Rooted(str(system), note=notes.append).read(b"/etc/fifo") is None
    assert Rooted(note=notes.append).read(b"/dev/null") is None
    assert notes == [
        "/etc/fifo: not read, it is no regular file",
        "/dev/null: not read, it is no regular file",
    ]


def test_a_file_that_is_too_large_is_an_error(system: Path) -> None:
    notes: list[str] = []
    files = Rooted(str(system), note=notes.append)
    assert files.read(b"/etc/name", 4) is None
    assert files.read(b"/etc/name", 5) == b"inner"
    assert (files.errors, notes) == (1, ["/etc/name: not read, it has more than 4 bytes"])


def test_what_may_not_be_looked_at_is_counted_and_named(system: Path) -> None:
    notes: list[str] = []
    rules = PathRules(allow=(str(system / "usr"),), deny=())
    files = Rooted(str(system), fence=Fence(rules), note=notes.append)
    assert files.read(b"/etc/name") is None
    assert files.list(b"/etc") == []
    assert files.status(b"/etc/name") is None
    assert files.skipped["not-allowed"] == 3
    assert notes[0] == "/etc/name: not looked at, this endpoint's access rules do not allow it"
    assert files.read(b"/usr/lib/os") == b"linux"
    # What leads to something that may be looked at may be listed.
    assert len(files.list(b"/")) == 2


def test_a_pattern_names_what_is_there(system: Path) -> None:
    (system / "link").symlink_to("usr")
    files = Rooted(str(system))
    assert files.expand(b"/*/lib/o?") == [b"/link/lib/os", b"/usr/lib/os"]
    assert files.expand(b"/none/*") == []
    assert files.expand(b"/etc/none") == [b"/etc/none"]


def test_a_listing_tells_directories_and_links_apart(system: Path) -> None:
    (system / "link").symlink_to("etc")
    listed = Rooted(str(system)).list(b"/")
    assert [tuple(entry) for entry in listed] == [
        (b"etc", True, False),
        (b"link", False, True),
        (b"usr", True, False),
    ]


def test_the_status_is_a_link_s_own_unless_it_is_followed(system: Path) -> None:
    (system / "etc/link").symlink_to("name")
    files = Rooted(str(system))
    own, target = files.status(b"/etc/link"), files.status(b"/etc/link", follow=True)
    assert own is not None
    assert own.st_size == len("name")
    assert target is not None
    assert target.st_size == len("inner")
    assert files.link(b"/etc/link") == b"name"
    assert files.link(b"/etc/name") is None

"""A scan held to the paths that the ACL allows, on real trees that try to lead out."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.module import Context
from agent.scan import opening
from agent.scan.fence import Fence, Mount, path_of, read_mounts
from protocol.acl import PathRules
from protocol.result import OperationResult
from tests.agent.scan.runs import run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A place that is allowed, with a way out of every kind, and a place that is not."""
    root = Path(os.path.realpath(tmp_path))
    for name in ("open/deep", "closed/deep", "open/denied"):
        (root / name).mkdir(parents=True)
    for name in ("open/a", "open/deep/b", "open/denied/c", "closed/secret", "closed/deep/secret"):
        (root / name).write_text("content\n")
    (root / "open/file-link").symlink_to(root / "closed/secret")
    (root / "open/inner-link").symlink_to(root / "open/deep/b")
    (root / "open/dir-link").symlink_to(root / "closed")
    (root / "open/up").symlink_to("../closed")
    return root


def held(
    tree: Path, *paths: Path | str, deny: tuple[str, ...] = (), allow: Any = ("open",)
) -> OperationResult:
    rules = PathRules(
        None if allow is None else tuple(str(tree / name) for name in allow),
        tuple(str(tree / name) for name in deny),
    )
    search = {"paths": [str(path) for path in paths], "names": ["."], "options": {"returnsha256": True}}
    return run(Context(paths=rules), s1=search)


def found(tree: Path, result: OperationResult) -> list[str]:
    return sorted(str(Path(record["path"]).relative_to(tree)) for record in result.records)


def withheld(result: OperationResult) -> int:
    skipped: Any = result.statistics["skipped"]
    count = int(skipped.get("not-allowed", 0))
    # What was not looked at is never passed over in silence.
    assert bool(count) is any("access rules do not allow" in note for note in result.notes)
    return count


def test_links_do_not_lead_out(tree: Path) -> None:
    result = held(tree, tree / "open")
    assert found(tree, result) == ["open/a", "open/deep/b", "open/denied/c", "open/inner-link"]
    assert withheld(result) == 3
    assert not any("secret" in note or "closed" in note for note in result.notes)


@pytest.mark.parametrize(
    "target", ["closed/secret", "closed/no such file", "closed/deep", "closed/none/at/all"]
)
def test_a_link_does_not_tell_whether_something_exists_where_nobody_may_look(tree: Path, target: str) -> None:
    (tree / "open/probe").symlink_to(tree / target)
    result = held(tree, tree / "open")
    assert withheld(result) == 4
    assert "dangling-link" not in result.statistics["skipped"]
    assert [note for note in result.notes if "probe" in note] == [
        f"{tree / 'open/probe'}: not looked at, this endpoint's access rules do not allow it"
    ]


def test_a_link_within_what_is_allowed_is_said_to_lead_nowhere(tree: Path) -> None:
    (tree / "open/probe").symlink_to(tree / "open/no such file")
    result = held(tree, tree / "open")
    assert withheld(result) == 3
    assert result.statistics["skipped"]["dangling-link"] == 1


@pytest.mark.parametrize(
    "path",
    ["closed", "open/dir-link", "open/dir-link/secret", "open/up", "open/*-link/secret", "open/dir-link/*"],
)
def test_a_root_that_leads_out_is_not_looked_at(path: str, tree: Path) -> None:
    result = held(tree, tree / path)
    assert found(tree, result) == []
    assert withheld(result) > 0


def test_what_is_denied_below_what_is_allowed_is_left_out(tree: Path) -> None:
    result = held(tree, tree / "open", deny=("open/denied", "open/deep/b"))
    assert found(tree, result) == ["open/a"]
    # The directory, the file, the link to it, and the three ways out.
    assert withheld(result) == 6


def test_a_denied_place_stays_denied_where_all_else_is_allowed(tree: Path) -> None:
    result = held(tree, tree, allow=None, deny=("closed",))
    assert found(tree, result) == ["open/a", "open/deep/b", "open/denied/c", "open/inner-link"]
    assert withheld(result) > 0


def test_a_denied_path_that_is_a_link_denies_what_it_leads_to(tree: Path) -> None:
    result = held(tree, tree / "closed", allow=None, deny=("open/dir-link",))
    assert found(tree, result) == []


def test_a_single_file_may_be_allowed(tree: Path) -> None:
    result = held(tree, tree / "open/a", tree / "open/deep/b", allow=("open/a",))
    assert found(tree, result) == ["open/a"]
    assert withheld(result) == 1


def test_an_allowed_path_that_is_a_link_allows_nothing(tree: Path) -> None:
    assert found(tree, held(tree, tree / "open/dir-link", allow=("open/dir-link",))) == []


def test_a_file_that_is_swapped_for_a_link_before_it_is_read_is_not_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opening.open_for_status

    def swap(name: bytes, directory: int, *, follow: bool) -> int:
        descriptor = opened(name, directory, follow=follow)
        if name == b"inner-link":
            (tree / "open/inner-link").unlink()
            (tree / "open/inner-link").symlink_to(tree / "closed/secret")
        return descriptor

    monkeypatch.setattr("agent.scan.reading.open_for_status", swap)
    result = held(tree, tree / "open")
    assert all("hashes" not in record for record in result.records if record["path"].endswith("inner-link"))


# -- mounts ------------------------------------------------------------------------------------------------

ROOT = Mount(b"8:1", b"/", b"/")
HOME = Mount(b"8:2", b"/", b"/home")


def judge(path: str, *mounts: Mount, allow: Any = ("/etc",), deny: Any = ()) -> bool:
    return Fence(PathRules(allow, tuple(deny)), mounts=list(mounts)).admits_path(path.encode())


def test_a_bind_mount_below_an_allowed_place_does_not_lead_out() -> None:
    bound = Mount(b"8:1", b"/root", b"/etc/inner")
    assert judge("/etc/passwd", ROOT, bound)
    assert not judge("/etc/inner/key", ROOT, bound)
    # Nor that of a whole other file system.
    assert not judge("/etc/all/ada/key", ROOT, HOME, Mount(b"8:2", b"/", b"/etc/all"))
    assert judge("/etc/inner/key", ROOT, bound, allow=("/etc", "/root"))


def test_a_bind_mount_of_a_denied_place_is_denied() -> None:
    bound = Mount(b"8:1", b"/root", b"/srv/root")
    assert not judge("/srv/root/key", ROOT, bound, allow=None, deny=("/root",))
    assert not judge("/root/key", ROOT, bound, allow=None, deny=("/srv/root",))
    assert judge("/srv/other", ROOT, bound, allow=None, deny=("/root",))


def test_a_place_that_is_also_mounted_elsewhere_is_allowed_under_its_first_name() -> None:
    assert judge("/etc/passwd", ROOT, Mount(b"8:1", b"/etc", b"/srv/jail/etc"))
    assert not judge("/srv/jail/etc/passwd", ROOT, Mount(b"8:1", b"/etc", b"/srv/jail/etc"), allow=("/srv",))


def test_a_container_whose_files_are_mounted_from_elsewhere_is_judged_by_its_own_names() -> None:
    hosts = Mount(b"8:1", b"/var/lib/containers/1/hosts", b"/etc/hosts")
    assert judge("/etc/hosts", Mount(b"0:50", b"/", b"/"), hosts)


def test_whole_components_count_and_ways_to_what_is_allowed_are_open() -> None:
    assert not judge("/etcetera", ROOT)
    assert judge("/", ROOT)
    assert not judge("/root", ROOT)
    assert judge("/etc", ROOT, allow=("/",))


def test_the_table_of_mounts_is_read_with_its_escapes(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"29 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n30 29 8:1 /a\\040b /c\\134d rw - ext4 x rw\n"
    )
    assert read_mounts(str(table)) == [ROOT, Mount(b"8:1", b"/a b", b"/c\\d")]
    assert read_mounts(str(tmp_path / "none")) == []


def test_a_closed_descriptor_lies_nowhere_and_is_outside() -> None:
    assert path_of(1 << 20) == b""
    assert not Fence(PathRules(("/",)), mounts=[]).admits(1 << 20)


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_real_bind_mount_does_not_lead_out(tree: Path) -> None:
    inner = tree / "open/inner"
    inner.mkdir()
    subprocess.run(["mount", "--bind", str(tree / "closed"), str(inner)], check=True)
    try:
        result = held(tree, tree / "open")
        assert not any("secret" in record["path"] for record in result.records)
        assert withheld(result) == 4
    finally:
        subprocess.run(["umount", str(inner)], check=True)

"""Tests of file systems that a walk does not enter, on real mounts in a mount namespace of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.scan.bounds import Bounds
from agent.scan.coverage import Coverage
from agent.scan.mounts import Mounts
from agent.scan.plan import make_plan
from agent.scan.roots import Root
from agent.scan.scope import Scope
from agent.scan.search import Options, Search
from tests.agent.scan.runs import grow

# A FUSE file system that nobody serves: whoever touches it hangs, as on a server that is away (fuse(4)).
_PRELUDE = """
import ctypes, json, os, sys
from pathlib import Path
from tests.agent.scan.runs import run
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags=0, data=None):
    if libc.mount(source, os.fsencode(target), kind, flags, data):
        raise OSError(ctypes.get_errno(), "mount")
def fuse(target):
    fd = os.open("/dev/fuse", os.O_RDWR)
    mount(b"nobody", target, b"fuse", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd)
BIND = 4096
root = Path(sys.argv[1])
def search(*paths, **options):
    result = run(s1={"paths": [str(root / path) for path in paths], "names": ["."], "options": options})
    found = [os.path.relpath(record["path"], root) for record in result.records]
    return {"found": found, "notes": list(result.notes), "skipped": result.statistics["skipped"]}
"""


def mounted(root: Path, script: str) -> Any:
    """Run a script in a mount namespace of its own, and return what it leaves in `told`."""
    code = f"{_PRELUDE}\n{script}\nprint(json.dumps(told))"
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", code, str(root)]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_server_that_is_away_hangs_no_search_and_is_named(tmp_path: Path) -> None:
    grow(tmp_path, {"a/x": b"", "z/y": b"", "dead/covered": b""})
    (tmp_path / "a/link").symlink_to("../dead/file")
    (tmp_path / "to-dead").symlink_to("dead/deep")
    told = mounted(
        tmp_path,
        """
fuse(root / "dead")
told = [search(""), search("dead"), search("dead/deep/x"), search("d*"), search("dead/*"), search("*/x"),
        search("to-dead/*/x"), search("a/link")]
""",
    )
    note = f"{tmp_path}/dead: fuse is not searched without remotefs"
    above, *given = told
    assert above["found"] == ["a/x", "z/y"]
    assert above["notes"][0] == note
    # The link to the file, and the directory itself; a link to a directory there is not followed either.
    assert above["skipped"] == {"remote-filesystem": 3}
    for one in given:
        assert one["found"] in ([], ["a/x"])
        assert note in one["notes"]
        assert one["skipped"]["remote-filesystem"] >= 1


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_types_and_excludes_and_roots_beyond_do_not_touch_what_is_elsewhere(tmp_path: Path) -> None:
    grow(tmp_path, {"a/x": b"", "dead/covered": b""})
    told = mounted(
        tmp_path,
        """
fuse(root / "dead")
searches = {
    "typed": {"paths": [str(root)], "types": ["directory"], "excludes": ["nothing"]},
    "near": {"paths": [str(root)], "names": ["x"], "options": {"onefilesystem": True}},
}
result = run(**searches)
told = [[record["search"], record["path"]] for record in result.records]
""",
    )
    assert told == [["typed", str(tmp_path)], ["typed", f"{tmp_path}/a"], ["near", f"{tmp_path}/a/x"]]


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_one_file_system_is_left_neither_by_a_mount_below_nor_by_a_nested_one(tmp_path: Path) -> None:
    grow(tmp_path, {"a/x": b"", "mnt/covered": b"", "bind/covered": b""})
    told = mounted(
        tmp_path,
        """
mount(b"tmpfs", root / "mnt", b"tmpfs")
(root / "mnt/inner").mkdir()
(root / "mnt/inner/y").touch()
mount(os.fsencode(root / "a"), root / "bind", None, BIND)
told = [search(""), search("", onefilesystem=True), search("", "mnt", onefilesystem=True),
        search("mnt/inner", onefilesystem=True), search("**/[xy]", onefilesystem=True)]
""",
    )
    everywhere, near, both, inner, pattern = told
    # A bind mount of the same file system is the same file system, as for find -xdev.
    assert everywhere["found"] == ["a/x", "bind/x", "mnt/inner/y"]
    assert near["found"] == ["a/x", "bind/x"]
    assert near["notes"] == [f"{tmp_path}/mnt: another file system, not entered with onefilesystem"]
    assert near["skipped"] == {"other-filesystem": 1}
    assert both["found"] == ["a/x", "bind/x", "mnt/inner/y"]
    assert both["notes"] == []
    assert inner["found"] == ["mnt/inner/y"]
    assert pattern["found"] == ["a/x", "bind/x"]


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_made_up_file_system_is_walked_where_a_path_names_it_also_beside_the_root(tmp_path: Path) -> None:
    grow(tmp_path, {"a/x": b"", "proc/covered": b""})
    told = mounted(
        tmp_path,
        """
mount(b"proc", root / "proc", b"proc")
def own(*paths):
    found = run(s1={"paths": [str(root / path) for path in paths], "names": ["^(x|version)$"]})
    return [os.path.relpath(record["path"], root) for record in found.records], list(found.notes)
told = [own(""), own("", "proc"), own("proc/version")]
""",
    )
    above, beside, inside = told
    note = f"{tmp_path}/proc: proc is not searched from above"
    assert above == [["a/x"], [note]]
    assert beside[0][:2] == ["a/x", "proc/version"]
    assert note not in beside[1]
    assert inside[0] == ["proc/version"]


def table(tmp_path: Path, *lines: str) -> Mounts:
    (tmp_path / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
    return Mounts(str(tmp_path / "mountinfo"))


def test_what_is_mounted_while_the_scan_runs_is_told_by_its_device(tmp_path: Path) -> None:
    mounts = table(tmp_path, "23 1 254:1 / / rw - ext4 /dev/vda1 rw")
    plan = make_plan(
        {
            "far": Search(paths=("/",), sizes=("0",), options=Options(remotefs=True)),
            "near": Search(paths=("/",), sizes=("0",)),
        },
        0,
    )
    notes: list[str] = []
    bounds = Bounds(plan, Coverage(notes.append), mounts)
    scope = Scope({index: (1, Root(index, 0, b"/", b"/")) for index in (0, 1)}, [], {})
    assert not bounds.concern(b"late")
    table(tmp_path, "23 1 254:1 / / rw - ext4 a rw", "24 23 0:50 / /mnt/late rw - nfs4 b rw")
    assert list(bounds.across(scope, b"/mnt/late", os.makedev(0, 50)).trees) == [0]
    assert notes == ["/mnt/late: nfs4 is not searched without remotefs"]

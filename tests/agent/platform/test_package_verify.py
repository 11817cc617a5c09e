"""Tests of what is said to differ between a file and its manifest."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from agent.platform.package_verify import Verifier
from agent.platform.packages import Expected
from agent.platform.rooted import Rooted
from agent.scan.fence import Fence
from protocol.acl import PathRules
from tests.agent.scan.runs import grow

DATA = b"data\n"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    grow(
        tmp_path,
        {"etc/passwd": b"root:x:0:0::/:\nweb:x:33:33::/:\n", "etc/group": b"root:x:0:\n", "bin/tool": DATA},
    )
    os.utime(tmp_path / "bin/tool", (7, 7))
    (tmp_path / "bin/tool").chmod(0o755)
    (tmp_path / "bin/link").symlink_to("tool")
    return tmp_path


def differences(root: Path, path: bytes = b"/bin/tool", **expected: Any) -> tuple[str, ...]:
    return Verifier(Rooted(str(root)), lambda: None).differences(Expected(path, **expected))


@pytest.mark.parametrize(
    ("expected", "differs"),
    [
        ({}, ()),
        ({"kind": "file", "algorithm": "sha256", "digest": SHA256, "size_bytes": 5, "mode": 0o755}, ()),
        ({"user": "root", "group": "root", "mtime_s": 7}, ()),
        ({"algorithm": "sha256", "digest": "0" * 64}, ("digest",)),
        ({"algorithm": "md5", "digest": "0" * 32, "size_bytes": 6}, ("size", "digest")),
        ({"mode": 0o4755, "user": "web", "mtime_s": 8}, ("mode", "owner", "mtime")),
        ({"group": "4711"}, ("group",)),
        ({"user": "unknown"}, ()),
        ({"kind": "directory"}, ("type",)),
        ({"kind": "link", "target": b"x"}, ("type",)),
    ],
)
def test_each_attribute_that_differs_is_named(
    root: Path, expected: dict[str, Any], differs: tuple[str, ...]
) -> None:
    assert differences(root, **expected) == differs


def test_what_is_missing_is_named_unless_it_may_miss(root: Path) -> None:
    assert differences(root, b"/bin/none") == ("missing",)
    assert differences(root, b"/bin/none", may_miss=True) == ()
    assert differences(root, b"/bin/tool/below") == ("missing",)


def test_a_link_differs_by_what_it_says(root: Path) -> None:
    sha1 = hashlib.sha1(b"tool", usedforsecurity=False).hexdigest()
    assert differences(root, b"/bin/link", kind="link", target=b"tool") == ()
    assert differences(root, b"/bin/link", kind="link", target=b"other") == ("target",)
    assert differences(root, b"/bin/link", kind="file", algorithm="sha1", digest=sha1) == ()
    assert differences(root, b"/bin/link", kind="file", algorithm="sha1", digest="0" * 40) == ("target",)
    assert differences(root, b"/bin/link", kind="file", algorithm="sha256", digest=SHA256) == ("type",)


def test_what_may_not_be_looked_at_is_not_called_different(root: Path) -> None:
    files = Rooted(str(root), fence=Fence(PathRules(allow=(str(root / "etc"),))))
    verifier = Verifier(files, lambda: None)
    assert verifier.differences(Expected(b"/bin/tool", "file", "sha256", "0" * 64)) == ()
    assert verifier.unread == 1

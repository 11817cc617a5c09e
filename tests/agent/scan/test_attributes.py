"""Tests of extended attributes and capabilities, on files that really have them."""

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.module import Context
from agent.scan import attributes, opening
from agent.scan.capabilities import NAMES, decode_capabilities, mask_of
from protocol.acl import PathRules
from tests.agent.scan.runs import find, grow, refused, run

NET_RAW = 1 << NAMES.index("cap_net_raw")
PERFMON = 1 << NAMES.index("cap_perfmon")


def capabilities(permitted: int, inheritable: int = 0) -> bytes:
    low, high = (permitted & 0xFFFFFFFF, inheritable & 0xFFFFFFFF), (permitted >> 32, inheritable >> 32)
    return struct.pack("<5I", 0x02000001, *low, *high)


def set_attribute(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        pytest.skip(f"{name} cannot be set here: {error}")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(tmp_path, {"plain": b"abc", "marked": b"abc", "binary": b"abc", "d/x": b""})
    set_attribute(tmp_path / "marked", "user.origin", b"http://evil.example/x")
    set_attribute(tmp_path / "binary", "user.blob", b"\x00\xff\nevil\x00")
    set_attribute(tmp_path / "d", "user.origin", b"directory")
    (tmp_path / "link").symlink_to("marked")
    return tmp_path


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"xattrs": [r"^user\.origin$"]}, ["link", "marked"]),
        ({"xattrs": [r"^user\.origin=http://evil"]}, ["link", "marked"]),
        ({"xattrs": ["evil"]}, ["binary", "link", "marked"]),
        ({"xattrs": ["evil", "!origin"]}, ["binary"]),
        ({"xattrs": [r"^user\.blob=\x00\xff"]}, ["binary"]),
        ({"xattrs": ["!user"]}, ["plain", "d/x"]),
        ({"xattrs": ["evil"], "contents": ["!abc"]}, []),
        ({"xattrs": ["evil"], "names": ["^m"]}, ["marked"]),
        ({"xattrs": ["directory"], "types": ["directory", "file"]}, ["d"]),
        ({"xattrs": ["evil"], "types": ["link"]}, []),
        ({"xattrs": ["!evil"], "types": ["link"]}, ["link"]),
    ],
)
def test_an_attribute_is_matched_by_its_name_or_with_its_value(
    tree: Path, filters: dict[str, Any], found: list[str]
) -> None:
    assert find(tree, **filters) == found


def test_mismatch_and_any_one_check_hold_for_attributes_as_for_all(tree: Path) -> None:
    assert find(tree, xattrs=["user"], options={"mismatch": ["xattr"]}) == ["plain", "d/x"]
    result = run(s1={"paths": [str(tree)], "names": ["^plain$"], "xattrs": ["origin", "!user"]})
    assert [(record["path"].rpartition("/")[2], record["checks"]) for record in result.records] == [
        ("link", ("xattr=origin",)),
        ("marked", ("xattr=origin",)),
        ("plain", ("name=^plain$", "xattr=!user")),
        ("x", ("xattr=!user",)),
    ]


def test_no_value_is_reported_and_no_content_is_read(tree: Path) -> None:
    result = run(s1={"paths": [str(tree)], "xattrs": ["evil"]})
    assert "evil.example" not in repr(result)
    assert result.statistics["files_read"] == 0


@pytest.fixture
def capable(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("giving capabilities takes root")
    grow(tmp_path, {"none": b"", "ping": b"", "trace": b"", "inherits": b"", "empty": b""})
    set_attribute(tmp_path / "ping", "security.capability", capabilities(NET_RAW))
    set_attribute(tmp_path / "trace", "security.capability", capabilities(NET_RAW | PERFMON))
    set_attribute(tmp_path / "inherits", "security.capability", capabilities(0, PERFMON))
    set_attribute(tmp_path / "empty", "security.capability", capabilities(0))
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "mismatch", "found"),
    [
        (["any"], [], ["inherits", "ping", "trace"]),
        (["!any"], [], ["empty", "none"]),
        (["cap_net_raw"], [], ["ping", "trace"]),
        (["cap_net_raw", "cap_perfmon"], [], ["trace"]),
        (["any", "!cap_net_raw"], [], ["inherits"]),
        (["any"], ["capability"], ["empty", "none"]),
        (["cap_sys_admin"], [], []),
    ],
)
def test_capabilities_are_told_by_name_permitted_or_inheritable(
    capable: Path, asked: list[str], mismatch: list[str], found: list[str]
) -> None:
    assert find(capable, capabilities=asked, options={"mismatch": mismatch}) == found


def test_what_lies_outside_of_the_rules_tells_no_attributes(tree: Path) -> None:
    (tree / "d/out").symlink_to(tree / "marked")
    context = Context(paths=PathRules((str(tree / "d"),), ()))
    result = run(context, s1={"paths": [str(tree / "d")], "xattrs": ["evil"]})
    assert (result.records, result.statistics["skipped"]) == ((), {"not-allowed": 1})


def test_attributes_of_a_file_that_was_replaced_are_not_taken_for_its_own(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opening.open_for_status

    def swap(name: bytes, directory: int, *, follow: bool) -> int:
        if name == b"plain":
            (tree / "marked").rename(tree / "plain")
        return opened(name, directory, follow=follow)

    monkeypatch.setattr(attributes, "open_for_status", swap)
    result = run(s1={"paths": [f"{tree}/plain"], "xattrs": ["evil", "!evil"]})
    assert result.records == ()
    assert result.notes == (f"{tree}/plain: was replaced while the scan ran",)


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        ({"capabilities": ["cap_nothing"]}, "there is no capability 'cap_nothing'"),
        ({"capabilities": ["!"]}, "capabilities"),
        ({"capabilities": ["CAP_CHOWN"]}, "capabilities"),
        ({"xattrs": ["("]}, "is not a regular expression"),
    ],
)
def test_what_cannot_be_meant_is_refused(search: dict[str, Any], reason: str) -> None:
    assert reason in refused(**search)


# -- decoding ------------------------------------------------------------------------------------------------


def test_the_kernels_three_forms_are_decoded() -> None:
    assert decode_capabilities(struct.pack("<3I", 0x01000000, 1, 2)) == 3
    assert decode_capabilities(capabilities(NET_RAW | PERFMON)) == NET_RAW | PERFMON
    third = struct.pack("<6I", 0x03000001, NET_RAW, 0, 0, PERFMON >> 32, 100_000)
    assert decode_capabilities(third) == NET_RAW | PERFMON


@pytest.mark.parametrize("value", [b"", b"abc", capabilities(1)[:-1], capabilities(1) + b"\x00" * 4])
def test_another_form_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="no known form"):
        decode_capabilities(value)


@given(st.binary(max_size=32))
def test_any_bytes_give_capabilities_or_are_refused(value: bytes) -> None:
    try:
        bits = decode_capabilities(value)
    except ValueError:
        return
    assert 0 <= bits < 1 << 64


@pytest.mark.parametrize(("name", "number"), [("cap_chown", 0), ("cap_net_raw", 13), ("cap_bpf", 39)])
def test_names_stand_for_the_kernels_numbers(name: str, number: int) -> None:
    assert mask_of(name) == 1 << number
    assert len(NAMES) == 41

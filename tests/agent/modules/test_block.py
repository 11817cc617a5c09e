"""Tests of the block module, on loop devices with file systems that the test makes."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.execute import run_operation
from agent.module import Context, decode_params
from agent.modules import block
from agent.registry import load_module
from client.flags import flag_parameters, module_flags
from protocol.acl import PathRules
from protocol.errors import InvalidInput
from protocol.result import OperationResult
from tests.support.loops import loop_device, make_image, mounted

MIB = 1 << 20
OWN = "0d5c1f2e-7a3b-4c6d-8e9f-a0b1c2d3e4f5"
SECRET = b"-----BEGIN OPENSSH PRIVATE KEY----- of a test, deleted"


def run(context: Context | None = None, **parameters: Any) -> OperationResult:
    return run_operation("block", parameters, context or Context())


def ext4(directory: Path, label: str = "lab") -> Path:
    image = make_image(directory / "image", 16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", label, "-U", OWN, str(image)], check=True)
    return image


@pytest.mark.system
def test_a_device_is_told_with_what_lies_on_it(tmp_path: Path) -> None:
    with loop_device(ext4(tmp_path)) as device:
        result = run(devices=[device])
        assert result.records == (
            {
                "device": device,
                "kind": "loop",
                "size_bytes": 16 * MIB,
                "sector_bytes": 512,
                "type": "ext4",
                "uuid": OWN,
                "label": "lab",
                "content_bytes": 16 * MIB,
                "backing_path": str(tmp_path / "image"),
            },
        )
        assert result.statistics["devices_seen"] >= 1
        with mounted(device, tmp_path / "point") as point:
            [record] = run(devices=[device.removeprefix("/dev/")]).records
            assert record["mountpoints"] == (str(point),)


@pytest.mark.system
def test_filters_must_all_hold(tmp_path: Path) -> None:
    with loop_device(ext4(tmp_path)) as device:
        found: dict[str, Any] = {
            "devices": [device],
            "types": ["ext4", "xfs"],
            "uuids": [OWN.upper()],
            "labels": ["^l"],
        }
        assert run(**found, mounted="no").found
        for other in ({"types": ["xfs"]}, {"uuids": ["x"]}, {"labels": ["!lab"]}, {"mounted": "yes"}):
            assert not run(**{**found, **other}).found
        assert run(devices=[device[:-1] + "*"], types=["ext4"]).found
    result = run(devices=["/dev/nosuch*"])
    assert (result.found, result.notes) == (False, ("there is no block device /dev/nosuch*",))


@pytest.mark.system
def test_what_was_deleted_is_found_where_it_lay(tmp_path: Path) -> None:
    with loop_device(ext4(tmp_path)) as device:
        with mounted(device, tmp_path / "point") as point:
            (point / "id").write_bytes(SECRET)
            os.sync()
            (point / "id").unlink()
        result = run(
            devices=[device], contents=["BEGIN [A-Z]+ PRIVATE KEY"], bytes=[SECRET[-7:].hex(), "00ff" * 64]
        )
        [record] = result.records
        content = Path(device).read_bytes()
        at = content.index(SECRET)
        assert record["matches"] == (
            {"pattern": SECRET[-7:].hex(), "count": 1, "offsets_bytes": (at + len(SECRET) - 7,)},
            {"pattern": "BEGIN [A-Z]+ PRIVATE KEY", "count": 1, "offsets_bytes": (at + 5,)},
        )
        assert result.statistics["bytes_read"] == 16 * MIB
        assert SECRET.decode() not in json.dumps(msgspec.to_builtins(result))


@pytest.mark.system
def test_a_range_is_hashed_and_where_nothing_is_found_there_is_no_record(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(2 * MIB))
    content = image.read_bytes()
    with loop_device(image) as device:
        [record] = run(
            devices=[device], offset_bytes=512, length_bytes=1000, returnhashes=["sha256", "xxh3_128"]
        ).records
        assert record["hashes"]["sha256"] == hashlib.sha256(content[512:1512]).hexdigest()
        assert not run(devices=[device], bytes=["00" * 64]).found
        result = run(devices=[device], offset_bytes=MIB, length_bytes=2 * MIB, bytes=["00" * 64])
        assert result.statistics["bytes_read"] == MIB
        assert result.notes == (f"{device}: the range goes beyond its {2 * MIB} bytes",)


@pytest.mark.system
def test_places_beyond_the_limit_are_not_told_and_that_is_said(tmp_path: Path) -> None:
    with loop_device(make_image(tmp_path / "image", MIB)) as device:
        result = run(devices=[device], bytes=["00"], matchlimit=3)
        [record] = result.records
        assert record["matches"] == ({"pattern": "00", "count": 3, "offsets_bytes": (0, 1, 2), "cut": True},)
        assert (result.status, result.truncated) == ("limit", True)


@pytest.mark.system
def test_a_device_that_loses_what_it_lies_on_is_an_error_that_is_named(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * (6 * MIB))
    with loop_device(image) as device:
        os.truncate(image, MIB)
        result = run(devices=[device], contents=["nowhere"])
        assert not result.found
        assert result.statistics["errors"] == 1
        assert "bytes could not be read" in result.notes[0]


@pytest.mark.system
def test_a_hostile_label_breaks_nothing(tmp_path: Path) -> None:
    image = ext4(tmp_path)
    data = bytearray(image.read_bytes())
    data[1024 + 120 : 1024 + 136] = b'\x1b[2J\xff"\n\0'.ljust(16, b"\0")
    image.write_bytes(data)
    with loop_device(image) as device:
        [record] = run(devices=[device]).records
        assert record["label"] == '\x1b[2J�"\n'
        assert b"\x1b" not in msgspec.json.encode(record)


@pytest.mark.system
def test_nothing_is_written_to_a_device(tmp_path: Path) -> None:
    image = ext4(tmp_path)
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    with loop_device(image) as device:
        assert run(devices=[device], contents=["lab"], returnhashes=["md5"]).found
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_blocks_are_not_read_where_access_rules_limit_paths() -> None:
    context = Context(paths=PathRules(deny=("/etc/ssh",)))
    result = run(context, devices=["/dev/null"], contents=["x"])
    assert result.status == "failed"
    assert "acl-refused" in result.notes[0]
    assert run(Context(paths=PathRules(deny=("/etc/ssh",)))).status == "ok"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"contents": ["x"]}, "name the devices"),
        ({"devices": ["sda"], "offset_bytes": 1}, "a range is for"),
        ({"devices": ["sda"], "contents": ["x*"]}, "matches nothing at all"),
        ({"devices": ["sda"], "contents": ["("]}, "not a regular expression"),
        ({"devices": ["/etc/../dev/sda"]}, "devices"),
        ({"labels": ["("]}, "not a regular expression"),
        ({"devices": ["sda"], "bytes": ["0"]}, "bytes"),
        ({"devices": ["sda"], "returnhashes": ["crc32"]}, "returnhashes"),
    ],
)
def test_what_cannot_be_meant_is_refused(parameters: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        decode_params(block.Params, parameters)


def test_flags_follow_from_the_parameters() -> None:
    module = load_module("block")
    assert {"device", "content", "offset-bytes", "returnhash"} <= {flag.name for flag in module_flags(module)}
    given = {"device": ("/dev/sda",), "byte": ("00ff",), "mounted": "no"}
    parameters = {"devices": ("/dev/sda",), "bytes": ("00ff",), "mounted": "no"}
    assert flag_parameters(module, given) == parameters

"""Tests of checks on raw bytes, first bytes, entropy, and on what is packed, by example."""

import bz2
import gzip
import hashlib
import lzma
import os
from pathlib import Path
from typing import Any

import pytest

from agent.scan.source import MAP_BYTES
from tests.agent.scan.runs import find, grow, paths, run

MIB = 1 << 20
ELF = b"\x7fELF\x02\x01\x01"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return grow(
        tmp_path,
        {
            "elf": ELF + b"\x00\xde\xad\xbe\xef\x00",
            "png": PNG + b"rest",
            "script": b"#!/bin/sh\n\xde\xad\n\xbe\xef\n",
            "text": b"plain\n",
            "empty": b"",
        },
    )


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"bytes": ["deadbeef"]}, ["elf"]),
        ({"bytes": ["dead0abeef"]}, ["script"]),
        ({"bytes": ["dead", "beef"]}, ["elf", "script"]),
        ({"bytes": ["!dead"]}, ["empty", "png", "text"]),
        ({"bytes": ["dead", "!deadbeef"]}, ["script"]),
        ({"magics": ["elf", "png"]}, ["elf", "png"]),
        ({"magics": ["!elf", "!script"]}, ["empty", "png", "text"]),
        ({"magics": ["elf", "script", "!elf"]}, ["script"]),
        ({"magics": ["elf"], "bytes": ["!dead"]}, []),
        ({"magics": ["elf"], "names": ["!elf"]}, []),
        ({"entropies": ["<0"]}, ["empty"]),
        ({"contents": ["^plain$"], "bytes": ["0a"], "entropies": [">1"]}, ["text"]),
    ],
)
def test_what_is_read_is_held_against_every_check(
    tree: Path, filters: dict[str, Any], found: list[str]
) -> None:
    assert find(tree, **filters) == found


@pytest.mark.parametrize(
    ("filters", "mismatch", "found"),
    [
        ({"bytes": ["dead"]}, "bytes", ["empty", "png", "text"]),
        ({"magics": ["elf", "png"]}, "magic", ["empty", "script", "text"]),
        ({"magics": ["!elf"]}, "magic", ["elf"]),
        ({"entropies": ["<0.5"]}, "entropy", ["elf", "png", "script", "text"]),
    ],
)
@pytest.mark.parametrize("matchall", [True, False])
def test_mismatch_turns_them_round(
    tree: Path, filters: dict[str, Any], mismatch: str, found: list[str], *, matchall: bool
) -> None:
    assert find(tree, **filters, options={"mismatch": [mismatch]}, matchall=matchall) == found


def test_any_one_check_is_enough_and_is_named_but_no_content_is(tree: Path) -> None:
    result = run(
        s1={
            "paths": [str(tree)],
            "bytes": ["deadbeef"],
            "magics": ["script", "!elf"],
            "entropies": [">1", "<0"],
        }
    )
    assert {record["path"].rpartition("/")[2]: record["checks"] for record in result.records} == {
        "elf": ("bytes=deadbeef", "entropy=>1"),
        "empty": ("magic=!elf", "entropy=<0"),
        "png": ("magic=!elf", "entropy=>1"),
        "script": ("magic=script", "magic=!elf", "entropy=>1"),
        "text": ("magic=!elf", "entropy=>1"),
    }


@pytest.mark.parametrize("at", [MIB - 2, MIB, 2 * MIB - 1])
def test_bytes_are_found_across_the_borders_of_readings(tmp_path: Path, at: int) -> None:
    content = bytearray(3 * MIB)
    content[at : at + 4] = b"\xde\xad\xbe\xef"
    grow(tmp_path, {"a": bytes(content)})
    assert find(tmp_path, bytes=["deadbeef"]) == ["a"]
    assert find(tmp_path, bytes=["!deadbeef"]) == []


@pytest.mark.slow
def test_a_large_file_that_is_mapped_answers_as_one_that_is_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.write(ELF)
        for _ in range(MAP_BYTES // MIB):
            large.write(b"\xa5" * MIB)
        large.write(b"needle\n")
    content = (tmp_path / "large").read_bytes()
    search = {"magics": ["elf"], "bytes": ["a56e6565646c65"], "contents": ["needle$"]}
    options = {"matchall": True, "returnsha256": True}
    # With enough beside it that workers are worth their while.
    grow(tmp_path, {f"small/{number}": b"" for number in range(600)})
    result = run(s1={"paths": [str(tmp_path)], **search, "options": options})
    assert paths(result, tmp_path) == ["large"]
    assert result.records[0]["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()}


def test_no_further_than_the_first_bytes_is_read_where_they_decide(tmp_path: Path) -> None:
    grow(tmp_path, {"a": PNG + bytes(3 * MIB), "b": ELF + bytes(3 * MIB)})
    search = {"magics": ["elf"], "entropies": ["<8"], "options": {"matchall": True, "returnsha256": True}}
    result = run(s1={"paths": [str(tmp_path)], **search})
    assert paths(result, tmp_path) == ["b"]
    assert result.statistics["bytes_read"] == MIB + len(ELF) + 3 * MIB


# -- what is packed ------------------------------------------------------------------------------------------

INNER = b"first line\nneedle in the hay\n" * 50
PACKED = {
    "a.gz": gzip.compress(INNER, mtime=0),
    "b.xz": lzma.compress(INNER),
    "c.bz2": bz2.compress(INNER),
    "d.plain": INNER,
    "e.other": b"hay\n",
}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return grow(tmp_path, PACKED)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"contents": ["^needle"]}, ["a.gz", "b.xz", "c.bz2", "d.plain"]),
        ({"contents": ["!^needle"]}, ["e.other"]),
        ({"bytes": [b"needle".hex()]}, ["a.gz", "b.xz", "c.bz2", "d.plain"]),
        ({"sha256": [hashlib.sha256(INNER).hexdigest()]}, ["a.gz", "b.xz", "c.bz2", "d.plain"]),
        ({"magics": ["gzip", "xz", "bzip2"]}, []),
        ({"entropies": ["<5"]}, list(PACKED)),
        ({"sizes": [">1k"]}, ["d.plain"]),
    ],
)
def test_with_decompress_what_is_packed_is_looked_at(
    packed: Path, filters: dict[str, Any], found: list[str]
) -> None:
    assert find(packed, **filters, options={"decompress": True}) == found


def test_searches_with_and_without_decompress_share_one_read(packed: Path) -> None:
    options = {"returnsha256": True}
    base = {"paths": [str(packed / "a.gz")], "names": ["gz"]}
    result = run(
        inner={**base, "options": {**options, "decompress": True}},
        outer={**base, "magics": ["gzip"], "options": options},
        found={**base, "contents": ["needle"], "options": {"matchall": True, "decompress": True}},
        missed={**base, "contents": ["needle"], "options": {"matchall": True}},
    )
    digests = {record["search"]: record.get("hashes") for record in result.records}
    assert digests == {
        "found": None,
        "inner": {"sha256": hashlib.sha256(INNER).hexdigest()},
        "outer": {"sha256": hashlib.sha256(PACKED["a.gz"]).hexdigest()},
    }
    assert (result.statistics["files_read"], result.statistics["bytes_read"]) == (1, len(PACKED["a.gz"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (PACKED["a.gz"][:-6], "ends in the middle of what it packs"),
        (PACKED["a.gz"] + b"garbage", "is damaged"),
        (PACKED["b.xz"][:-6], "ends in the middle of what it packs"),
        (gzip.compress(INNER + bytes(80 * MIB), mtime=0), "unpacks to more than 250 times its size"),
    ],
)
def test_of_what_does_not_unpack_to_its_end_only_what_is_certain_is_said(
    tmp_path: Path, content: bytes, why: str
) -> None:
    grow(tmp_path, {"a": content})
    options = {"decompress": True, "matchall": True}
    base = {"paths": [str(tmp_path)]}
    result = run(
        found={**base, "contents": ["^needle"], "options": {"decompress": True}},
        absent={**base, "contents": ["!nowhere"], "options": options},
        bytes={**base, "bytes": ["!ffff"], "options": options},
        entropy={**base, "names": ["a"], "sizes": ["<4k"], "entropies": [">0"], "options": options},
        digest={**base, "names": ["a"], "options": {**options, "returnsha256": True}},
        turned={**base, "sha256": ["0" * 64], "options": {**options, "mismatch": ["sha256"]}},
        magic={**base, "magics": ["!elf"], "contents": ["needle"], "options": options},
        outside={**base, "contents": ["!nowhere"], "magics": ["!elf"], "options": {"matchall": True}},
    )
    told = {record["search"]: (record.get("checks"), record.get("hashes")) for record in result.records}
    certain = {"found": (("content=^needle",), None), "digest": (None, None), "outside": (None, None)}
    # What the first bytes say is certain only where so many of them came.
    assert told == {**certain, **({"magic": (None, None)} if why.startswith("unpacks") else {})}
    assert result.statistics["errors"] == 1
    assert any(note.startswith(f"{tmp_path}/a: {why}") for note in result.notes)


@pytest.mark.slow
def test_a_file_that_nobody_needs_unpacked_to_its_end_is_no_error(tmp_path: Path) -> None:
    grow(tmp_path, {"a": gzip.compress(b"needle\n" + bytes(80 * MIB), mtime=0)})
    result = run(
        s1={
            "paths": [str(tmp_path)],
            "contents": ["^needle$"],
            "options": {"decompress": True, "matchall": True},
        }
    )
    assert (paths(result, tmp_path), result.statistics["errors"], result.notes) == (["a"], 0, ())


@pytest.mark.slow
def test_random_bytes_have_nearly_eight_bits_each(tmp_path: Path) -> None:
    grow(tmp_path, {"random": os.urandom(MIB), "text": b"text\n" * MIB})
    assert find(tmp_path, entropies=[">7.99"]) == ["random"]

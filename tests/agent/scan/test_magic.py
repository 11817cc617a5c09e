"""Tests of types told by first bytes: real files of this machine, and such as tools make."""

import bz2
import gzip
import io
import lzma
import sqlite3
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.magic import HEAD_BYTES, MAGIC_NAMES, magic_of

PE = b"MZ" + bytes(58) + (0x80).to_bytes(4, "little") + bytes(64) + b"PE\0\0\x64\x86"


def tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return made.getvalue()


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a", "a")
    return made.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table a (b)")
    data: bytes = connection.serialize()
    connection.close()
    return data


CASES = [
    ("elf", Path(sys.executable).resolve().read_bytes()[:HEAD_BYTES]),
    ("gzip", gzip.compress(b"a", mtime=0)),
    ("bzip2", bz2.compress(b"a")),
    ("xz", lzma.compress(b"a")),
    ("tar", tar()),
    ("zip", zipped()),
    ("sqlite", database()),
    ("script", b"#!/bin/sh\n"),
    ("pe", PE),
    ("macho", bytes.fromhex("cafebabe00000002")),
    ("macho", bytes.fromhex("cffaedfe07000001")),
    ("java", bytes.fromhex("cafebabe0000003d")),
    ("pdf", b"\n\n%PDF-1.7\n"),
    ("pem", b"Bag Attributes\n-----BEGIN PRIVATE KEY-----\n"),
    ("pgp", b"-----BEGIN PGP SIGNATURE-----\n"),
    ("iso9660", bytes(0x8000) + b"\1CD001\1"),
]


@pytest.mark.parametrize(("name", "head"), CASES)
def test_a_file_is_known_by_its_first_bytes(name: str, head: bytes) -> None:
    assert magic_of(head[:HEAD_BYTES]) == {name}


@pytest.mark.parametrize(
    "head",
    [b"", b"MZ", b"MZ" + bytes(80), b"\xca\xfe\xba\xbe", b"BZh0", b"text\n", b"PK", b"x-----BEGIN RSA"],
)
def test_what_only_looks_like_it_is_of_no_type(head: bytes) -> None:
    assert magic_of(head) == frozenset()


@given(st.binary(max_size=100), st.sampled_from(CASES))
def test_any_bytes_have_types_of_the_table_or_none(data: bytes, case: tuple[str, bytes]) -> None:
    assert magic_of(data) <= set(MAGIC_NAMES)
    assert magic_of(case[1][: len(data)] + data) <= set(MAGIC_NAMES)

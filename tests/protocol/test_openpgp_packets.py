"""Framing, armour and integers of OpenPGP, down to the octet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.openpgp_packets import (
    Packet,
    Refusal,
    crc24,
    parse_key,
    parse_signature,
    parse_subpackets,
    read_integers,
    remove_armour,
    split_packets,
)
from tests.support.gpg import Investigator
from tests.support.openpgp_forge import GOOD, old_packet, packet, sign

BLOCK = b"""-----BEGIN PGP SIGNATURE-----
Version: of no interest
Comment: \xc3\xa9

aGVsbG8=
=R/WK
-----END PGP SIGNATURE-----
"""
KIND = "SIGNATURE"


def test_the_check_sum_is_that_of_the_standard() -> None:
    assert crc24(b"") == 0xB704CE
    assert crc24(b"123456789") == 0x21CF02  # the catalogue of CRCs: CRC-24/OPENPGP


@pytest.mark.parametrize(
    "armour",
    {
        "as-is": BLOCK,
        "crlf": BLOCK.replace(b"\n", b"\r\n"),
        "no-headers": BLOCK.replace(b"Version: of no interest\nComment: \xc3\xa9\n", b""),
        "no-check-sum": BLOCK.replace(b"=R/WK\n", b""),
        "white-space-around": b"\n \n" + BLOCK + b"\n\t\n",
        "white-space-at-the-ends-of-lines": BLOCK.replace(b"-\n", b"- \n").replace(b"\n\n", b"\n \t\n"),
        "several-lines": BLOCK.replace(b"aGVsbG8=", b"aGVs\nbG8="),
    }.values(),
)
def test_one_armoured_block_is_read(armour: bytes) -> None:
    assert remove_armour(armour, KIND) == b"hello"


@pytest.mark.parametrize(
    ("armour", "reason"),
    {
        "nothing": (b"", "empty"),
        "text": (b"hello", "exactly one armoured block"),
        "two-blocks": (BLOCK + BLOCK, "exactly one armoured block"),
        "text-before": (b"hello\n" + BLOCK, "exactly one armoured block"),
        "text-after": (BLOCK + b"hello\n", "exactly one armoured block"),
        "another-end": (BLOCK.replace(b"END PGP SIG", b"END PGP MES"), "exactly one armoured block"),
        "no-end": (BLOCK[:-30], "exactly one armoured block"),
        "no-blank-line": (BLOCK.replace(b"\n\n", b"\n"), "exactly one armoured block"),
        "long-line": (BLOCK.replace(b"aGVsbG8=", b"a" * 77), "exactly one armoured block"),
        "another-kind": (BLOCK.replace(b"SIGNATURE", b"MESSAGE"), "an armoured MESSAGE where a SIGNATURE"),
        "check-sum": (BLOCK.replace(b"=R/WK", b"=R/WQ"), "check sum"),
        "damaged": (BLOCK.replace(b"aGVs", b"aGVt"), "check sum"),
        "not-base64": (BLOCK.replace(b"aGVsbG8=", b"aGVsbG8"), "not base64"),
        "padding-inside": (BLOCK.replace(b"aGVsbG8=", b"aGU=\nbG8="), "not base64"),
    }.values(),
)
def test_damaged_or_other_armour_is_refused(armour: bytes, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        remove_armour(armour, KIND)


def test_hostile_armour_costs_no_more_time_than_its_length() -> None:
    for hostile in (b" " * 500_000, b"-----BEGIN PGP A-----\n" + b"a: b\n" * 100_000, BLOCK[:-30] * 10_000):
        with pytest.raises(Refusal, match="exactly one"):
            remove_armour(hostile, KIND)


@pytest.mark.system
def test_what_gpg_armours_is_what_it_exports(ada: Investigator) -> None:
    armoured, binary = ada.gpg("--armor", "--export"), ada.gpg("--export")
    assert remove_armour(armoured, "PUBLIC KEY BLOCK") == binary


@pytest.mark.parametrize("size", [1, 2, 4])
def test_packets_with_old_headers_are_read(size: int) -> None:
    assert split_packets(old_packet(2, b"x" * 200, size) + old_packet(13, b"", size), 2) == [
        Packet(2, b"x" * 200),
        Packet(13, b""),
    ]


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"\xc2\x00", 0),
        (b"\xc2\xbf", 191),
        (b"\xc2\xc0\x00", 192),
        (b"\xc2\xdf\xff", 8383),
        (b"\xc2\xff\x00\x00\x00\x05", 5),
        (b"\xc2\xff\x00\x01\x00\x00", 65536),
    ],
)
def test_packets_with_new_headers_are_read(header: bytes, length: int) -> None:
    assert split_packets(header + bytes(length), 1) == [Packet(2, bytes(length))]


@pytest.mark.parametrize(
    ("data", "reason"),
    {
        "not-a-packet": (b"\x00", "not an OpenPGP packet"),
        "indeterminate": (b"\x8b", "indeterminate"),
        "header-only": (b"\xc2", "truncated"),
        "partial": (b"\xc2\xe0x", "partial length"),
        "partial-largest": (b"\xc2\xfe", "partial length"),
        "no-second-octet": (b"\xc2\xc0", "truncated"),
        "short-length": (b"\xc2\xff\0\0\0", "truncated"),
        "short-old-length": (b"\x89\0", "truncated"),
        "short-body": (b"\xc2\x02x", "truncated"),
        "enormous": (b"\xc2\xff\xff\xff\xff\xff", "truncated"),
        "too-many": (packet(2, b"") * 4, "more than 3 packets"),
    }.values(),
)
def test_framing_that_is_not_allowed_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        split_packets(data, 3)


def test_integers_are_read_to_the_last_octet() -> None:
    assert read_integers(b"\x00\x09\x01\xff\x00\x00", 2) == [b"\x01\xff", b""]
    with pytest.raises(Refusal, match="trailing bytes"):
        read_integers(b"\x00\x01\x01\x00", 1)
    with pytest.raises(Refusal, match="truncated"):
        read_integers(b"\x00\x09\x01", 1)


@given(st.one_of(st.binary(), st.binary(max_size=8).map(lambda tail: GOOD + tail), st.just(sign()[6:])))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (
        lambda: split_packets(data, 8),
        lambda: remove_armour(data, KIND),
        lambda: parse_subpackets(data),
        lambda: parse_signature(data),
        lambda: parse_key(data),
        lambda: read_integers(data, 2),
    ):
        try:
            read()
        except Refusal as refusal:
            assert str(refusal)  # noqa: PT017  (either outcome is right)

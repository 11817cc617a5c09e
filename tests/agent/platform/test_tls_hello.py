"""Tests of reading the server that a TLS client names: of real clients, in pieces, and of any bytes."""

import ssl
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.tls_hello import MOST_BYTES, MOST_HELD, Hellos, Incomplete, parse_server_name


def hello_of(server: str | None) -> bytes:
    """Return what a real client says first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = hello_of("www.example.org")


def made(extensions: bytes, *, record: int = 16384) -> bytes:
    """Return a ClientHello with such extensions, in records of such a length."""
    body = (
        b"\x03\x03"
        + bytes(32)
        + b"\0"
        + b"\0\x02\x13\x01"
        + b"\x01\0"
        + struct.pack(">H", len(extensions))
        + extensions
    )
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    pieces = [message[at : at + record] for at in range(0, len(message), record)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece for piece in pieces)


def server_name(name: bytes, kind: int = 0) -> bytes:
    entry = struct.pack(">BH", kind, len(name)) + name
    return struct.pack(">HHH", 0, len(entry) + 2, len(entry)) + entry


def test_the_name_that_a_real_client_gives_is_read() -> None:
    assert parse_server_name(HELLO) == "www.example.org"
    assert parse_server_name(HELLO + b"what follows") == "www.example.org"
    assert parse_server_name(hello_of(None)) is None


def test_a_hello_that_is_cut_anywhere_is_not_complete() -> None:
    for size in range(len(HELLO)):
        with pytest.raises(Incomplete):
            parse_server_name(HELLO[:size])


@pytest.mark.parametrize("record", [1, 7, 50, 16384])
def test_a_hello_may_be_cut_into_records(record: int) -> None:
    padding = struct.pack(">HH", 21, 100) + bytes(100)
    assert parse_server_name(made(padding + server_name(b"A.Example"), record=record)) == "a.example"


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        (server_name(b"a.example", kind=1), None),
        (server_name(b""), None),
        (server_name(b"\x1b[2J\xff\n"), "\x1b[2j\\xff\n"),
        (server_name(b"x" * 300), "x" * 255),
        (server_name(b"a.example")[:-1], None),
        (struct.pack(">HHH", 0, 2, 500), None),
        (struct.pack(">HH", 0, 0), None),
        (b"", None),
        (b"\0", None),
    ],
)
def test_a_name_that_is_none_is_not_told(extensions: bytes, expected: str | None) -> None:
    assert parse_server_name(made(extensions)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x02\x01\0\x05\x01\0\0\x01\0",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\0\x05\x02\0\0\x01\0",
        b"\x16\x03\x01\0\x05\x01\xff\xff\xff\0",
        b"\x17\x03\x03\0\x01x",
    ],
)
def test_what_is_no_hello_is_nothing(data: bytes) -> None:
    assert parse_server_name(data) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_name_nothing_or_not_complete(data: bytes) -> None:
    for begin in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x50\x01\x00\x00\x4c\x03\x03"):
        try:
            found = parse_server_name(begin + data)
        except Incomplete:
            continue
        assert found is None or found.isascii()


@given(st.lists(st.integers(1, len(HELLO) - 1), max_size=6, unique=True), st.integers(0, 2**32 - 1))
def test_a_hello_in_any_segments_is_read_whatever_its_numbers(cuts: list[int], begin: int) -> None:
    hellos = Hellos()
    places = [0, *sorted(cuts), len(HELLO)]
    found = [
        hellos.name_in("c", (begin + first) % 2**32, HELLO[first:last]) for first, last in pairwise(places)
    ]
    assert found == [None] * len(cuts) + ["www.example.org"]
    assert len(hellos) == 0


def test_a_segment_that_is_sent_again_changes_nothing_and_one_that_is_missing_ends_it() -> None:
    hellos = Hellos()
    assert hellos.name_in("c", 0, HELLO[:100]) is None
    assert hellos.name_in("c", 0, HELLO[:100]) is None
    assert hellos.name_in("c", 100, HELLO[100:]) == "www.example.org"
    assert hellos.name_in("d", 0, HELLO[:100]) is None
    assert hellos.name_in("d", 150, HELLO[150:]) is None
    assert len(hellos) == 0


def test_connections_that_never_say_more_are_held_up_to_a_bound() -> None:
    hellos = Hellos()
    for number in range(MOST_HELD + 10):
        hellos.name_in(number, 0, HELLO[:50])
    assert len(hellos) == MOST_HELD
    assert hellos.name_in(0, 50, HELLO[50:]) is None
    assert hellos.name_in(MOST_HELD + 9, 50, HELLO[50:]) == "www.example.org"


def test_a_connection_that_goes_on_and_on_is_let_go() -> None:
    hellos = Hellos()
    piece = b"\x16\x03\x01\x00\x01\x01" + b"\x16\x03\x01\x00\x03\x00\x3f\xff"
    assert hellos.name_in("c", 0, piece) is None
    at = len(piece)
    for _ in range(MOST_BYTES // 1000 + 2):
        assert hellos.name_in("c", at, b"\x16\x03\x01\x03\xe3" + bytes(995)) is None
        at += 1000
    assert len(hellos) == 0

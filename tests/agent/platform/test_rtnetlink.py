"""Tests of the transport of rtnetlink: against the kernel, and with messages that no kernel sends."""

import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.rtnetlink import (
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RouteNetlink,
    address_of,
    attribute_list,
    mac_of,
    number_of,
    parse_attributes,
    parse_messages,
    text_of,
)

LINKS = bytes(16)  # struct ifinfomsg, AF_UNSPEC
ADDRESSES = bytes(8)  # struct ifaddrmsg, AF_UNSPEC


def test_two_tables_are_told_one_after_the_other_on_one_socket() -> None:
    with RouteNetlink() as netlink:
        links = list(netlink.dump(RTM_GETLINK, LINKS, RTM_NEWLINK))
        addresses = list(netlink.dump(RTM_GETADDR, ADDRESSES, RTM_NEWADDR))
        again = list(netlink.dump(RTM_GETLINK, LINKS, RTM_NEWLINK))
    assert len(links) == len(again) == len(socket.if_nameindex())
    assert addresses


def test_a_refusal_of_the_kernel_is_an_error_with_its_number() -> None:
    with (
        RouteNetlink() as netlink,
        # Nobody answers to this type, and it is none of the requests that the kernel lets through unread.
        pytest.raises(OSError, match=os.strerror(95)) as raised,
    ):
        list(netlink.dump(RTM_GETLINK + 900, LINKS, RTM_NEWLINK))
    assert raised.value.errno == 95


def test_the_socket_is_closed_when_done() -> None:
    with RouteNetlink() as netlink:
        descriptor = netlink._socket.fileno()
        os.fstat(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(netlink.dump(RTM_GETLINK, LINKS, RTM_NEWLINK))


def _attribute(kind: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def test_attributes_are_padded_and_marked_and_still_found() -> None:
    data = _attribute(3, b"eth0\0") + _attribute(0x8000 | 18, b"nested") + _attribute(4, b"\1\2\3\4")
    assert parse_attributes(data) == {3: b"eth0\0", 18: b"nested", 4: b"\1\2\3\4"}


@pytest.mark.parametrize("length", [0, 1, 3, 100, 0xFFFF])
def test_an_attribute_of_impossible_length_ends_the_list(length: int) -> None:
    good = _attribute(1, b"abcd")
    assert list(attribute_list(good + struct.pack("=HH", length, 2) + b"abcd")) == [(1, b"abcd")]


@pytest.mark.parametrize("length", [0, 15, 17, 0xFFFFFFFF])
def test_a_message_of_impossible_length_ends_what_was_received(length: int) -> None:
    good = struct.pack("=IHHII", 20, 16, 2, 7, 0) + b"abcd"
    found = list(parse_messages(good + struct.pack("=IHHII", length, 16, 2, 8, 0)))
    assert [(sequence, flags, message.body) for sequence, flags, message in found] == [(7, 2, b"abcd")]


@given(st.binary(max_size=300))
def test_any_bytes_give_messages_and_attributes_within_them(data: bytes) -> None:
    for _, _, message in parse_messages(data):
        assert message.body in data
    for _, value in attribute_list(data):
        assert value in data


@given(st.one_of(st.none(), st.binary(max_size=24)), st.integers(0, 255))
def test_any_value_of_an_attribute_is_told_or_is_nothing(value: bytes | None, family: int) -> None:
    number, mac, address = number_of(value), mac_of(value), address_of(family, value)
    assert (number is None) == (value is None or len(value) not in (1, 2, 4, 8))
    assert mac is None or mac.count(":") in (5, 7, 19)
    assert address is None or family in (socket.AF_INET, socket.AF_INET6)
    assert "\0" not in text_of(value)

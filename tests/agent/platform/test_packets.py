"""Tests of what packets' headers say: of good ones, and of any bytes."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.packets import (
    ETH_ARP,
    ETH_IP,
    ETH_IP6,
    Packet,
    address_text,
    family_text,
    parse_packet,
    protocol_text,
)
from tests.agent.platform.frames import arp, ip4, ip6, tcp, udp

TARGET = socket.inet_aton("10.0.0.2")


def ends(packet: Packet) -> tuple[str, str, int, str, int]:
    return (
        protocol_text(packet),
        address_text(packet.source),
        packet.source_port,
        address_text(packet.target),
        packet.target_port,
    )


def payload(data: bytes, packet: Packet) -> bytes:
    return data[slice(*packet.payload)]


def test_a_segment_is_told_with_ports_number_and_what_it_carries() -> None:
    data = ip4(
        "10.0.0.1", "10.0.0.2", 6, tcp(5000, 80, b"GET", sequence=77, options=bytes(12)), options=bytes(8)
    )
    packet = parse_packet(ETH_IP, data)
    assert ends(packet) == ("tcp", "10.0.0.1", 5000, "10.0.0.2", 80)
    assert (packet.sequence, payload(data, packet), family_text(packet)) == (77, b"GET", "ipv4")


def test_padding_behind_a_packet_is_none_of_it() -> None:
    data = ip4("10.0.0.1", "10.0.0.2", 17, udp(1, 53, b"x")) + b"padding"
    assert payload(data, parse_packet(ETH_IP, data)) == b"x"
    # What lies in the buffer of an earlier packet is not looked at.
    assert parse_packet(ETH_IP, data, 24).payload == (0, 0)
    assert ends(parse_packet(ETH_IP, data, 23))[2] == 0


def test_headers_before_the_transport_of_ipv6_are_stepped_over() -> None:
    routing = struct.pack(">BB", 17, 0) + bytes(6)
    options = struct.pack(">BB", 43, 1) + bytes(14)
    data = ip6("fd00::1", "fd00::2", 0, options + routing + udp(9, 53, b"y"))
    packet = parse_packet(ETH_IP6, data)
    assert ends(packet) == ("udp", "fd00::1", 9, "fd00::2", 53)
    assert (payload(data, packet), family_text(packet)) == (b"y", "ipv6")


def test_later_fragments_have_a_protocol_and_no_ports() -> None:
    packet = parse_packet(ETH_IP, ip4("10.0.0.1", "10.0.0.2", 6, tcp(5000, 80), fragment=9))
    assert ends(packet) == ("tcp", "10.0.0.1", 0, "10.0.0.2", 0)
    later = struct.pack(">BBHI", 17, 0, 8, 1) + udp(1, 2)
    assert ends(parse_packet(ETH_IP6, ip6("fd00::1", "fd00::2", 44, later))) == (
        "udp",
        "fd00::1",
        0,
        "fd00::2",
        0,
    )
    first = struct.pack(">BBHI", 17, 0, 1, 1) + udp(1, 2)
    assert ends(parse_packet(ETH_IP6, ip6("fd00::1", "fd00::2", 44, first)))[2] == 1


def test_a_packet_that_the_card_will_cut_has_no_length_of_its_own() -> None:
    data = bytearray(ip4("10.0.0.1", "10.0.0.2", 6, tcp(1, 2, b"z" * 9)))
    data[2:4] = b"\0\0"
    assert payload(bytes(data), parse_packet(ETH_IP, data)) == b"z" * 9


def test_tags_of_vlans_are_stepped_over() -> None:
    inner = ip4("10.0.0.1", "10.0.0.2", 17, udp(1, 2))
    tagged = struct.pack(">HHHH", 7, 0x8100, 9, ETH_IP) + inner
    assert ends(parse_packet(0x88A8, tagged)) == ("udp", "10.0.0.1", 1, "10.0.0.2", 2)


def test_what_is_no_ip_is_told_by_its_type() -> None:
    assert ends(parse_packet(ETH_ARP, arp("10.0.0.1", "10.0.0.2"))) == ("arp", "10.0.0.1", 0, "10.0.0.2", 0)
    assert protocol_text(parse_packet(0x88CC, b"")) == "lldp"
    assert protocol_text(parse_packet(0x1234, b"")) == "ether-0x1234"
    assert protocol_text(parse_packet(ETH_IP, ip4("10.0.0.1", "10.0.0.2", 200, b""))) == "ip-200"
    assert family_text(parse_packet(ETH_ARP, b"")) == "other"


@pytest.mark.parametrize("first", [0x00, 0x44, 0x55, 0x4F])
def test_a_header_that_cannot_be_ends_the_look(first: int) -> None:
    data = bytearray(ip4("10.0.0.1", "10.0.0.2", 17, udp(1, 2)))
    data[0] = first
    assert parse_packet(ETH_IP, data).source_port == 0


@given(
    st.sampled_from([ETH_IP, ETH_IP6, ETH_ARP, 0x8100, 0x88A8, 0x1234]),
    st.binary(max_size=200),
    st.integers(0, 200),
)
def test_any_bytes_are_a_packet_that_ends_where_they_do(ether: int, data: bytes, captured: int) -> None:
    captured = min(captured, len(data))
    packet = parse_packet(ether, data, captured)
    begin, end = packet.payload
    assert 0 <= begin <= end <= captured
    assert protocol_text(packet)
    assert len(packet.source) in (0, 4, 16)


@given(st.binary(min_size=1, max_size=120), st.sampled_from([6, 17, 132, 0, 44, 51, 60]))
def test_any_transport_behind_a_good_header_is_told_or_not(body: bytes, protocol: int) -> None:
    for ether, data in (
        (ETH_IP, ip4("10.0.0.1", "10.0.0.2", protocol, body)),
        (ETH_IP6, ip6("fd00::1", "fd00::2", protocol, body)),
    ):
        begin, end = parse_packet(ether, data).payload
        assert begin <= end <= len(data)

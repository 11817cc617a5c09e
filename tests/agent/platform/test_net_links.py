"""Tests of decoding interfaces and addresses: of namespaces that the tests make, and of any bytes."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.net_links import parse_address, parse_link, read_addresses, read_links
from agent.platform.rtnetlink import RouteNetlink
from tests.support.apart import run_apart
from tests.support.network import Host, enter, ip, namespace, two_hosts

pytestmark = pytest.mark.system


def links_of(name: str) -> dict[str, dict[str, Any]]:
    """Return the interfaces of a namespace, as dictionaries by their names."""

    def ask() -> dict[str, Any]:
        with RouteNetlink() as netlink:
            return {
                link.name: {
                    **link._asdict(),
                    "flag_names": link.flag_names,
                    "is_promiscuous": link.is_promiscuous,
                }
                for link in read_links(netlink)
            }

    found: dict[str, dict[str, Any]] = run_apart(ask, enter(name))
    return found


def addresses_of(name: str) -> list[list[Any]]:
    """Return the addresses of a namespace, as lists."""

    def ask() -> list[Any]:
        with RouteNetlink() as netlink:
            return list(read_addresses(netlink))

    found: list[list[Any]] = run_apart(ask, enter(name))
    return found


@pytest.fixture
def empty() -> Iterator[str]:
    with namespace() as name:
        yield name


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made


def test_an_interface_is_told_with_its_address_state_and_counters(hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    near.ip("link", "set", "wire", "mtu", "1400", "alias", "uplink to \x1b[31mB\u00e4r")
    wire = links_of(near.name)["wire"]
    assert (wire["kind"], wire["mac"], wire["mtu"], wire["state"]) == ("veth", near.mac, 1400, "up")
    assert {"up", "running", "lower-up", "broadcast", "multicast"} <= set(wire["flag_names"])
    assert wire["is_lower_elsewhere"]
    assert wire["alias"] == "uplink to \x1b[31mB\u00e4r"
    assert len(wire["counters"]) == 8


def test_a_bridge_its_ports_and_what_lies_on_them_know_each_other(empty: str) -> None:
    for arguments in (
        ("add", "br0", "type", "bridge"),
        ("add", "port0", "type", "ifb"),
        ("set", "port0", "master", "br0", "up"),
        ("add", "link", "br0", "name", "upper", "type", "macvlan"),
    ):
        ip("-n", empty, "link", *arguments)
    found = links_of(empty)
    assert [found[name]["kind"] for name in ("br0", "port0", "upper")] == ["bridge", "ifb", "macvlan"]
    assert found["port0"]["master"] == found["br0"]["ifindex"]
    assert found["upper"]["lower"] == found["br0"]["ifindex"]
    assert not found["upper"]["is_lower_elsewhere"]
    # A bridge hears everything on its ports.
    assert found["port0"]["is_promiscuous"]
    assert not found["br0"]["is_promiscuous"]


def attribute(kind: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def test_a_vlan_is_told_with_its_number_and_protocol() -> None:
    # As the kernel fills it: rtnl_fill_ifinfo (rtnetlink.c), vlan_fill_info (vlan_netlink.c).
    data = attribute(5, struct.pack(">H", 0x88A8)) + attribute(1, struct.pack("=H", 4094))
    info = attribute(1, b"vlan\0") + attribute(0x8002, data)
    body = struct.pack("=BBHiII", 0, 0, 1, 9, 0x1003, 0) + attribute(3, b"eth0.4094\0")
    link = parse_link(body + attribute(5, struct.pack("=I", 2)) + attribute(0x8012, info))
    assert link is not None
    assert (link.name, link.kind, link.vlan, link.vlan_protocol, link.lower) == (
        "eth0.4094", "vlan", 4094, 0x88A8, 2,
    )  # fmt: skip


def test_a_program_on_an_interface_is_told() -> None:
    body = bytes(16) + attribute(0x802B, attribute(2, b"\1"))
    link = parse_link(body)
    assert link is not None
    assert link.has_xdp


def test_who_listens_to_everything_by_a_packet_socket_is_seen(hosts: tuple[Host, Host]) -> None:
    near, _ = hosts

    def ask() -> list[bool]:
        def is_promiscuous() -> bool:
            with RouteNetlink() as netlink:
                return next(link.is_promiscuous for link in read_links(netlink) if link.name == "wire")

        said = [is_promiscuous()]
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packet:
            request = struct.pack("=iHH8s", socket.if_nametoindex("wire"), 1, 0, b"")  # PACKET_MR_PROMISC
            packet.setsockopt(263, 1, request)  # SOL_PACKET, PACKET_ADD_MEMBERSHIP
            said.append(is_promiscuous())
        return [*said, is_promiscuous()]

    assert run_apart(ask, enter(near.name)) == [False, True, False]


def test_addresses_are_told_with_family_prefix_and_peer(hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    near.ip("address", "add", "10.9.9.1", "peer", "10.9.9.2/32", "dev", "wire", "label", "wire:1")
    found = {address[2]: address for address in addresses_of(near.name)}
    assert found["10.77.0.1"][1:5] == ["ipv4", "10.77.0.1", 24, "global"]
    assert found["fd77::1"][1:5] == ["ipv6", "fd77::1", 64, "global"]
    assert found["127.0.0.1"][4] == "host"
    assert found["10.9.9.1"][6:] == ["10.9.9.2", "wire:1"]


def test_names_of_interfaces_may_hold_what_they_like(empty: str) -> None:
    for name in ("\x1b[31mred", "a\"b'c", "\u00fcml\u00e4ut"):
        ip("-n", empty, "link", "add", name, "type", "ifb")
    assert {"\x1b[31mred", "a\"b'c", "\u00fcml\u00e4ut"} <= set(links_of(empty))


@given(st.binary(max_size=200))
def test_any_bytes_give_an_interface_and_an_address_or_nothing(body: bytes) -> None:
    link, address = parse_link(body), parse_address(body)
    assert (link is None) == (len(body) < 16)
    assert address is None or address.family in ("ipv4", "ipv6")


@given(st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=40)), max_size=10))
def test_attributes_of_any_length_never_break_an_interface(attributes: list[tuple[int, bytes]]) -> None:
    body = bytes(16)
    for kind, value in attributes:
        body += attribute(kind, value)
    link = parse_link(body)
    assert link is not None
    assert "\0" not in link.name

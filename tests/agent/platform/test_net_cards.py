"""Tests of what is known of interfaces beside the kernel's table: sysfs, and what psutil has instead."""

import socket
from pathlib import Path

import pytest

from agent.platform.net_cards import prefix_length, read_cards, read_portable_cards
from agent.platform.rtnetlink import RouteNetlink
from tests.agent.scan.runs import grow


def test_speed_duplex_and_driver_come_from_sysfs(tmp_path: Path) -> None:
    index = socket.if_nametoindex("lo")
    grow(tmp_path, {"lo/speed": b"10000\n", "lo/duplex": b"full\n", "lo/ifindex": f"{index}\n".encode()})
    (tmp_path / "lo/device").mkdir()
    (tmp_path / "lo/device/driver").symlink_to("../../../../bus/virtio/drivers/virtio_net")
    with RouteNetlink() as netlink:
        card = next(card for card in read_cards(netlink, str(tmp_path)) if card.link.name == "lo")
    assert (card.speed_mbits, card.duplex, card.driver) == (10000, "full", "virtio_net")
    assert "127.0.0.1" in {one.address for one in card.addresses}


@pytest.mark.parametrize("speed", [b"-1\n", b"4294967295x", b"0", b"", b"\xff"])
def test_a_speed_that_is_none_is_not_told(tmp_path: Path, speed: bytes) -> None:
    index = socket.if_nametoindex("lo")
    grow(tmp_path, {"lo/speed": speed, "lo/duplex": b"unknown\n", "lo/ifindex": f"{index}\n".encode()})
    with RouteNetlink() as netlink:
        card = next(card for card in read_cards(netlink, str(tmp_path)) if card.link.name == "lo")
    assert (card.speed_mbits, card.duplex, card.driver) == (None, None, None)


def test_an_interface_of_the_same_name_in_another_namespace_is_not_taken_for_this_one(tmp_path: Path) -> None:
    grow(tmp_path, {"lo/speed": b"10000\n", "lo/ifindex": b"4711\n"})
    with RouteNetlink() as netlink:
        assert {card.speed_mbits for card in read_cards(netlink, str(tmp_path))} == {None}


def test_psutil_tells_the_same_interfaces_addresses_and_sizes() -> None:
    with RouteNetlink() as netlink:
        kernel = {card.link.name: card for card in read_cards(netlink)}
    portable = {card.link.name: card for card in read_portable_cards()}
    assert set(portable) == set(kernel)
    for name, card in portable.items():
        assert card.link.mtu == kernel[name].link.mtu
        assert card.link.mac == kernel[name].link.mac
        told = {(one.address, one.prefix_length) for one in kernel[name].addresses}
        assert {(one.address, one.prefix_length) for one in card.addresses} == told
    assert portable["lo"].link.kind == "loopback"
    assert portable["lo"].link.counters is not None


@pytest.mark.parametrize(
    ("netmask", "expected"),
    [("255.255.255.0", 24), ("ffff:ffff::", 32), ("ffff:ffff::/32", 32), (None, 0), ("", 0), ("nonsense", 0)],
)
def test_a_netmask_of_either_family_is_a_number_of_bits(netmask: str | None, expected: int) -> None:
    assert prefix_length(netmask) == expected

"""Tests of decoding routes and neighbours: of hosts that the tests make, and of any bytes."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.net_routes import (
    parse_neighbour,
    parse_route,
    read_neighbours,
    read_routes,
)
from agent.platform.rtnetlink import RouteNetlink
from tests.support.apart import run_apart
from tests.support.network import Host, enter, two_hosts

pytestmark = pytest.mark.system


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made


def routes_of(name: str) -> list[dict[str, Any]]:
    def ask() -> list[Any]:
        with RouteNetlink() as netlink:
            return [{**route._asdict(), "is_default": route.is_default} for route in read_routes(netlink)]

    found: list[dict[str, Any]] = run_apart(ask, enter(name))
    return found


def neighbours_of(name: str) -> dict[str, dict[str, Any]]:
    def ask() -> dict[str, Any]:
        with RouteNetlink() as netlink:
            return {
                one.address: {**one._asdict(), "is_resolved": one.is_resolved}
                for one in read_neighbours(netlink)
            }

    found: dict[str, dict[str, Any]] = run_apart(ask, enter(name))
    return found


def test_default_routes_and_others_are_told_with_their_gateway(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    near.ip("route", "add", "default", "via", far.ipv4, "metric", "100", "proto", "dhcp")
    near.ip("-6", "route", "add", "default", "via", far.ipv6)
    near.ip("route", "add", "blackhole", "192.0.2.0/24")
    near.ip("route", "add", "198.51.100.0/24", "via", far.ipv4, "table", "7000")
    found = routes_of(near.name)
    defaults = {one["family"]: one for one in found if one["is_default"]}
    assert (defaults["ipv4"]["gateway"], defaults["ipv4"]["metric"]) == (far.ipv4, 100)
    assert (defaults["ipv4"]["origin"], defaults["ipv4"]["table"]) == ("dhcp", 254)
    assert defaults["ipv6"]["gateway"] == far.ipv6
    others = {one["destination"]: one for one in found}
    assert others["192.0.2.0/24"]["kind"] == "blackhole"
    assert others["198.51.100.0/24"]["table"] == 7000
    assert (others["10.77.0.0/24"]["gateway"], others["10.77.0.0/24"]["source"]) == (None, near.ipv4)


def test_a_route_with_several_next_hops_is_several_routes(hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    near.ip(
        "route", "add", "192.0.2.0/24",
        "nexthop", "via", "10.77.0.8", "weight", "1", "nexthop", "via", "10.77.0.9", "weight", "2",
    )  # fmt: skip
    found = [one for one in routes_of(near.name) if one["destination"] == "192.0.2.0/24"]
    assert [one["gateway"] for one in found] == ["10.77.0.8", "10.77.0.9"]
    assert len({one["ifindex"] for one in found}) == 1
    assert None not in {one["ifindex"] for one in found}


def test_a_gateway_of_the_other_family_is_told(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    near.ip("route", "add", "192.0.2.0/24", "via", "inet6", far.ipv6, "dev", "wire")
    (found,) = [one for one in routes_of(near.name) if one["destination"] == "192.0.2.0/24"]
    assert (found["family"], found["gateway"]) == ("ipv4", far.ipv6)


def test_neighbours_of_both_families_are_told_and_what_does_not_answer_is_not_resolved(
    hosts: tuple[Host, Host],
) -> None:
    near, far = hosts

    def reach() -> None:
        for family, address in ((socket.AF_INET, far.ipv4), (socket.AF_INET6, far.ipv6)):
            with socket.socket(family, socket.SOCK_STREAM) as client, pytest.raises(ConnectionRefusedError):
                client.connect((address, 9))

    run_apart(reach, enter(near.name))
    near.ip("neighbour", "add", "10.77.0.66", "lladdr", "02:66:00:00:00:66", "dev", "wire", "router")
    near.ip("neighbour", "add", "10.77.0.67", "dev", "wire", "nud", "failed")
    found = neighbours_of(near.name)
    assert {found[address]["mac"] for address in (far.ipv4, far.ipv6)} == {far.mac}
    assert all(found[address]["is_resolved"] for address in (far.ipv4, far.ipv6))
    assert (found["10.77.0.66"]["mac"], found["10.77.0.66"]["state"]) == ("02:66:00:00:00:66", "permanent")
    assert found["10.77.0.66"]["is_router"]
    assert not any(one["is_resolved"] for address, one in found.items() if address == "10.77.0.67")


@given(st.binary(max_size=200))
def test_any_bytes_give_routes_and_neighbours_or_nothing(body: bytes) -> None:
    for route in parse_route(body):
        assert route.family in ("ipv4", "ipv6")
    neighbour = parse_neighbour(body)
    assert neighbour is None or neighbour.family in ("ipv4", "ipv6")


@given(
    st.sampled_from([socket.AF_INET, socket.AF_INET6]),
    st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=40)), max_size=10),
)
def test_attributes_of_any_length_never_break_a_route(
    family: int, attributes: list[tuple[int, bytes]]
) -> None:
    body = bytes([family]) + bytes(11)
    for kind, value in attributes:
        data = struct.pack("=HH", 4 + len(value), kind) + value
        body += data + bytes(-len(data) % 4)
    for route in parse_route(body):
        assert route.destination.count("/") == 1
    assert parse_neighbour(body) is None or len(body) > 12

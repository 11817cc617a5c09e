"""Tests of module netcard: interfaces, routes and DNS servers of namespaces that the tests make."""

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.modules import netcard
from protocol.result import OperationResult
from tests.support.apart import become_nobody, bind, leave_mounts, run_apart
from tests.support.network import Host, enter, ip, namespace, two_hosts

pytestmark = pytest.mark.system


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made


def ask(**parameters: Any) -> OperationResult:
    result = run_operation("netcard", parameters, Context())
    assert result.status == "ok", result
    return result


def records_in(name: str, **parameters: Any) -> list[dict[str, Any]]:
    """Ask from within a namespace."""
    found: list[dict[str, Any]] = run_apart(lambda: list(ask(**parameters).records), enter(name))
    return found


def test_an_interface_is_told_with_all_that_is_known_of_it(hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    (wire,) = records_in(near.name, names=["^wire$"])
    assert (wire["about"], wire["kind"], wire["mac"], wire["state"]) == ("interface", "veth", near.mac, "up")
    assert {f"{near.ipv4}/24", f"{near.ipv6}/64"} <= set(wire["addresses"])
    assert (wire["mtu"], wire["promiscuous"]) == (1500, False)
    assert {"up", "running"} <= set(wire["flags"])
    assert {"rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_dropped"} <= set(wire)


def test_interfaces_are_asked_for_by_address_kind_and_hardware_address(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    for asked in (
        {"addresses": ["10.77.0.0/16"]},
        {"addresses": ["fd77::/16"]},
        {"kinds": ["veth"]},
        {"kinds": ["!loopback", "!ifb"]},
        {"macs": ["^02:00:00:00:77:01$"]},
        {"macs": ["77:0[A-F1]"]},
        {"names": ["!lo"], "kinds": ["veth"], "macs": ["77"]},
    ):
        found = records_in(near.name, **asked)
        assert [(one["about"], one["interface"]) for one in found] == [("interface", "wire")], asked
    assert records_in(near.name, kinds=["veth"], addresses=[far.ipv4]) == []


def test_a_bridge_and_its_ports_know_each_other(hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    near.ip("link", "add", "br0", "type", "bridge")
    near.ip("link", "set", "wire", "master", "br0")
    near.ip("link", "add", "link", "br0", "name", "upper", "type", "macvlan")
    found = {one["interface"]: one for one in records_in(near.name, kinds=["bridge", "veth", "macvlan"])}
    assert (found["br0"]["bridge_ports"], found["wire"]["master"]) == (["wire"], "br0")
    assert found["upper"]["lower"] == "br0"
    assert "lower" not in found["wire"]


def test_who_listens_to_everything_is_found(hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    assert records_in(near.name, promiscuous=True) == []

    def ask_while_sniffed() -> Any:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packet:
            request = struct.pack("=iHH8s", socket.if_nametoindex("wire"), 1, 0, b"")  # PACKET_MR_PROMISC
            packet.setsockopt(263, 1, request)  # SOL_PACKET, PACKET_ADD_MEMBERSHIP
            return list(ask(promiscuous=True).records)

    (found,) = run_apart(ask_while_sniffed, enter(near.name))
    assert (found["interface"], found["promiscuous"], found["promiscuity"]) == ("wire", True, 1)
    near.ip("link", "set", "wire", "promisc", "on")
    assert [one["interface"] for one in records_in(near.name, promiscuous=True)] == ["wire"]


def test_routes_are_told_with_their_gateway_and_asked_for_by_it(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    near.ip("route", "add", "default", "via", far.ipv4)
    near.ip("route", "add", "198.51.100.0/24", "via", far.ipv4, "table", "7000", "metric", "9")
    near.ip("-6", "route", "add", "default", "via", far.ipv6)
    by_gateway = records_in(near.name, gateways=["10.77.0.0/24"])
    assert {(one["destination"], one["table"], one.get("is_default", False)) for one in by_gateway} == {
        ("0.0.0.0/0", "main", True),
        ("198.51.100.0/24", "7000", False),
    }
    assert {one["interface"] for one in by_gateway} == {"wire"}
    assert {one["about"] for one in by_gateway} == {"route"}
    assert [one["destination"] for one in records_in(near.name, gateways=["!10.0.0.0/8"])] == ["::/0"]
    everything = records_in(near.name)
    assert {one["about"] for one in everything} >= {"interface", "route"}
    assert "local" not in {one.get("table") for one in everything}
    assert "local" in {one.get("table") for one in records_in(near.name, localroutes=True)}


def test_dns_servers_are_told_with_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text(
        "nameserver 192.0.2.53\nnameserver 10.0.0.53\nsearch \x1b[31m.example\n"
    )

    def prepare() -> None:
        leave_mounts()
        bind(tmp_path / "resolv.conf", Path("/etc/resolv.conf"))

    def servers(**parameters: Any) -> list[dict[str, Any]]:
        asked = [one for one in ask(**parameters).records if one["about"] == "dns"]
        return [one for one in asked if one["path"] == "/etc/resolv.conf"]

    assert run_apart(servers, prepare) == [
        {"about": "dns", "address": address, "path": "/etc/resolv.conf", "domains": ["\x1b[31m.example"]}
        for address in ("192.0.2.53", "10.0.0.53")
    ]
    (foreign,) = run_apart(lambda: servers(dnsservers=["!10.0.0.0/8"]), prepare)
    assert foreign["address"] == "192.0.2.53"
    told = run_apart(lambda: [one["about"] for one in ask(dnsservers=["192.0.2.53"]).records], prepare)
    assert told == ["dns"]


def test_other_namespaces_are_looked_at_when_asked_for(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    assert list(ask(addresses=[near.ipv4]).records) == []
    found = list(ask(addresses=[near.ipv4, far.ipv4], namespaces=True).records)
    # Others may have made namespaces with the same addresses meanwhile.
    assert {(next(iter(one["addresses"])), one["namespace"]) for one in found} >= {
        (f"{host.ipv4}/24", f"net:[{Path(host.path).stat().st_ino}]") for host in hosts
    }


def test_hostile_names_and_aliases_do_no_harm() -> None:
    with namespace() as name:
        ip("-n", name, "link", "add", '"\x1b[2J"', "type", "ifb")
        ip("-n", name, "link", "set", '"\x1b[2J"', "alias", "\x1b]0;x\x07\n{")
        (found,) = records_in(name, kinds=["ifb"])
    assert (found["interface"], found["alias"]) == ('"\x1b[2J"', "\x1b]0;x\x07\n{")
    assert json.loads(json.dumps(found)) == found


def test_what_may_not_be_looked_at_is_counted_and_told() -> None:
    told = run_apart(
        lambda: (ask(namespaces=True).statistics["skipped"], ask(namespaces=True).notes), become_nobody
    )
    skipped, notes = told
    assert skipped["namespaces"] > 0
    assert any(note.startswith("namespaces: may not be looked at: process") for note in notes)


def test_the_statistics_say_what_was_seen(hosts: tuple[Host, Host]) -> None:
    near, _ = hosts
    statistics = run_apart(lambda: dict(ask(names=["^nothing$"]).statistics), enter(near.name))
    assert statistics["interfaces_seen"] == 2 + _made_by_themselves()
    assert (statistics["routes_seen"], statistics["servers_seen"], statistics["namespaces_seen"]) == (0, 0, 1)


def _made_by_themselves() -> int:
    """Return how many interfaces a new namespace has beside lo, as tunnels of some kernels."""
    with namespace() as name:
        return len(run_apart(socket.if_nameindex, enter(name))) - 1


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"names": ["("]}, "names: .* is not a regular expression"),
        ({"addresses": ["10.0.0.0/x"]}, "addresses: .* is neither"),
        ({"gateways": ["gw"]}, "gateways: "),
        ({"dnsservers": ["8.8.8.8.8"]}, "dnsservers: "),
        ({"kinds": [""]}, "kinds"),
        ({"kinds": ["a b"]}, "kinds"),
    ],
)
def test_what_could_never_be_looked_for_is_refused(parameters: dict[str, Any], reason: str) -> None:
    result = run_operation("netcard", parameters, Context())
    assert result.status == "invalid-parameters"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(result.notes[0])


def test_a_lone_value_becomes_a_list() -> None:
    assert netcard.upgrade({"names": "eth0", "promiscuous": True}) == {"names": ["eth0"], "promiscuous": True}
    assert netcard.upgrade(None) is None

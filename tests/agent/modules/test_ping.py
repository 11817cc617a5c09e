"""Tests of module ping: what endpoints can reach, from hosts that the tests make."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.modules import ping
from protocol.result import OperationResult
from tests.support.apart import bind, leave_mounts, run_apart
from tests.support.network import Host, enter, two_hosts


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made


def ask(**parameters: Any) -> OperationResult:
    result = run_operation("ping", parameters, Context())
    assert result.status == "ok", result
    return result


def told_in(name: str, **parameters: Any) -> dict[str, Any]:
    """Ask from within a namespace."""

    def act() -> dict[str, Any]:
        result = ask(**parameters)
        return {"records": result.records, "notes": result.notes, "statistics": result.statistics}

    found: dict[str, Any] = run_apart(act, enter(name))
    return found


@pytest.mark.system
def test_hosts_that_answer_an_echo_are_found_in_both_families(hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    told = told_in(near.name, destinations=[far.ipv4, far.ipv6], count=4, interval_s=0.01)
    for record, address, family in zip(told["records"], (far.ipv4, far.ipv6), ("ipv4", "ipv6"), strict=True):
        assert (record["destination"], record["address"], record["family"]) == (address, address, family)
        assert (record["sent"], record["answered"], record["lost"], record["protocol"]) == (4, 4, 0, "icmp")
        assert 0 < record["latency_min_s"] <= record["latency_median_s"] <= record["latency_max_s"]
        assert "port" not in record
    assert told["notes"] == []
    assert (told["statistics"]["destinations_seen"], told["statistics"]["answered"]) == (2, 8)


@pytest.mark.system
def test_what_does_not_answer_is_not_found_and_the_note_says_what_came_instead(
    hosts: tuple[Host, Host],
) -> None:
    near, _ = hosts
    near.ip("neighbour", "add", "10.77.0.9", "lladdr", "02:00:00:00:77:09", "dev", "wire")
    near.ip("route", "add", "unreachable", "192.0.2.0/24")
    told = told_in(near.name, destinations=["10.77.0.9", "192.0.2.1"], count=2, timeout_s=0.05)
    assert told["records"] == []
    assert told["notes"] == [
        "10.77.0.9 (10.77.0.9): 2 lost",
        "192.0.2.1 (192.0.2.1): 2 unreachable (No route to host)",
    ]
    assert (told["statistics"]["lost"], told["statistics"]["unreachable"]) == (2, 2)


def test_ports_are_told_apart_where_something_listens_and_where_nothing_does() -> None:
    with socket.socket() as listener, socket.socket() as closed:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        closed.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in (listener, closed)]
        result = ask(destinations=["127.0.0.1"], protocol="tcp", ports=ports, count=2, interval_s=0.01)
    (record,) = result.records
    assert (record["port"], record["answered"], record["refused"]) == (ports[0], 2, 0)
    assert result.notes == (f"127.0.0.1 port {ports[1]} (127.0.0.1): 2 refused",)
    assert result.statistics["refused"] == 2


def test_a_udp_port_that_is_silent_is_not_found() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        result = ask(destinations=["127.0.0.1"], protocol="udp", ports=[port], count=1, timeout_s=0.05)
    assert result.records == ()
    assert result.notes == (f"127.0.0.1 port {port} (127.0.0.1): 1 lost",)


@pytest.mark.system
def test_names_are_resolved_by_the_endpoint(tmp_path: Path, hosts: tuple[Host, Host]) -> None:
    near, far = hosts
    (tmp_path / "hosts").write_text(f"{far.ipv4} far.test\n{far.ipv6} far.test\n")

    def prepare() -> None:
        leave_mounts()
        bind(tmp_path / "hosts", Path("/etc/hosts"))
        enter(near.name)()

    for family, address in (("ipv4", far.ipv4), ("ipv6", far.ipv6)):
        asked = {"destinations": ["far.test"], "family": family, "count": 1}
        (record,) = run_apart(lambda asked=asked: ask(**asked).records, prepare)  # type: ignore[misc]
        assert (record["destination"], record["address"]) == ("far.test", address)


def test_a_name_without_an_address_costs_the_others_nothing() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        port = listener.getsockname()[1]
        result = ask(destinations=["no.such.invalid", "127.0.0.1"], protocol="tcp", ports=[port], count=1)
    assert [record["destination"] for record in result.records] == ["127.0.0.1"]
    assert result.notes[0].startswith("no.such.invalid: ")
    assert (result.statistics["skipped"], result.statistics["errors"]) == ({"unresolved": 1}, 1)


@pytest.mark.slow
def test_waiting_ends_when_the_run_is_cancelled() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asked = iter([False] * 6)
        result = run_operation(
            "ping",
            {
                "destinations": ["127.0.0.1"], "protocol": "udp", "ports": [silent.getsockname()[1]],
                "timeout_s": 60,
            },
            Context(is_cancelled=lambda: next(asked, True)),
        )  # fmt: skip
    assert result.status == "cancelled"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({}, "destinations"),
        ({"destinations": []}, "destinations"),
        ({"destinations": ["a b"]}, "destinations"),
        ({"destinations": ["-x\n"]}, "destinations"),
        ({"destinations": ["h"], "ports": [80]}, "icmp has no ports"),
        ({"destinations": ["h"], "protocol": "tcp"}, "tcp needs ports"),
        ({"destinations": ["h"], "protocol": "tcp", "ports": [0]}, "ports"),
        ({"destinations": ["h"], "protocol": "sctp"}, "protocol"),
        ({"destinations": ["h"] * 16, "count": 100}, "1600 tries in all, at most 1000"),
        ({"destinations": ["h"], "timeout_s": 0}, "timeout_s"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_resolving_anything(
    parameters: dict[str, Any], reason: str
) -> None:
    result = run_operation("ping", parameters, Context())
    assert result.status == "invalid-parameters"
    assert reason in result.notes[0]


@pytest.mark.parametrize(
    ("older", "ours"),
    [
        ({"destination": "h", "protocol": "icmp"}, {"destinations": ["h"], "protocol": "icmp"}),
        (
            {"destination": "h", "destinationport": 80, "protocol": "tcp", "count": 5, "timeout": 2},
            {"destinations": ["h"], "ports": [80], "protocol": "tcp", "count": 5, "timeout_s": 2},
        ),
        (
            {"destination": "h", "destinationport": -1, "protocol": "icmp", "count": 0, "timeout": 0},
            {"destinations": ["h"], "protocol": "icmp"},
        ),
        ({"destinations": "h", "count": 3.0, "protocol": ""}, {"destinations": ["h"], "count": 3}),
        ("text", "text"),
    ],
)
def test_the_ancestors_parameters_are_rewritten(older: Any, ours: Any) -> None:
    assert ping.upgrade(older) == ours

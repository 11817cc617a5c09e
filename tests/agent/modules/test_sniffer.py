"""Tests of module sniffer: real packets in namespaces that the tests make. They need root."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from agent.execute import run_operation
from agent.module import Context, Limits
from agent.modules import sniffer
from protocol.acl import PathRules
from tests.agent.platform.test_dns_questions import name, query
from tests.agent.platform.test_tls_hello import HELLO
from tests.support.apart import become_nobody, run_apart
from tests.support.network import enter, namespace, two_hosts

pytestmark = pytest.mark.system
QUESTION = query(name(b"WWW", b"evil", b"example") + b"\0\1\0\1")


class Scene:
    """What happens while the module listens: all of it when it first asks whether to go on."""

    def __init__(self, act: Callable[[], None], *, cancel_at: int = 1 << 30) -> None:
        self._act: Callable[[], None] | None = act
        self._left = cancel_at

    def __call__(self) -> bool:
        if self._act is not None:
            act, self._act = self._act, None
            act()
        self._left -= 1
        return self._left < 0


def sniff(act: Callable[[], None], *, cancel_at: int = 1 << 30, **parameters: Any) -> dict[str, Any]:
    """Listen in this namespace while something happens."""
    result = run_operation(
        "sniffer", {"duration_s": 0.3, **parameters}, Context(is_cancelled=Scene(act, cancel_at=cancel_at))
    )
    return {
        "found": result.found,
        "status": result.status,
        "records": list(result.records),
        "notes": list(result.notes),
        "statistics": dict(result.statistics),
    }


def sniff_apart(act: Callable[[], None], **parameters: Any) -> dict[str, Any]:
    """Listen in a namespace where nothing else happens."""
    with namespace() as where:
        told: dict[str, Any] = run_apart(lambda: sniff(act, **parameters), enter(where))
    return told


def send(payload: bytes, port: int, times: int = 1) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 4000))
        for _ in range(times):
            sock.sendto(payload, ("127.0.0.1", port))


def converse(*payloads: bytes, port: int = 4443) -> None:
    """Open a connection, say something in so many segments, and close it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for payload in payloads:
                client.sendall(payload)
                server.recv(1 << 16)


def test_flows_are_told_with_ends_counts_and_times() -> None:
    told = sniff_apart(lambda: send(b"12345", 999, times=3))
    flows = [one for one in told["records"] if one["protocol"] == "udp"]
    assert len(flows) == 1
    flow = flows[0]
    assert {key: flow[key] for key in flow if key not in ("first", "last")} == {
        "about": "flow", "interface": "lo", "family": "ipv4", "protocol": "udp",
        "source_address": "127.0.0.1", "source_port": 4000,
        "destination_address": "127.0.0.1", "destination_port": 999,
        "count": 3, "size_bytes": 99, "count_back": 0, "size_back_bytes": 0,
    }  # fmt: skip
    assert flow["first"] <= flow["last"]
    # Nobody listens there, and the kernel says so.
    assert {one["protocol"] for one in told["records"]} == {"udp", "icmp"}
    assert (told["found"], told["status"], told["statistics"]["packets_dropped"]) == (True, "ok", 0)


def test_both_ends_of_a_connection_are_one_flow_and_what_they_say_is_never_told() -> None:
    told = sniff_apart(lambda: converse(b"the secret word", b"and more"), filter="tcp")
    (flow,) = told["records"]
    assert (flow["destination_port"], flow["protocol"]) == (4443, "tcp")
    assert flow["count"] >= 4
    assert flow["count_back"] >= 3
    assert "secret" not in json.dumps(told)


def test_the_filter_leaves_out_everything_else() -> None:
    def act() -> None:
        send(b"x", 999)
        send(b"x", 1000)

    told = sniff_apart(act, filter="udp dst portrange 1000-2000 and not net 10.0.0.0/8")
    assert [one["destination_port"] for one in told["records"]] == [1000]
    assert told["statistics"]["packets_seen"] == 1


def test_names_asked_for_by_dns_and_tls_are_told_also_in_pieces() -> None:
    def act() -> None:
        send(QUESTION, 53, times=2)
        converse(HELLO[:50], HELLO[50:300], HELLO[300:])

    told = sniff_apart(act)
    names = {one["about"]: one for one in told["records"] if "name" in one}
    assert (names["dns"]["name"], names["dns"]["type"], names["dns"]["count"]) == ("www.evil.example", "A", 2)
    assert (names["dns"]["destination_address"], names["dns"]["destination_port"]) == ("127.0.0.1", 53)
    assert (names["tls"]["name"], names["tls"]["destination_port"]) == ("www.example.org", 4443)
    assert told["statistics"]["names_seen"] == 2


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"dnsnames": ["(^|[.])evil[.]example$"]}, [("dns", "www.evil.example")]),
        ({"dnsnames": ["!evil"]}, []),
        ({"tlsnames": ["example[.]org$"]}, [("tls", "www.example.org")]),
        ({"tlsnames": ["!org$"], "dnsnames": ["evil"]}, [("dns", "www.evil.example")]),
    ],
)
def test_only_names_that_are_asked_for_are_told_and_no_flows(
    parameters: dict[str, Any], expected: Any
) -> None:
    def act() -> None:
        send(QUESTION, 53)
        converse(HELLO)

    told = sniff_apart(act, **parameters)
    assert [(one["about"], one["name"]) for one in told["records"]] == expected
    assert told["found"] is bool(expected)


def test_byte_strings_are_told_with_the_flow_that_carries_them() -> None:
    def act() -> None:
        send(b"MZ\x90\x00", 999, times=2)
        send(bytes(30_000) + b"MZ\x90\x00", 1000)
        send(b"nothing", 1001)

    told = sniff_apart(act, bytes=["4d5a9000", "ffff"], flows=True, filter="udp")
    found = [one for one in told["records"] if one["about"] == "bytes"]
    assert [(one["pattern"], one["destination_port"], one["count"]) for one in found] == [
        ("4d5a9000", 999, 2),
        ("4d5a9000", 1000, 1),
    ]
    assert sum(one["about"] == "flow" for one in told["records"]) == 3


def test_it_stops_after_so_many_packets_and_says_so() -> None:
    told = sniff_apart(lambda: send(b"x", 999, times=50), maxpackets=5, duration_s=60, filter="udp")
    assert (told["status"], told["statistics"]["packets_seen"]) == ("limit", 5)
    assert told["notes"] == ["stopped after 5 packets"]
    assert [one["count"] for one in told["records"]] == [5]


def test_what_was_heard_until_it_was_cancelled_is_told() -> None:
    told = sniff_apart(lambda: send(b"x", 999), cancel_at=2, duration_s=60, filter="udp")
    assert told["status"] == "cancelled"
    assert [one["destination_port"] for one in told["records"]] == [999]


def test_interfaces_are_heard_by_name() -> None:
    with two_hosts() as (near, far):

        def act() -> None:
            send(b"x", 999)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", (far.ipv4, 1000))

        told = run_apart(
            lambda: sniff(act, interfaces=["wire"], filter="udp", promiscuous=True), enter(near.name)
        )
    assert [(one["interface"], one["destination_port"]) for one in told["records"]] == [("wire", 1000)]


def test_hostile_names_do_no_harm() -> None:
    question = query(name(b"\x1b[2J", b'"\n', b"\xff" * 60) + b"\0\1\0\1")
    told = sniff_apart(lambda: send(question, 53), dnsnames=["."])
    (found,) = told["records"]
    assert found["name"].isprintable()
    assert json.loads(json.dumps(found)) == found


def test_where_paths_are_limited_it_is_refused() -> None:
    for rules in (PathRules(allow=("/tmp",)), PathRules(deny=("/etc/shadow",))):
        result = run_operation("sniffer", {"duration_s": 0.1}, Context(paths=rules))
        assert result.status == "failed"
        assert result.notes[0].startswith("acl-refused: packets can hold what stands in any file")


def test_what_cannot_be_heard_is_unsupported_with_the_reason() -> None:
    result = run_operation("sniffer", {"interfaces": ["nothing0"]}, Context())
    assert result.status == "unsupported"
    assert "listening on nothing0: " in result.notes[0]
    denied = run_apart(lambda: list(run_operation("sniffer", {}, Context()).notes), become_nobody)
    assert denied == ["unsupported: listening on all interfaces: Operation not permitted"]


def test_the_time_of_the_run_ends_it_with_what_was_heard() -> None:
    with namespace() as where:

        def act() -> dict[str, Any]:
            context = Context(is_cancelled=Scene(lambda: send(b"x", 999)), limits=Limits(wall_s=0.2))
            result = run_operation("sniffer", {"duration_s": 60, "filter": "udp"}, context)
            return {"status": result.status, "count": len(result.records)}

        assert run_apart(act, enter(where)) == {"status": "timed-out", "count": 1}


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"filter": "port http"}, "port http: no port"),
        ({"filter": " or ".join(["portrange 5-9"] * 128)}, "instructions, at most 4096"),
        ({"dnsnames": ["("]}, "dnsnames: .* is not a regular expression"),
        ({"bytes": ["4D"]}, "bytes"),
        ({"bytes": ["4d5"]}, "bytes"),
        ({"promiscuous": True}, "promiscuous: name the interfaces"),
        ({"interfaces": ["a/b"]}, "interfaces"),
        ({"duration_s": 601}, "duration_s"),
        ({"maxpackets": 0}, "maxpackets"),
    ],
)
def test_what_could_never_be_listened_to_is_refused(parameters: dict[str, Any], reason: str) -> None:
    result = run_operation("sniffer", parameters, Context())
    assert result.status == "invalid-parameters"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(result.notes[0])


def test_two_signers_are_needed_by_default() -> None:
    assert sniffer.MINIMUM_WEIGHT == 2


def test_lone_values_become_lists_and_bytes_lower_case() -> None:
    assert sniffer.upgrade({"bytes": "4D5A", "interfaces": "lo", "filter": "tcp"}) == {
        "bytes": ["4d5a"], "interfaces": ["lo"], "filter": "tcp",
    }  # fmt: skip
    assert sniffer.upgrade(7) == 7

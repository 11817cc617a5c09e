"""Tests of counting packets: directions, names, byte strings, and the bounds of every table."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform import packet_tally
from agent.platform.packet_tally import Found, Name, PacketTally, Table
from agent.platform.packets import ETH_IP, Heard
from tests.agent.platform.frames import frames, ip4, tcp, udp
from tests.agent.platform.test_dns_questions import WWW, query
from tests.agent.platform.test_tls_hello import HELLO


def hear(tally: PacketTally, packet: bytes, ether: int = ETH_IP, now_s: float = 1.0) -> None:
    tally.add(Heard("eth0", ether, len(packet), len(packet)), bytearray(packet), now_s)


def there(payload: bytes = b"", port: int = 5000) -> bytes:
    return ip4("10.0.0.1", "10.0.0.2", 6, tcp(port, 443, payload))


def back(payload: bytes = b"") -> bytes:
    return ip4("10.0.0.2", "10.0.0.1", 6, tcp(443, 5000, payload))


def test_both_directions_of_a_connection_are_one_flow() -> None:
    tally = PacketTally()
    for moment, packet in enumerate((there(), back(b"xy"), there(b"x"), back())):
        hear(tally, packet, now_s=float(moment))
    (flow,) = tally.flows.values()
    assert (flow.count, flow.size_bytes, flow.back, flow.size_back_bytes) == (2, 81, 2, 82)
    assert (flow.first_s, flow.last_s, flow.interface) == (0.0, 3.0, "eth0")
    assert (flow.packet.source_port, flow.packet.target_port) == (5000, 443)


def test_a_flow_to_itself_has_one_direction() -> None:
    tally = PacketTally()
    for _ in range(3):
        hear(tally, ip4("127.0.0.1", "127.0.0.1", 17, udp(9, 9)))
    assert [(flow.count, flow.back) for flow in tally.flows.values()] == [(3, 0)]


def test_names_of_dns_and_tls_are_counted_with_the_server_that_was_asked() -> None:
    tally = PacketTally()
    for _ in range(2):
        hear(tally, ip4("10.0.0.1", "10.0.0.2", 17, udp(4000, 53, query(WWW))))
    hear(tally, ip4("10.0.0.2", "10.0.0.1", 17, udp(53, 4000, query(WWW, flags=0x8180))))
    stream = struct.pack(">H", len(query(WWW))) + query(WWW)
    hear(tally, ip4("10.0.0.1", "10.0.0.2", 6, tcp(4000, 53, stream)))
    hear(tally, there(HELLO[:200]))
    hear(tally, ip4("10.0.0.1", "10.0.0.2", 6, tcp(5000, 443, HELLO[200:], sequence=201)))
    target = b"\x0a\0\0\x02"
    assert {name: seen.count for name, seen in tally.names.items()} == {
        Name("dns", "www.example.org", "AAAA", target, 53): 3,
        Name("tls", "www.example.org", "", target, 443): 1,
    }


def test_byte_strings_are_counted_by_flow_and_only_in_what_is_carried() -> None:
    tally = PacketTally(patterns=[b"secret", b"\x0a\0\0\x01"], has_names=False)
    for packet in (
        there(b"a secret"),
        there(b"secret secret"),
        back(b"secret"),
        there(b"se"),
        there(b"cret"),
    ):
        hear(tally, packet)
    assert [
        (found.pattern, found.source_port, seen.count)
        for found, seen in tally.found.items()
        if isinstance(found, Found)
    ] == [
        (0, 5000, 2),
        (0, 443, 1),
    ]


def test_what_is_not_looked_for_is_not_counted() -> None:
    tally = PacketTally(has_names=False, has_flows=False)
    hear(tally, there(HELLO))
    assert (len(tally.flows), len(tally.names), tally.packets) == (0, 0, 1)


def test_a_table_is_bounded_and_counts_what_found_no_room() -> None:
    table: Table[int] = Table(2)
    assert [table.add(key, lambda: 1) for key in ("a", "b", "c", "a", "c")] == [1, 1, None, 1, None]
    assert (len(table), table.untold) == (2, 2)


def test_every_flow_beyond_the_bound_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_tally, "MOST_FLOWS", 5)
    tally = PacketTally()
    for port in range(20):
        hear(tally, there(port=1000 + port))
    assert (len(tally.flows), tally.packets, tally.untold()) == (5, 20, {"flows": 15})


@given(st.lists(frames(), max_size=20), st.lists(st.binary(min_size=1, max_size=2), max_size=2))
def test_no_packet_is_lost_between_flows(packets: list[bytes], patterns: list[bytes]) -> None:
    tally = PacketTally(patterns=patterns)
    for packet in packets:
        hear(tally, packet[14:], int.from_bytes(packet[12:14], "big"))
    assert sum(flow.count + flow.back for flow in tally.flows.values()) == len(packets)
    assert sum(flow.size_bytes + flow.size_back_bytes for flow in tally.flows.values()) == tally.size_bytes


@given(st.binary(max_size=120), st.sampled_from([0x0800, 0x86DD, 0x0806, 0x8100]))
def test_any_bytes_are_counted(data: bytes, ether: int) -> None:
    tally = PacketTally(patterns=[b"\0"])
    hear(tally, data, ether)
    assert tally.packets == 1

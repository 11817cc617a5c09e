"""Tests of addresses and ports that are asked for."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.net_ranges import AddressRanges, PortRanges, parse_address, parse_ports, parse_range


@pytest.mark.parametrize(
    ("values", "held", "not_held"),
    [
        (["192.0.2.1"], ["192.0.2.1", "::ffff:192.0.2.1"], ["192.0.2.2", "::1", "", "no address"]),
        (["10.1.2.3/8"], ["10.0.0.0", "10.255.255.255", "::ffff:10.9.9.9"], ["11.0.0.0"]),
        (["::ffff:10.0.0.0/104"], ["10.1.1.1"], ["11.1.1.1", "::1"]),
        (["::ffff:192.0.2.1"], ["192.0.2.1"], ["192.0.2.2"]),
        (["fe80::/10"], ["fe80::1", "fe80::1%eth0"], ["fec0::1"]),
        (["0.0.0.0/0"], ["0.0.0.1", "255.255.255.255"], ["::", "fd00::1"]),
        (["::/0"], ["::", "fd00::1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        (["!10.0.0.0/8"], ["192.0.2.1", "fd00::1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        (["10.0.0.0/8", "!10.1.0.0/16"], ["10.2.0.1"], ["10.1.0.1", "192.0.2.1"]),
        (["10.0.0.1", "fd00::1"], ["10.0.0.1", "fd00:0::1"], ["10.0.0.2"]),
    ],
)  # fmt: skip
def test_ranges_hold_what_they_say(values: list[str], held: list[str], not_held: list[str]) -> None:
    ranges = AddressRanges(values)
    assert [one for one in held if not ranges.holds(one)] == []
    assert [one for one in not_held if ranges.holds(one)] == []


@pytest.mark.parametrize(
    "text",
    ["", "!", "10.0.0", "10.0.0.256", "10.0.0.0/33", "fe80::1%eth0", "::g", "010.0.0.1", "10.0.0.1/", "a/8"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_range(text)


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_range_written_from_any_address_in_it_holds_that_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int
) -> None:
    text = f"{address}/{length % (address.max_prefixlen + 1)}"
    if parse_address(str(address)) == address:
        assert AddressRanges([text]).holds(str(address))
        assert not AddressRanges([f"!{text}"]).holds(str(address))


@given(st.text(max_size=40))
def test_any_text_is_a_range_or_a_value_error(text: str) -> None:
    parse_address(text)
    for parse in (parse_range, parse_ports):
        try:
            parse(text)
        except ValueError as error:
            assert repr(text) in str(error)  # noqa: PT017  (either outcome is right)


@pytest.mark.parametrize(
    ("values", "held", "not_held"),
    [
        (["22"], [22], [2, 222]),
        (["8000-8100"], [8000, 8050, 8100], [7999, 8101]),
        (["1-1024", "!22"], [1, 80, 1024], [22, 1025, 0]),
        (["!22"], [0, 80], [22]),
        ([], [0, 65535], []),
    ],
)
def test_ports_hold_what_they_say(values: list[str], held: list[int], not_held: list[int]) -> None:
    ports = PortRanges(values)
    assert [one for one in held if not ports.holds(one)] == []
    assert [one for one in not_held if ports.holds(one)] == []


@pytest.mark.parametrize(
    "text", ["", "-", "22-", "-22", "65536", "90-80", "1-65536", "ssh", "1-2-3", "\u0662", " 22"]
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        parse_ports(text)

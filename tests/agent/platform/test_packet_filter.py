"""Tests of the filter language of packets: what is understood, and what is refused with a reason."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.packet_filter import (
    Both,
    Either,
    Expression,
    FilterError,
    Kind,
    Not,
    Place,
    Ports,
    parse_filter,
)

TCP, UDP = Kind("tcp"), Kind("udp")
HOST = Place(ipaddress.ip_network("10.0.0.1"))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", None),
        ("  \n", None),
        ("tcp", TCP),
        ("proto tcp", TCP),
        ("proto \\udp", UDP),
        ("TCP", TCP),
        ("host 10.0.0.1", HOST),
        ("ip src host 10.0.0.1", HOST._replace(direction="src", is_ip_only=True)),
        ("dst net 10.0.0.0/8", Place(ipaddress.ip_network("10.0.0.0/8"), "dst")),
        ("net 2001:db8::/32", Place(ipaddress.ip_network("2001:db8::/32"))),
        ("port 53", Ports(53, 53)),
        ("udp dst port 53", Ports(53, 53, "udp", "dst")),
        ("tcp portrange 8000-8100", Ports(8000, 8100, "tcp")),
        ("not tcp", Not(TCP)),
        ("!tcp&&udp", Both(Not(TCP), UDP)),
        ("not not tcp", Not(Not(TCP))),
        ("tcp or udp and host 10.0.0.1", Both(Either(TCP, UDP), HOST)),
        ("tcp or (udp and host 10.0.0.1)", Either(TCP, Both(UDP, HOST))),
        ("((tcp))", TCP),
    ],
)
def test_an_expression_is_a_tree(text: str, tree: Expression | None) -> None:
    assert parse_filter(text) == tree


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("port", "ends too early"),
        ("tcp and", "ends too early"),
        ("(tcp", "ends too early"),
        ("(tcp udp)", "not closed"),
        ("tcp)", "follows what is complete"),
        ("tcp udp", "follows what is complete"),
        ("port 80 or 443", "'443' is not understood"),
        ("host example.org", "no address"),
        ("host 10.0.0.0/8", "that is a net"),
        ("net 10.0.0.1/8", "bits behind its prefix"),
        ("port http", "no port"),
        ("port 65536", "no port"),
        ("port 1-2", "no port"),
        ("portrange 5", "no range of ports"),
        ("portrange 9-5", "the lower port comes first"),
        ("icmp port 5", "only tcp and udp have ports"),
        ("tcp host 10.0.0.1", "only ip and ip6"),
        ("ip6 host 10.0.0.1", "the other family"),
        ("proto sctp", "known are"),
        ("tcp; reboot", "'; reboot' is not understood"),
        ("\u0430", "is not understood"),
        ("tcp[13] & 2 != 0", "is not understood"),
        ("(" * 70 + "tcp" + ")" * 70, "nested too deeply"),
        ("not " * 70 + "tcp", "nested too deeply"),
        (" or ".join(["tcp"] * 129), "more than 128 terms"),
        ("x" * 4097, "more than 4096 characters"),
    ],
)
def test_what_is_not_of_the_subset_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(FilterError, match=reason):
        parse_filter(text)


_WORDS = [
    *("tcp", "udp", "host", "net", "port", "src", "dst", "and", "or", "not", "(", ")"),
    *("10.0.0.1", "::1/128", "80", "1-9"),
]


def is_understood(text: str) -> bool:
    try:
        parse_filter(text)
    except FilterError:
        return False
    return True


@given(st.lists(st.sampled_from(_WORDS), min_size=1, max_size=20))
def test_what_is_understood_is_so_turned_round_too(words: list[str]) -> None:
    text = " ".join(words)
    assert not is_understood(text) or is_understood(f"not ({text})")


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    assert is_understood(text) in (True, False)

"""Tests of the files that name DNS servers: as resolvers write them, and as nobody should."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.dns_servers import (
    DnsServer,
    parse_link_file,
    parse_resolv_conf,
    parse_resolved_conf,
    parse_server,
    read_dns_servers,
)
from tests.agent.scan.runs import grow


def test_servers_of_a_resolv_conf_come_in_their_order_with_the_last_domains() -> None:
    text = (
        "# nameserver 192.0.2.99\nsearch old.example\nnameserver 192.0.2.1\n  nameserver\tfe80::1%eth0  # x\n"
        "nameserver not-an-address\nnameserver\n;nameserver 192.0.2.98\nsearch a.example b.example\n"
    )
    assert list(parse_resolv_conf(text, "/etc/resolv.conf")) == [
        DnsServer("192.0.2.1", "/etc/resolv.conf", domains=("a.example", "b.example")),
        DnsServer("fe80::1", "/etc/resolv.conf", interface="eth0", domains=("a.example", "b.example")),
    ]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", None, None)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353, None)),
        ("192.0.2.1:853%eth0#dns.example", ("192.0.2.1", 853, "eth0")),
        ("2001:db8::1", ("2001:db8::1", None, None)),
        ("[2001:db8::1]:853#dns.example", ("2001:db8::1", 853, None)),
        ("fe80::1%wlan0", ("fe80::1", None, "wlan0")),
        ("[2001:db8::1", None),
        ("[2001:db8::1]853", None),
        ("192.0.2.1:70000", None),
        ("192.0.2.1:x", None),
        ("", None),
        ("#dns.example", None),
    ],
)
def test_a_server_may_be_written_with_port_interface_and_name(word: str, expected: object) -> None:
    assert parse_server(word) == expected


def test_the_configuration_of_resolved_names_servers_and_fallbacks() -> None:
    text = "[Resolve]\n#DNS=192.0.2.9\nDNS = 192.0.2.1 192.0.2.2:5353\n"
    text += "FallbackDNS=1.1.1.1\nDomains=~. x.example\nLLMNR\n"
    found = list(parse_resolved_conf(text, "/x"))
    assert [(one.address, one.port, one.is_fallback) for one in found] == [
        ("192.0.2.1", None, False),
        ("192.0.2.2", 5353, False),
        ("1.1.1.1", None, True),
    ]
    assert {one.domains for one in found} == {("~.", "x.example")}


def test_every_file_is_read_and_a_drop_in_hides_one_of_less_weight(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/resolv.conf": b"nameserver 127.0.0.53\nnameserver 127.0.0.53\n",
            "run/systemd/resolve/resolv.conf": b"nameserver 192.0.2.1\n",
            "run/NetworkManager/resolv.conf": b"nameserver 192.0.2.2\n",
            "etc/systemd/resolved.conf": b"[Resolve]\n#DNS=\n",
            "usr/lib/systemd/resolved.conf": b"[Resolve]\nDNS=192.0.2.66\n",
            "etc/systemd/resolved.conf.d/10-a.conf": b"[Resolve]\nDNS=192.0.2.3\n",
            "run/systemd/resolved.conf.d/10-a.conf": b"[Resolve]\nDNS=192.0.2.67\n",
            "usr/lib/systemd/resolved.conf.d/20-b.conf": b"[Resolve]\nDNS=192.0.2.4\n",
            "usr/lib/systemd/resolved.conf.d/README": b"DNS=192.0.2.68\n",
            "run/systemd/resolve/netif/7": b"# private\nSERVERS=192.0.2.5\nDOMAINS=x.example\n",
            "run/systemd/netif/links/8": b"DNS=192.0.2.6 192.0.2.7\n",
            "run/systemd/netif/links/.#8x": b"DNS=192.0.2.69\n",
        },
    )
    found = read_dns_servers(str(tmp_path))
    assert [(one.address, one.path) for one in found] == [
        ("127.0.0.53", "/etc/resolv.conf"),
        ("192.0.2.1", "/run/systemd/resolve/resolv.conf"),
        ("192.0.2.2", "/run/NetworkManager/resolv.conf"),
        ("192.0.2.3", "/etc/systemd/resolved.conf.d/10-a.conf"),
        ("192.0.2.4", "/usr/lib/systemd/resolved.conf.d/20-b.conf"),
        ("192.0.2.5", "/run/systemd/resolve/netif/7"),
        ("192.0.2.6", "/run/systemd/netif/links/8"),
        ("192.0.2.7", "/run/systemd/netif/links/8"),
    ]
    assert [one.ifindex for one in found][-3:] == [7, 8, 8]
    assert [one.is_stub for one in found[:2]] == [True, False]


def test_a_system_without_any_file_names_none(tmp_path: Path) -> None:
    assert read_dns_servers(str(tmp_path)) == []


def test_what_is_no_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").mkdir()
    (tmp_path / "run/NetworkManager").mkdir(parents=True)
    os.mkfifo(tmp_path / "run/NetworkManager/resolv.conf")
    told: list[tuple[str, str]] = []
    assert read_dns_servers(str(tmp_path), on_unreadable=lambda path, why: told.append((path, why))) == []
    assert told == [("/etc/resolv.conf", "Is a directory")]


def test_servers_are_bounded_and_the_bound_is_told(tmp_path: Path) -> None:
    lines = "".join(f"nameserver 10.{number >> 8}.{number & 255}.1\n" for number in range(2000))
    grow(tmp_path, {"etc/resolv.conf": lines.encode()})
    told: list[str] = []
    assert len(read_dns_servers(str(tmp_path), on_unreadable=lambda _, why: told.append(why))) == 1000
    assert told == ["more than 1000 servers"]


@given(st.text(alphabet=st.sampled_from("nameserver 127.0.0.1:[]%#=DNS\n\x00\u00e4"), max_size=200))
def test_any_text_gives_servers_with_addresses_or_nothing(text: str) -> None:
    for found in (
        *parse_resolv_conf(text, "/x"),
        *parse_resolved_conf(text, "/x"),
        *parse_link_file(text, "/x", 1, "DNS", "DOMAINS"),
    ):
        assert found.address
        assert found.port is None or found.port <= 65535
    parse_server(text)

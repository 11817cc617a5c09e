"""Tests of finding the configured NTP servers: each daemon's files as its documentation has them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.ntp_servers import (
    NtpServer,
    is_server_name,
    parse_assignment,
    parse_line,
    read_ntp_servers,
)
from tests.agent.scan.runs import grow


def names(root: Path) -> list[str]:
    return [one.name for one in read_ntp_servers(str(root))]


def test_chrony_is_read_with_what_it_includes(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/chrony/chrony.conf": b"# server no.example\n! pool no.example\n"
            b"pool 2.debian.pool.ntp.org iburst\nconfdir /etc/chrony/conf.d\n"
            b"sourcedir /run/chrony-dhcp\nsourcedir /etc/chrony/sources.d\n"
            b"include /etc/chrony/extra/*.inc\nrefclock SHM 0\ndriftfile /var/lib/x\n"
            b"Server Upper.example port 1123 nts\n",
            "etc/chrony/conf.d/a.conf": b"peer peer.example\n",
            "etc/chrony/conf.d/a.txt": b"server no.example\n",
            "etc/chrony/sources.d/b.sources": b"server 192.0.2.1 iburst\n",
            "run/chrony-dhcp/eth0.sources": b"server 192.0.2.2 iburst\n",
            "etc/chrony/extra/c.inc": b"server c.example\n",
        },
    )
    found = read_ntp_servers(str(tmp_path))
    assert [(one.name, one.path) for one in found] == [
        ("2.debian.pool.ntp.org", "/etc/chrony/chrony.conf"),
        ("peer.example", "/etc/chrony/conf.d/a.conf"),
        ("192.0.2.2", "/run/chrony-dhcp/eth0.sources"),
        ("192.0.2.1", "/etc/chrony/sources.d/b.sources"),
        ("c.example", "/etc/chrony/extra/c.inc"),
        ("Upper.example", "/etc/chrony/chrony.conf"),
    ]
    assert found[0].is_pool
    assert found[-1] == NtpServer("Upper.example", "/etc/chrony/chrony.conf", 1123)


def test_timesyncd_is_read_with_drop_ins_and_fallbacks_come_last(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/systemd/timesyncd.conf": b"[Time]\n#NTP=no.example\n"
            b"FallbackNTP=0.pool.example 1.pool.example\n",
            "usr/lib/systemd/timesyncd.conf": b"[Time]\nNTP=no.example\n",
            "etc/systemd/timesyncd.conf.d/10.conf": b"[Time]\nNTP=a.example  192.0.2.1\n",
            "usr/lib/systemd/timesyncd.conf.d/10.conf": b"[Time]\nNTP=hidden.example\n",
            "run/systemd/timesyncd.conf.d/20.conf": b"[Time]\nNTP = 2001:db8::1\n",
            "run/systemd/netif/links/2": b"ADMIN_STATE=configured\nNTP=dhcp.example\nDNS=192.0.2.53\n",
        },
    )
    assert names(tmp_path) == [
        "a.example", "192.0.2.1", "2001:db8::1", "dhcp.example", "0.pool.example", "1.pool.example",
    ]  # fmt: skip
    assert [one.is_fallback for one in read_ntp_servers(str(tmp_path))] == [False] * 4 + [True] * 2


def test_ntpd_and_ntpsec_are_read_and_their_clocks_are_no_servers(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/ntp.conf": b"server 127.127.1.0\nfudge 127.127.1.0 stratum 10\n"
            b"server -4 a.example iburst # b\n"
            b"includefile /etc/ntp.more\nrestrict 192.0.2.9\npool 0.pool.example\n",
            "etc/ntp.more": b"peer more.example\n",
            "etc/ntpsec/ntp.conf": b"includefile local.conf\nserver sec.example nts\n",
            "etc/ntpsec/local.conf": b"server local.example\n",
            "etc/ntpsec/ntp.d/x.conf": b"pool drop.example\n",
        },
    )
    assert names(tmp_path) == [
        "a.example", "more.example", "0.pool.example", "local.example", "sec.example", "drop.example",
    ]  # fmt: skip


def test_openntpd_has_lists_of_servers(tmp_path: Path) -> None:
    grow(
        tmp_path, {"etc/openntpd/ntpd.conf": b"servers pool.example weight 5\nserver one.example\nsensor *\n"}
    )
    assert [(one.name, one.is_pool) for one in read_ntp_servers(str(tmp_path))] == [
        ("pool.example", True),
        ("one.example", False),
    ]


def test_a_system_without_any_file_has_no_servers(tmp_path: Path) -> None:
    told: list[str] = []
    assert read_ntp_servers(str(tmp_path), on_unreadable=lambda path, _: told.append(path)) == []
    assert told == []


def test_files_that_include_each_other_end(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/chrony.conf": b"include /etc/chrony.conf\ninclude /etc/b/*.conf\nserver a.example\n",
            "etc/b/b.conf": b"include /etc/chrony.conf\nconfdir /etc/b\nserver b.example\n",
            "etc/ntp.conf": b"includefile d0\n",
            **{
                f"etc/d{number}": f"includefile d{number + 1}\nserver {number}.example\n".encode()
                for number in range(9)
            },
        },
    )
    told: list[tuple[str, str]] = []
    found = read_ntp_servers(str(tmp_path), on_unreadable=lambda path, why: told.append((path, why)))
    assert [one.name for one in found][:2] == ["b.example", "a.example"]
    assert told == [("/etc/d5", "too many files that include others")]


def test_what_is_no_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "etc/ntp.conf").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/chrony.conf")
    grow(tmp_path, {"etc/ntpd.conf": b"server \xff\x1b[31m.example\nserver ok.example\n\x00\n"})
    grow(tmp_path, {"etc/ntpsec/ntp.conf": b"includefile a\x00b\n"})
    told: list[tuple[str, str]] = []
    found = read_ntp_servers(str(tmp_path), on_unreadable=lambda path, why: told.append((path, why)))
    assert [one.name for one in found] == ["ok.example"]
    assert told == [("/etc/ntp.conf", "Is a directory"), ("/etc/ntpsec/a\x00b", "no name of a file")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ntp.example", True), ("192.0.2.1", True), ("fe80::1%eth0", True), ("127.127.20.0", False),
        ("", False), ("a b", False), ("-4", False), ("\u0430.example", False),
        ("a" * 254, False), ("a;b", False),
    ],
)  # fmt: skip
def test_a_server_is_a_plain_name_or_address(name: str, expected: bool) -> None:  # noqa: FBT001
    assert (bool(name) and is_server_name(name)) is expected


@given(st.text(alphabet=st.sampled_from("server pool 127.#=NTP-46port\x00\u00e4\u0663"), max_size=80))
def test_any_line_names_plain_servers_or_none(line: str) -> None:
    for found in (*parse_line(line, "/x", ("server", "pool")), *parse_assignment(line, "/x")):
        assert found.name.isascii()
        assert found.port is None or 0 < found.port <= 65535

"""Tests of the endpoint's facts, on this endpoint and on recorded files of others."""

import ipaddress
import os
import platform
from pathlib import Path

import pytest

from agent.facts import collect_facts
from agent.platform import linux
from agent.runtime.heartbeat import encode_heartbeat, format_time
from agent.runtime.resident import utc_now
from protocol.heartbeat import decode_heartbeat


def test_the_facts_of_this_endpoint_make_a_heartbeat_that_a_server_accepts() -> None:
    facts = collect_facts(agent_id="a" * 32, version="1.2", tags={"operator": "it"}, modules=("file",))
    now = utc_now()
    heartbeat = decode_heartbeat(encode_heartbeat(facts, now=now, started=now, commands=["b" * 32]))
    assert heartbeat.agent == "a" * 32
    assert heartbeat.name == platform.node()
    assert heartbeat.os == "linux"
    assert heartbeat.time == now
    assert heartbeat.commands == ("b" * 32,)
    assert heartbeat.environment["kernel"] == os.uname().release


def test_a_heartbeat_tells_a_bounded_number_of_commands() -> None:
    facts = collect_facts(agent_id="a" * 32, version="1.2", tags={}, modules=())
    now = utc_now()
    payload = encode_heartbeat(
        facts, now=now, started=now, commands=[f"{number:032x}" for number in range(1000)]
    )
    assert len(decode_heartbeat(payload).commands) == 256


def test_times_are_rfc_3339_in_utc() -> None:
    assert format_time(utc_now()).endswith("Z")


def test_addresses_are_those_of_the_interfaces_without_loopback() -> None:
    for address in linux.list_addresses():
        interface = ipaddress.ip_interface(address)
        assert not (interface.ip.is_loopback and interface.network.prefixlen in (8, 128))


@pytest.mark.parametrize(
    ("text", "ident"),
    [
        (
            'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "Debian GNU/Linux 12 (bookworm)",
        ),
        ("NAME=Alpine\nVERSION='3.20'\n", "Alpine 3.20"),
        ('# comment\nNAME="unbalanced\nPRETTY_NAME=Fine\n', "Fine"),
        ("", "Linux"),
    ],
)
def test_the_system_names_itself_by_os_release(tmp_path: Path, text: str, ident: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(text)
    assert linux.describe_system(tmp_path) == ident


def test_os_release_is_also_found_under_usr_lib(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("PRETTY_NAME=Elsewhere\n")
    assert linux.describe_system(tmp_path) == "Elsewhere"


def test_init_is_found_by_what_each_leaves_in_run(tmp_path: Path) -> None:
    assert linux.find_init(tmp_path) == "unknown"
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/comm").write_text("busybox\n")
    assert linux.find_init(tmp_path) == "busybox"
    (tmp_path / "run/openrc").mkdir(parents=True)
    assert linux.find_init(tmp_path) == "openrc"
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert linux.find_init(tmp_path) == "systemd"


def test_a_machine_without_machine_id_has_an_empty_one(tmp_path: Path) -> None:
    assert linux.read_machine_id(tmp_path) == ""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("abc\n")
    assert linux.read_machine_id(tmp_path) == "abc"

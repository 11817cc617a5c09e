"""Tests of module timedrift: servers of the tests' own on loopback, and configurations of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.modules import timedrift
from protocol.result import OperationResult
from tests.support.apart import bind, leave_mounts, run_apart
from tests.support.sntp_server import reply, sntp_server


def ask(**parameters: Any) -> OperationResult:
    result = run_operation("timedrift", parameters, Context())
    assert result.status == "ok", result
    return result


def ask_here(port: int, **parameters: Any) -> OperationResult:
    return ask(servers=["127.0.0.1"], port=port, **parameters)


def test_a_clock_that_is_right_is_not_found() -> None:
    with sntp_server(lambda request: [reply(request)]) as port:
        result = ask_here(port)
    assert (result.found, result.notes) == (False, ())
    assert {name: result.statistics[name] for name in ("servers_seen", "answered", "beyond", "errors")} == {
        "servers_seen": 1, "answered": 1, "beyond": 0, "errors": 0,
    }  # fmt: skip


@pytest.mark.parametrize("ahead_s", [100.0, -100.0])
def test_a_clock_that_is_off_is_found_with_how_much(ahead_s: float) -> None:
    with sntp_server(lambda request: [reply(request, ahead_s=ahead_s)]) as port:
        (found,) = ask_here(port).records
    assert round(found["offset_s"]) == ahead_s
    assert (found["server"], found["address"], found["beyond"]) == ("127.0.0.1", "127.0.0.1", True)
    assert (found["stratum"], found["reference"], found["agreeing"]) == (2, "192.0.2.1", 0)
    assert found["server_time"].endswith("Z")
    assert (found["server_time"] > found["local_time"]) is (ahead_s > 0)
    assert "path" not in found


def test_what_is_too_much_is_a_parameter_and_every_server_can_be_told() -> None:
    with sntp_server(lambda request: [reply(request, ahead_s=100.0)]) as port:
        assert not ask_here(port, drift_s=200).found
        (told,) = ask_here(port, drift_s=200, every=True).records
        assert (told["beyond"], round(told["offset_s"])) == (False, 100)
        assert ask_here(port, drift_s=0.5).found


def test_a_server_that_is_alone_with_its_time_is_told_apart() -> None:
    def lie(request: bytes) -> list[bytes]:
        return [reply(request, ahead_s=1000.0)]

    with (
        sntp_server(lambda request: [reply(request)]) as port,
        sntp_server(lie, "127.0.0.2", port),
        sntp_server(lie, "127.0.0.3", port),
    ):
        records = ask(servers=["127.0.0.1", "127.0.0.2", "127.0.0.3"], port=port, every=True).records
    assert [(one["address"], one["agreeing"], one["beyond"]) for one in records] == [
        ("127.0.0.1", 0, False),
        ("127.0.0.2", 1, True),
        ("127.0.0.3", 1, True),
    ]


@pytest.mark.parametrize(
    ("lie", "reason", "note"),
    [
        ({"stratum": 0, "reference": b"DENY"}, "kiss", "127.0.0.1: kiss of death: DENY"),
        ({"stratum": 16}, "no-time", "not synchronised"),
        ({"originate": 1}, "no-time", "no answer to what was asked, but 1 others"),
        ({"sent": 1}, "no-time", "times that cannot be"),
    ],
)
def test_a_server_without_a_time_is_noted_and_raises_no_alarm(
    lie: dict[str, Any], reason: str, note: str
) -> None:
    with sntp_server(lambda request: [reply(request, ahead_s=5000.0, **lie)]) as port:
        result = ask_here(port, timeout_s=0.1)
    assert not result.found
    assert note in result.notes[0]
    assert (result.statistics["skipped"], result.statistics["errors"]) == ({reason: 1}, 1)


def test_a_server_that_wants_to_be_left_alone_is_not_asked_again() -> None:
    asked: list[bytes] = []

    def answer(request: bytes) -> list[bytes]:
        asked.append(request)
        return [reply(request, stratum=0, reference=b"RATE")]

    with sntp_server(answer) as port:
        ask_here(port, count=8)
    assert len(asked) == 1


def test_a_name_without_an_address_costs_the_others_nothing() -> None:
    with sntp_server(lambda request: [reply(request, ahead_s=100.0)]) as port:
        result = ask(servers=["no.such.invalid", "127.0.0.1"], port=port)
    assert [one["server"] for one in result.records] == ["127.0.0.1"]
    assert result.statistics["skipped"] == {"unresolved": 1}


def _configured(tmp_path: Path, chrony: str) -> Callable[[], None]:
    """Have /etc hold one configuration of chrony and nothing else, for whoever looks from its own mounts."""
    etc, empty = tmp_path / "etc", tmp_path / "empty"
    etc.mkdir()
    empty.mkdir()
    (etc / "chrony.conf").write_text(chrony)
    (etc / "hosts").write_text("127.0.0.1 ntp.test\n")

    def prepare() -> None:
        leave_mounts()
        bind(etc, Path("/etc"))
        bind(empty, Path("/run"))
        if Path("/usr/lib/systemd").is_dir():
            bind(empty, Path("/usr/lib/systemd"))

    return prepare


@pytest.mark.system
def test_without_any_configuration_there_is_no_alarm_and_nobody_is_asked(tmp_path: Path) -> None:
    def act() -> dict[str, Any]:
        result = ask()
        return {"found": result.found, "notes": result.notes, "statistics": result.statistics}

    told = run_apart(act, _configured(tmp_path, "makestep 1 3\n"))
    assert not told["found"]
    assert told["notes"] == ["no NTP server is configured, and none was given: nothing was asked"]
    assert (told["statistics"]["servers_seen"], told["statistics"]["errors"]) == (0, 0)


@pytest.mark.system
def test_the_servers_that_are_configured_are_asked_at_their_own_ports(tmp_path: Path) -> None:
    def act() -> list[Any]:
        with sntp_server(lambda request: [reply(request, ahead_s=100.0)]) as port:
            lines = ("server ntp.test", "pool 127.0.0.1", "server 127.0.0.1")
            Path("/etc/chrony.conf").write_text("".join(f"{line} port {port}\n" for line in lines))
            return [list(ask().records), list(ask(maxservers=1).notes)]

    found, bounded = run_apart(act, _configured(tmp_path, ""))
    assert [(one["server"], one["path"], one["agreeing"]) for one in found] == [
        ("ntp.test", "/etc/chrony.conf", 1),
        ("127.0.0.1", "/etc/chrony.conf", 1),
    ]
    assert bounded == ["2 servers are configured; the first 1 were asked"]


@pytest.mark.parametrize(
    ("parameters", "member"),
    [
        ({"servers": ["a b"]}, "servers"),
        ({"servers": [""]}, "servers"),
        ({"drift_s": -1}, "drift_s"),
        ({"drift_s": "5s"}, "drift_s"),
        ({"count": 100}, "count"),
        ({"port": 0}, "port"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_what_cannot_be_meant_is_refused(parameters: dict[str, Any], member: str) -> None:
    result = run_operation("timedrift", parameters, Context())
    assert result.status == "invalid-parameters"
    assert member in result.notes[0]


@pytest.mark.parametrize(
    ("older", "ours"),
    [
        ({"drift": "5s"}, {"drift_s": 5.0}),
        ({"drift": "1m30s"}, {"drift_s": 90.0}),
        ({"drift": "1.5h"}, {"drift_s": 5400.0}),
        ({"drift": "250ms"}, {"drift_s": 0.25}),
        ({"drift": ""}, {"every": True}),
        ({"drift": "soon"}, {"drift_s": "soon"}),
        ({"drift": "5"}, {"drift_s": "5"}),
        ({"servers": "a.example"}, {"servers": ["a.example"]}),
        (None, None),
    ],
)
def test_the_ancestors_parameters_are_rewritten(older: Any, ours: Any) -> None:
    assert timedrift.upgrade(older) == ours

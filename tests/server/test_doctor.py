"""`mig-server doctor`: everything in one line each, and what is wrong or needs a person."""

import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from protocol.audit import Head
from protocol.trust import decode_bundle
from server.broker import PrivateBroker
from server.config import load_config
from server.parts import utc_now
from tests.support.broker import AgentKey
from tests.support.endpoint import make_bundle
from tests.support.fleet import NOW, FleetAgent
from tests.support.gpg import Investigator
from tests.support.installation import Installation


def change_nothing(_state: Path) -> None:
    """Leave a first configuration as it is."""


def publish_another_agent(state: Path) -> None:
    """Offer an agent whose sum is not that of SHA256SUMS."""
    (state / "agents" / "mig-agent-linux-x86_64").write_bytes(b"agent")
    (state / "agents" / "SHA256SUMS").write_text(f"{'0' * 64}  mig-agent-linux-x86_64\n")


def test_the_doctor_says_everything_in_one_line_each(prepared: Installation) -> None:
    done = prepared("doctor")
    subjects = [line.split(":")[0][6:] for line in done.out.splitlines()]
    assert subjects == [
        "config",
        "state",
        "disk",
        "database",
        "agents",
        "clocks",
        "investigators",
        "trust bundle",
        "agents' trust",
        "audit log",
        "enrolment",
        "webhooks",
        "broker",
        "api port",
        "broker-auth port",
        "downloads",
    ]
    assert [line for line in done.out.splitlines() if line.startswith("FAIL")] == [
        "FAIL  broker: broker-away: [Errno 111] Connection refused"
    ]
    assert done.code == 5


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda state: (state / "mig.sqlite").unlink(), "FAIL  database: database-away: is older than this"),
        (lambda state: (state / "mig.sqlite").write_bytes(b"x" * 9000), "FAIL  database: database-away: "),
        (lambda state: state.chmod(0o777), "FAIL  state: unsafe-file: "),
        (lambda state: (state.parent / "config.toml").chmod(0o644), "FAIL  config: "),
        (lambda state: (state / "agents").chmod(0o777), "FAIL  downloads: unsafe-file: "),
        (change_nothing, "warn  downloads: no mig-agent-* in "),
        (change_nothing, "warn  investigators: nobody may use the API"),
        (change_nothing, "warn  enrolment: by token, and there is no good one"),
        (publish_another_agent, "mig-agent-linux-x86_64 is not what "),
    ],
    ids=[
        "no database",
        "no SQLite file",
        "open state",
        "open configuration",
        "open downloads",
        "no downloads",
        "no investigator",
        "no token",
        "another agent file",
    ],
)
def test_the_doctor_sees_what_is_wrong(prepared: Installation, break_it: object, said: str) -> None:
    assert callable(break_it)
    break_it(prepared.state)
    assert said in prepared("doctor").out


def test_the_doctor_sees_what_is_odd_about_agents(prepared: Installation) -> None:
    store, now = prepared.store, utc_now()
    assert "ok    agents: none yet" in prepared("doctor").out
    waiting = AgentKey()
    store.enrol_agent(waiting.id, waiting.public, "approval", now)
    assert "warn  agents: 1 pending; mig-server agent list --pending" in prepared("doctor").out
    late = FleetAgent(store, "late", now=now)
    store.save_heartbeat(late.heartbeat(now - timedelta(hours=1), started=now), now)
    assert f"warn  clocks: 1 agents are off by more than 5 minutes: {late.id}" in prepared("doctor").out
    store.note_flood(late.id, now)
    assert f"cut off for flooding: {late.id}; look at them" in prepared("doctor").out
    store.note_flood(late.id, now - timedelta(days=1))
    assert "cut off" not in prepared("doctor").out
    for second, process in ((1, 1), (2, 2), (3, 1)):
        time, started = now + timedelta(seconds=second), now - timedelta(hours=process)
        store.save_heartbeat(late.heartbeat(time, started=started), now)
    assert f"two processes under one id: {late.id}" in prepared("doctor").out
    assert prepared("agent", "token", "new").code == 0
    assert "ok    enrolment: by token, 1 good tokens" in prepared("doctor").out


def test_the_doctor_sees_trust_that_ends_or_lags(prepared: Installation, ada: Investigator) -> None:
    store, now = prepared.store, utc_now()
    out = prepared("doctor").out
    assert "ok    trust bundle: none is published: agents obey what was baked into them" in out
    assert "ok    agents' trust: every agent that was heard obeys somebody" in out
    agents = {name: FleetAgent(store, name, now=now) for name in ("expired", "soon", "behind")}
    told: dict[str, dict[str, Any]] = {
        "expired": {"trust_version": 7, "trust_state": "expired", "trust_expires": now - timedelta(days=1)},
        "soon": {"trust_version": 7, "trust_state": "in-force", "trust_expires": now + timedelta(days=1)},
        "behind": {"trust_version": 6, "trust_state": "in-force"},
    }
    for name, members in told.items():
        store.save_heartbeat(agents[name].heartbeat(now, **members), now)
    for version, expires_s, said in (
        (5, 90 * 86400, "ok    trust bundle: bundle 5 is published, good until "),
        (6, 86400, ": publish a newer one before that"),
        (7, -60, "FAIL  trust bundle: trust-expired: bundle 7 is published, good until "),
    ):
        bundle = decode_bundle(json.dumps(make_bundle(version, ada, expires_s=expires_s)).encode())
        store.publish_trust(bundle, b"{}", f"d{version}", ada.fingerprint, now - timedelta(hours=2))
        assert said in prepared("doctor").out
    [line] = [line for line in prepared("doctor").out.splitlines() if "agents' trust" in line]
    expired, soon, behind = (agents[name].id for name in told)
    assert line == (
        f"warn  agents' trust: 1 agents obey nobody: their trust has expired or is lost: {expired}; "
        f"1 agents' trust expires within 14 days: {soon}; 1 agents were heard and do not hold the "
        f"newest bundle (those without roots take none): {behind}"
    )


def test_the_doctor_compares_the_audit_log_with_what_agents_have_signed(prepared: Installation) -> None:
    store, now = prepared.store, utc_now()
    good, forged = FleetAgent(store, "good"), FleetAgent(store, "forged")

    def sign(agent: FleetAgent, *heads: Head, minutes: int = 0, **more: Any) -> None:
        time = now + timedelta(minutes=minutes)
        heartbeat = agent.heartbeat(time, server_heads=tuple(map(tuple, heads)), **more)
        store.save_witnesses([(heartbeat, agent.signed(heartbeat))], now)

    sign(good, store.audit_head())
    assert "ok    audit log: 2 entries; the newest heads that 1 agents have signed" in prepared("doctor").out
    sign(good, Head(1, "0" * 64), store.audit_head(), minutes=1)
    forged.key = good.key
    sign(forged, Head(1, "0" * 64))
    out = prepared("doctor").out
    assert "warn  audit log: 1 agents have signed heads that do not stand in it" in out
    assert f"or a backup): {good.id}; see mig audit verify" in out
    for minutes, length in ((2, 9), (3, 5)):
        sign(good, Head(999, "0" * 64), minutes=minutes, log_head=(length, "a" * 64))
    assert f"1 agents' own logs were written anew or went back: {good.id}" in prepared("doctor").out


def test_the_doctor_sees_a_port_that_is_taken(prepared: Installation) -> None:
    port = load_config(prepared.config).api_address.port
    with socket.create_server(("127.0.0.1", port)):
        assert f"FAIL  api port: port-in-use: cannot listen on 127.0.0.1:{port}" in prepared("doctor").out


def test_a_webhook_that_fails_is_said_with_what_waits_for_it(prepared: Installation) -> None:
    text = prepared.config.read_text()
    hook = 'webhook = [{ name = "siem", url = "https://siem.example.net/" }]'
    prepared.config.write_text(text.replace("[server]", f"[server]\n{hook}", 1))
    assert "ok    webhooks: siem: no server has served it yet" in prepared("doctor").out
    store = prepared.store
    store.lease_hook("siem", "a", NOW, NOW)
    store.save_alerts([FleetAgent(store).alert(1)], NOW)
    store.postpone_hook("siem", "a", NOW, "HTTP status 500")
    said = "warn  webhooks: siem fails: HTTP status 500; siem: 1 alerts wait"
    assert said in prepared("doctor").out


@pytest.mark.system
def test_the_doctor_compares_the_brokers_open_files_with_the_agents(
    prepared: Installation, clean_broker: PrivateBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = prepared.config.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("relay =", "rabbitmqctl ="))]
    place = kept.index("[server]") + 1
    kept[place:place] = [f'relay = "{clean_broker.url}"', f'rabbitmqctl = "{clean_broker.rabbitmqctl}"']
    prepared.config.write_text("\n".join(kept) + "\n")
    FleetAgent(prepared.store)
    out = prepared("doctor").out
    assert "ok    broker files: the broker may open " in out
    assert " agents\n" in out.partition("broker files: ")[2]
    monkeypatch.setattr("server.doctor.FILES_PER_AGENT", 1 << 30)
    said = "1 agents need 1,073,742,324: raise its LimitNOFILE"
    assert said in prepared("doctor").out.partition("warn  broker files: ")[2]

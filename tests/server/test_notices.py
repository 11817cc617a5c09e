"""Notices: who is told the head of the audit log, how often, and what is kept of what agents sign."""

import asyncio
import json
import stat
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import EnvironmentFailure
from protocol.heartbeat import Heartbeat
from protocol.notice import Notice, open_notice
from server.notices import NOTICE_EVERY, Notices, load_notice_key
from server.store import Store
from tests.support.database import migrated_database
from tests.support.fleet import NOW, FleetAgent


class Relay:
    """Takes what is published, or is away."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Notice]] = []
        self.is_away = False

    async def publish_documents(self, bodies: Mapping[str, bytes], ttl_s: int) -> frozenset[str]:
        assert 0 < ttl_s < 60
        if self.is_away:
            raise EnvironmentFailure("broker-away")
        self.told += [(agent, open_notice(body)) for agent, body in bodies.items()]
        return frozenset(bodies)


class Desk:
    """A server's notices over an SQLite database, with a clock that the test moves."""

    def __init__(self, directory: Path) -> None:
        self.database = migrated_database(f"sqlite:///{directory / 'mig.sqlite'}")
        self.store = Store(self.database)
        self.relay = Relay()
        self.now = NOW
        self.agent = FleetAgent(self.store)
        self.notices = Notices(
            database=self.database,
            store=self.store,
            relay=self.relay,
            key=Ed25519PrivateKey.generate(),
            server="mig",
            clock=lambda: self.now,
        )

    def heard(self, *heartbeats: Heartbeat) -> None:
        asyncio.run(self.notices.heard([(one, self.agent.signed(one)) for one in heartbeats]))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.database.close()


def test_an_agent_that_is_heard_is_told_the_head_at_a_limited_rate(desk: Desk) -> None:
    agent = desk.agent
    desk.heard(agent.heartbeat())
    [(told, notice)] = desk.relay.told
    assert (told, notice.server, notice.head) == (agent.id, "mig", desk.store.audit_head())
    desk.heard(agent.heartbeat())
    assert len(desk.relay.told) == 1
    desk.now += NOTICE_EVERY
    desk.heard(agent.heartbeat())
    assert len(desk.relay.told) == 2


def test_an_agent_that_knows_the_head_is_not_told_again(desk: Desk) -> None:
    agent = desk.agent
    desk.heard(agent.heartbeat(server_heads=(tuple(desk.store.audit_head()),)))
    assert desk.relay.told == []


def test_what_an_agent_signs_of_the_log_is_kept_when_it_changes(desk: Desk) -> None:
    agent = desk.agent
    first = agent.heartbeat(server_heads=((1, "a" * 64),))
    desk.heard(agent.heartbeat(), first)
    desk.now += timedelta(seconds=60)
    desk.heard(agent.heartbeat(desk.now, server_heads=((1, "a" * 64),)))
    [row] = desk.store.list_witnesses("", 10)
    assert (row.envelope, row.received) == (agent.signed(first), NOW)
    row_heads = ((1, "a" * 64), (2, "b" * 64))
    desk.heard(agent.heartbeat(desk.now, server_heads=row_heads))
    [row] = desk.store.list_witnesses("", 10)
    assert row.received == desk.now
    desk.now += timedelta(seconds=60)
    desk.heard(agent.heartbeat(desk.now, server_heads=row_heads, log_head=(1, "c" * 64)))
    [row] = desk.store.list_witnesses("", 10)
    assert row.received == desk.now


def test_an_agent_whose_own_log_was_written_anew_is_recorded_and_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds, digit in ((0, "a"), (60, "b"), (120, "b")):
        desk.now = NOW + timedelta(seconds=seconds)
        desk.heard(desk.agent.heartbeat(desk.now, log_head=(5, digit * 64)))
    said = f"entry 5 was {'a' * 64} and is {'b' * 64} now: it was written anew"
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (record.message, record.__dict__["reason"]) == ("an agent's own log is not what it was", said)
    [entry] = [json.loads(line) for _, line in desk.store.list_audit(0, 100)[0] if b"agent-log" in line]
    assert entry["what"] == {"agent": desk.agent.id, "problem": said}


def test_a_server_whose_log_went_back_hears_it_from_agents(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.heard(desk.agent.heartbeat(server_heads=((999, "a" * 64),)))
    assert "an agent has seen a later entry of the audit log than there is" in caplog.messages


def test_a_broker_that_is_away_costs_a_notice_and_nothing_else(desk: Desk) -> None:
    agent = desk.agent
    desk.relay.is_away = True
    desk.heard(agent.heartbeat())
    desk.relay.is_away = False
    desk.heard(agent.heartbeat())
    assert len(desk.relay.told) == 1


def test_a_server_keeps_its_notice_key_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "state" / "notice.key"
    key = load_notice_key(path)
    assert load_notice_key(path).private_bytes_raw() == key.private_bytes_raw()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["notice.key"]
    path.write_bytes(b"short")
    with pytest.raises(EnvironmentFailure, match=r"state-failed: .*notice\.key holds no key"):
        load_notice_key(path)

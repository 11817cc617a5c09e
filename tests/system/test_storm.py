"""A fleet that loses its broker at once: all return, about one login each, and nothing is asked twice.

The agents are those of `bench/swarm.py`, real on the wire. For figures: `bench/swarm.py N --storm`.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from protocol.names import agent_queue
from server import schema
from tests.support.broker import server_connection
from tests.support.database import query_once
from tests.support.gpg import Investigator
from tests.support.platform import ROOT, Platform, wait_until

pytestmark = pytest.mark.system

COUNT = 100
PATIENCE_S = 180


class Fleet:
    """A platform, and one process with all the agents."""

    def __init__(self, platform: Platform, swarm: "subprocess.Popen[str]") -> None:
        self.platform = platform
        self.swarm = swarm
        self._database = f"sqlite:///{platform.directory / 'server' / 'mig.sqlite'}"

    def query(self, query: "sa.Select[Any]") -> list[Any]:
        """Ask the database."""
        return query_once(self._database, query)

    def until_heard(self, since: datetime) -> None:
        """Wait until every agent has sent a heartbeat after this time."""
        heard = sa.select(schema.agents.c.id).where(schema.agents.c.heartbeattime > since)
        wait_until(lambda: len(self.query(heard)) == COUNT, "every agent", seconds=PATIENCE_S)

    def logged(self) -> tuple[int, int, int]:
        """Return how many logins, denials, and published commands the server has logged."""
        log = self.platform.log("server")
        sent = re.findall(r" msg=sent commands=([0-9]+)", log)
        return (
            len(re.findall(r" msg=login agent=", log)),
            len(re.findall(r' msg="(?:login denied|denied for now)"', log)),
            sum(map(int, sent)),
        )

    def start_asking(self) -> "subprocess.Popen[str]":
        """Ask all of them who they are."""
        words = ["agentinfo", "-t", "name LIKE 'swarm-%'", "--expire", "20m", "--yes", "--json"]
        return self.platform.start_mig(*words, stderr=subprocess.DEVNULL)

    def kill_broker(self) -> None:
        """End the node as a power cut would."""
        os.kill(int((self.platform.broker.directory / "rabbitmq.pid").read_text()), signal.SIGKILL)
        self.platform.broker.stop()

    def until_commands(self, action_count: int) -> None:
        """Wait until the commands of so many actions stand in the database."""
        stand = sa.select(schema.commands.c.id)
        wait_until(lambda: len(self.query(stand)) == action_count * COUNT, "the commands")

    def require_answered_once(self, asking: "subprocess.Popen[str]") -> None:
        """Fail unless every agent answered what was asked, and every command has one answer."""
        out, _ = asking.communicate(timeout=PATIENCE_S)
        *answers, summary = map(json.loads, out.splitlines())
        assert summary["summary"]["agents"] == len(answers) == COUNT, summary
        counted = (
            sa.select(schema.commands.c.state, sa.func.count(schema.results.c.seq))
            .outerjoin(schema.results, schema.results.c.command_id == schema.commands.c.id)
            .group_by(schema.commands.c.id)
        )
        assert set(Counter(map(tuple, self.query(counted)))) == {("done", 1)}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("storm")
    platform = Platform(directory, ada)
    swarm: subprocess.Popen[str] | None = None
    try:
        platform.start()
        settings = {
            "relay": platform.broker.agent_url,
            "broker": "mig",
            "key": str(directory / f"{ada.fingerprint}.asc"),
            "fingerprint": ada.fingerprint,
            "first": 0,
            "count": COUNT,
            "ramp": 200,
        }
        with (directory / "swarm.log").open("wb") as log:
            swarm = subprocess.Popen(
                [sys.executable, "-B", str(ROOT / "bench" / "swarm_agents.py"), json.dumps(settings)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
            )
        assert swarm.stdout is not None
        assert json.loads(swarm.stdout.readline())["ready"] == COUNT
        running = Fleet(platform, swarm)
        running.until_heard(datetime.fromtimestamp(0, UTC))
        yield running
    finally:
        if swarm is not None:
            swarm.kill()
            swarm.wait()
            if swarm.stdout is not None:
                swarm.stdout.close()
        platform.stop()


def test_a_fleet_that_lost_its_broker_returns_and_answers_once_what_was_asked_meanwhile(fleet: Fleet) -> None:
    actions = len(fleet.query(sa.select(schema.actions.c.id)))
    before = fleet.logged()
    fleet.kill_broker()
    asking = fleet.start_asking()
    fleet.until_commands(actions + 1)
    fleet.platform.broker.start()
    back = datetime.now(UTC)
    fleet.until_heard(back)
    fleet.require_answered_once(asking)
    logins, denials, published = (now - then for now, then in zip(fleet.logged(), before, strict=True))
    # One login for each, but for those who came before the server was connected again or did not wait for it;
    # no login publishes again what the queue holds. Who comes while it is being published may get it twice.
    assert COUNT <= logins <= COUNT + COUNT // 2 + denials
    assert COUNT <= published <= logins + COUNT // 2


def test_what_a_broker_lost_with_its_queues_is_published_again_once_for_each_agent(fleet: Fleet) -> None:
    actions = len(fleet.query(sa.select(schema.actions.c.id)))
    ids = [row.id for row in fleet.query(sa.select(schema.agents.c.id))]
    before = fleet.logged()
    fleet.swarm.send_signal(signal.SIGSTOP)  # nobody comes back before the queues are gone
    try:
        fleet.kill_broker()
        asking = fleet.start_asking()
        fleet.until_commands(actions + 1)
        fleet.platform.broker.start()
        sent = sa.select(schema.commands.c.id).where(schema.commands.c.state == "sent")
        wait_until(lambda: len(fleet.query(sent)) == COUNT, "the commands in the queues")
        with server_connection(fleet.platform.broker) as connection:
            channel = connection.channel()
            for agent_id in ids:
                channel.queue_delete(agent_queue(agent_id))
    finally:
        fleet.swarm.send_signal(signal.SIGCONT)
    fleet.require_answered_once(asking)
    logins, _, published = (now - then for now, then in zip(fleet.logged(), before, strict=True))
    assert logins >= COUNT
    assert 2 * COUNT <= published <= COUNT + logins

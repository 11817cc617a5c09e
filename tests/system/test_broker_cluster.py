"""A cluster of three nodes, servers on one PostgreSQL: nodes and servers die and come while actions run."""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from protocol.names import DEAD_QUEUE, RESULTS_QUEUE
from server import schema
from tests.support.cluster import ClusterPlatform
from tests.support.database import query_once
from tests.support.endpoint import sign_action
from tests.support.gpg import Investigator
from tests.support.platform import wait_until
from tests.support.postgres import make_database, private_postgres  # noqa: F401  (a fixture)

pytestmark = pytest.mark.system

NAMES = ("one", "two", "three", "four", "five", "six")
MODULES = Path(__file__).resolve().parent.parent / "crash" / "modules"
_FINAL = ("done", "failed", "refused", "timed-out", "expired", "cancelled")


class Cluster:
    """The platform, what was asked of it, and what the database says became of that."""

    def __init__(self, platform: ClusterPlatform, database: str, ada: Investigator) -> None:
        self.platform = platform
        self._database = database
        self._ada = ada
        self.marks = platform.directory / "marks"
        self.marks.mkdir()
        self.actions: list[str] = []

    def submit(self) -> None:
        """Ask all agents to leave a mark, which takes each of them a while."""
        token = f"mark-{uuid.uuid4()}"
        body = sign_action(
            self._ada,
            name=token,
            target="os = 'linux'",
            operations=[{"module": "mark", "parameters": {"directory": str(self.marks), "token": token}}],
            expireafter=(datetime.now(UTC) + timedelta(minutes=30)).isoformat(),
        )
        file = self.platform.directory / f"{token}.signed.json"
        file.write_bytes(body)
        self.platform.mig("action", "submit", str(file), "--yes")
        self.actions.append(token)

    def until_settled(self) -> None:
        """Wait until every command has ended."""
        left = sa.select(schema.commands.c.id).where(schema.commands.c.state.not_in(_FINAL))
        wait_until(lambda: not self.query(left), "every answer", seconds=400)

    def query(self, query: "sa.Select[Any]") -> list[Any]:
        """Ask the database."""
        return query_once(self._database, query)

    def require_each_once(self) -> None:
        """Fail unless every agent ran every action once, and has one answer to it."""
        joined = (
            sa.select(
                schema.commands.c.agent_id, schema.commands.c.state, sa.func.count(schema.results.c.seq)
            )
            .outerjoin(schema.results, schema.results.c.command_id == schema.commands.c.id)
            .group_by(schema.commands.c.id)
        )
        ended = Counter((state, answers) for _, state, answers in self.query(joined))
        assert ended == {("done", 1): len(NAMES) * len(self.actions)}, ended
        marks = [Counter(path.read_text().split()) for path in self.marks.iterdir()]
        assert marks == [Counter(self.actions)] * len(NAMES)


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
    ada: Investigator,
    private_postgres: str,  # noqa: F811
) -> Iterator[Cluster]:
    make_database(private_postgres, "cluster")
    database = private_postgres.replace("/mig?", "/cluster?")
    directory = tmp_path_factory.mktemp("cluster")
    platform = ClusterPlatform(directory, ada, database=database, modules=MODULES)
    try:
        platform.start(*NAMES)
        yield Cluster(platform, database, ada)
    finally:
        platform.stop()


def test_what_must_not_be_lost_is_kept_on_every_node(cluster: Cluster) -> None:
    control = cluster.platform.cluster.nodes[1].control
    queues = {
        entry["name"]: entry for entry in control.ask("list_queues", "-p", "mig", "name", "type", "members")
    }
    for name in (RESULTS_QUEUE, DEAD_QUEUE):
        assert queues[name]["type"] == "quorum"
        assert len(queues[name]["members"]) == 3
    assert sum(name.startswith("mig.agent.") for name in queues) == len(NAMES)


def test_a_node_is_killed_and_comes_back_while_actions_run_and_nothing_is_lost_or_run_twice(
    cluster: Cluster,
) -> None:
    platform = cluster.platform
    first, *others = platform.cluster.nodes
    cluster.submit()
    first.kill()  # to which the first server is connected, and some of the agents
    cluster.submit()
    cluster.until_settled()
    assert platform.cluster.running() == {node.name for node in others}
    cluster.submit()
    first.start()
    cluster.submit()
    cluster.until_settled()
    # What went with its node stands again elsewhere, and the one that was away knows of that.
    queues = {entry["name"] for entry in first.control.ask("list_queues", "-p", "mig", "name")}
    assert sum(name.startswith("mig.agent.") for name in queues) == len(NAMES)
    cluster.require_each_once()


def test_servers_are_killed_and_added_while_actions_run_and_nothing_is_lost_or_run_twice(
    cluster: Cluster,
) -> None:
    platform = cluster.platform
    cluster.submit()
    platform.kill("server2")
    cluster.submit()
    platform.kill("server3")
    platform.start_other_server(2)
    cluster.submit()
    platform.start_other_server(3)
    cluster.until_settled()
    cluster.require_each_once()


def test_doctor_names_the_node_that_is_away(cluster: Cluster) -> None:
    platform = cluster.platform
    node = platform.cluster.nodes[2]
    node.kill()
    try:
        said = platform.mig_server("doctor", "--config", str(platform.config))
    finally:
        node.start()
    port = node.agent_url.rpartition(":")[2].partition("/")[0]
    assert f"warn  broker node 127.0.0.1:{port}: is away" in said
    assert said.count("reached, and let in") == 3  # the broker, by either of the nodes that are there
    assert json.dumps(platform.cluster.urls[0]).strip('"') not in said

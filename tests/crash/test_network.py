"""The network is cut, or swallows packets so that nobody hears anything, and heals: all recover alone.

Agents and server run on hosts of their own behind a router; the broker asks for a heartbeat every four
seconds, where everyday brokers ask for one a minute. Few rounds in CI; longer as in `test_crashes`.
"""

import os
from collections.abc import Iterator

import pytest

from tests.crash.fleet import Fleet, wait_for
from tests.crash.promises import require_audit, require_bounds, require_nothing_refused, require_promises
from tests.support.gpg import Investigator
from tests.support.platform import wait_until
from tests.support.routed import Network, network_of

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("MIG_CRASH_ROUNDS", "4"))
SEED = int(os.environ.get("MIG_CRASH_SEED", "20261129"))
AGENTS = 4
_HEARTBEAT_S = 4
_ENDS = frozenset({("done", "")})  # nothing died


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with network_of("server", "agents") as made:
        yield made


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, ada: Investigator, network: Network) -> Iterator[Fleet]:
    running = Fleet(
        tmp_path_factory.mktemp("network"),
        ada,
        count=AGENTS,
        seed=SEED,
        network=network,
        broker_settings=f"heartbeat = {_HEARTBEAT_S}\n",
    )
    try:
        running.start()
        yield running
    finally:
        running.stop()


class Seen:
    """How often each side has said that the other one is gone."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._before = self._count()

    def _count(self) -> dict[str, int]:
        node = self._fleet.platform.broker.directory / "log" / "node.log"
        counts = {name: self._fleet.platform.log(name).count('"no broker"') for name in self._fleet.names}
        counts["server"] = self._fleet.platform.log("server").count("the broker is away")
        counts["broker"] = node.read_text(errors="replace").count("missed heartbeats from client")
        return counts

    def by(self, *sides: str) -> bool:
        """Tell whether all of these have said so since."""
        now = self._count()
        return all(now[side] > self._before[side] for side in sides)


def test_agents_and_broker_notice_by_themselves_that_packets_are_swallowed(
    fleet: Fleet, network: Network
) -> None:
    seen = Seen(fleet)
    network.swallow("agents")
    fleet.submit()
    wait_until(lambda: seen.by("broker", *fleet.names), "everybody's notice of it", seconds=90)
    network.let_pass("agents")
    require_promises(fleet, fleet.settle(), f"seed {SEED}", ends=_ENDS)


def test_server_and_broker_notice_by_themselves_that_packets_are_swallowed(
    fleet: Fleet, network: Network
) -> None:
    fleet.submit()
    seen = Seen(fleet)
    network.swallow("server")
    wait_until(lambda: seen.by("broker", "server"), "both sides' notice of it", seconds=90)
    network.let_pass("server")
    require_promises(fleet, fleet.settle(), f"seed {SEED}", ends=_ENDS)


def test_nothing_is_lost_and_nothing_runs_twice_whatever_the_network_does(
    fleet: Fleet, network: Network
) -> None:
    ways = [(network.cut, network.mend), (network.swallow, network.let_pass)]
    for _ in range(ROUNDS):
        fleet.submit()
        host = fleet.random.choice(["agents", "agents", "server"])
        hurt, heal = fleet.random.choice(ways)
        wait_for(fleet.random.uniform(0, 0.6))
        hurt(host)
        wait_for(fleet.random.uniform(0.2, 3.0))
        heal(host)
        fleet.did[f"{hurt.__name__} {host}"] += 1
    require_promises(fleet, fleet.settle(), f"seed {SEED}", ends=_ENDS)
    require_nothing_refused(fleet)
    require_audit(fleet)
    require_bounds(fleet)

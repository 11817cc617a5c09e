"""The API does what its own description says: schemathesis asks whatever the description allows, and more."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.support.api import ApiServer, api_server
from tests.support.fleet import FleetAgent, create, make_action
from tests.support.gpg import Investigator

pytestmark = pytest.mark.system

# What nobody has signed is refused, however well formed: that is what the server is for.
_UNSIGNED = [positive_data_acceptance]


class Described:
    """A server with something of each kind in it, and a session that may do everything."""

    def __init__(self, api: ApiServer, token: str) -> None:
        self.api = api
        self.headers = {"Authorization": f"Bearer {token}"}
        agent = FleetAgent(api.store, now=api.now())
        action = make_action(now=api.now())
        create(api.store, action, agent, now=api.now())
        api.store.save_results([agent.answer(action)], api.now())
        (api.agents_dir / "mig-agent-linux-x86_64").write_bytes(b"agent")
        self.real = {"action_id": action.id, "agent_id": agent.id, "platform": "linux-x86_64"}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Described]:
    with api_server(tmp_path_factory.mktemp("described")) as api:
        yield Described(api, api.login(ada, "read", "submit", "manage"))


@pytest.fixture(scope="module")
def operations(described: Described) -> list[Any]:
    """Every operation that the server describes."""
    schema = schemathesis.openapi.from_url(f"{described.api.url}/api/v1/openapi.json")
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def ask(operation: Any, examples: int, check: Callable[[Any], None]) -> None:
    """Call an operation with whatever its description allows."""
    bounded = settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    given_cases: Any = given(operation.as_strategy())
    run: Callable[[], None] = bounded(given_cases(check))
    run()


def test_every_answer_is_one_that_the_description_allows(described: Described, operations: list[Any]) -> None:
    statuses: Counter[int] = Counter()

    def check(case: Any) -> None:
        # Half of the time what is asked for is there.
        for name, value in described.real.items():
            if name in case.path_parameters and len(str(case.path_parameters[name])) % 2:
                case.path_parameters[name] = value
        answer = case.call_and_validate(headers=described.headers, timeout=20, excluded_checks=_UNSIGNED)
        statuses[answer.status_code] += 1

    for operation in operations:
        # A stream that lasts as long as the session is followed in tests/server/api/test_alerts.py.
        if operation.path != "/api/v1/alerts/events":
            ask(operation, 30, check)
    assert {200, 400, 404} <= set(statuses)
    assert not {status for status in statuses if status >= 500}


def test_without_a_session_the_same_is_refused_as_described(
    described: Described, operations: list[Any]
) -> None:
    def check(case: Any) -> None:
        answer = case.call_and_validate(
            headers={"Authorization": "Bearer guess"}, timeout=20, excluded_checks=_UNSIGNED
        )
        assert answer.status_code == 401

    for operation in operations:
        if operation.definition.raw.get("security"):
            ask(operation, 5, check)

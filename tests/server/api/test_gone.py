"""What was deleted because of its age is said to be gone, and not to be unknown."""

from datetime import timedelta

import pytest

from tests.support.api import ApiServer
from tests.support.fleet import FleetAgent, create, make_action

DAY = timedelta(days=1)


def test_answers_that_were_deleted_are_gone(api: ApiServer, token: str) -> None:
    agents = [FleetAgent(api.store, f"web{number}", now=api.now()) for number in range(2)]
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    [first] = api.store.save_results([agents[0].answer(action)], api.now() - 9 * DAY)
    [second] = api.store.save_results([agents[1].answer(action)], api.now())
    api.store.delete_answers(api.now() - DAY, api.now(), 10)
    path = f"/api/v1/actions/{action.id}"
    assert api.ask("GET", path, token=token).json["deleted_answers"] == 1
    page = api.ask("GET", f"{path}/results", token=token).json
    assert [item["seq"] for item in page["results"]] == [second.seq]
    api.store.delete_answers(api.now() + DAY, api.now(), 10)
    gone = api.ask("GET", f"{path}/results", token=token)
    assert gone.refusal == (410, "gone")
    assert gone.json["error"]["detail"] == "2 answers were deleted because of their age"
    assert api.ask("GET", f"{path}/results", token=token, after=second.seq).json["results"] == []
    assert first.seq is not None


@pytest.mark.parametrize("place", ["", "/commands", "/results", "/events"])
def test_an_action_that_was_deleted_is_gone(api: ApiServer, token: str, place: str) -> None:
    action = make_action(now=api.now() - 9 * DAY)
    create(api.store, action, now=api.now() - 9 * DAY)
    assert api.store.delete_actions(api.now() - DAY, api.now(), 10) == 1
    gone = api.ask("GET", f"/api/v1/actions/{action.id}{place}", token=token)
    assert gone.refusal == (410, "gone")
    other = make_action().id
    assert api.ask("GET", f"/api/v1/actions/{other}{place}", token=token).refusal == (404, "not-found")

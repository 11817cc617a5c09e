"""Recurring actions and cancels, the whole way on real parts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gpg import Investigator
from tests.support.platform import Platform, running_platform, wait_until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Platform]:
    table = {"heartbeat_s": 1}
    directory = tmp_path_factory.mktemp("platform")
    with running_platform(directory, ada, "one", agent_table=table) as running:
        yield running


def write_action(directory: Path, module: str, parameters: dict[str, Any], target: str) -> Path:
    path = directory / f"{module}.json"
    action = {
        "name": f"watch {module}",
        "target": target,
        "operations": [{"module": module, "parameters": parameters}],
    }
    path.write_text(json.dumps(action))
    return path


def schedule(platform: Platform, *words: str, target: str = "tags->>'name' = 'one'") -> str:
    """Sign and submit a recurring action; return its id."""
    path = write_action(platform.directory, "agentinfo", {}, target)
    done = platform.mig("schedule", "new", str(path), *words, "--yes", "--json")
    return str(json.loads(done.stdout)["id"])


def occurrences(platform: Platform, action_id: str) -> list[tuple[str, str]]:
    """Return agent and occurrence of each verified answer."""
    done = platform.mig("results", action_id, "--all-occurrences", "--json", check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(line["agent"], line["occurrence"]) for line in lines if line.get("found")]


def test_an_action_that_was_signed_once_runs_at_each_occurrence_and_no_more_often_than_signed(
    platform: Platform,
) -> None:
    action_id = schedule(platform, "--every", "2s", "--max-runs", "3", "--grace", "2s", "--until", "1d")
    wait_until(lambda: len(occurrences(platform, action_id)) == 3, "three answers")
    answers = occurrences(platform, action_id)
    assert len({occurrence for _, occurrence in answers}) == 3
    shown = json.loads(platform.mig("action", "list", "--json").stdout.splitlines()[0])
    assert (shown["id"], shown["next_start"]) == (action_id, None)
    latest = platform.mig("results", action_id, "--json")
    assert max(occurrence for _, occurrence in answers) in latest.stdout
    assert len(latest.stdout.splitlines()) == 2


def test_an_agent_that_comes_later_takes_part(platform: Platform) -> None:
    action_id = schedule(
        platform, "--every", "5s", "--grace", "5s", "--until", "1h", target="tags->>'name' = 'two'"
    )
    platform.start_agent("two")
    try:
        wait_until(lambda: occurrences(platform, action_id), "an answer of the new agent")
    finally:
        platform.mig("action", "cancel", action_id, "--yes")
        platform.kill("two")


def test_a_recurring_action_that_is_cancelled_ends_on_the_endpoint_too(platform: Platform) -> None:
    action_id = schedule(platform, "--every", "2s", "--grace", "2s", "--until", "1h")
    wait_until(lambda: occurrences(platform, action_id), "an answer")
    done = platform.mig("action", "cancel", action_id, "--reason", "enough", "--yes", "--json")
    assert json.loads(done.stdout)["agents"] == 1
    wait_until(lambda: f" msg=cancelled action={action_id} " in platform.log("one"), "the tombstone")
    shown = json.loads(platform.mig("action", "list", "--json").stdout.splitlines()[0])
    assert (shown["id"], shown["next_start"]) == (action_id, None)
    assert shown["cancelled"]
    assert action_id not in platform.mig("schedule", "list").stdout


def test_a_long_search_is_stopped_and_says_what_it_found(platform: Platform) -> None:
    search = {"paths": ["/usr", "/proc"], "contents": ["no such text at all, anywhere"]}
    path = write_action(platform.directory, "file", {"searches": {"slow": search}}, "tags->>'name' = 'one'")
    platform.mig("action", "sign", str(path), "--expire", "10m")
    signed = f"{path.with_suffix('')}.signed.json"
    submitted = json.loads(platform.mig("action", "submit", signed, "--yes", "--json").stdout)
    action_id = submitted["id"]
    wait_until(lambda: platform.count_runs("one", action_id), "the start of the search")
    platform.mig("action", "cancel", action_id, "--yes")

    def counts() -> Any:
        shown = json.loads(platform.mig("action", "list", "--json").stdout.splitlines()[0])
        assert shown["id"] == action_id
        return shown["counts"].get("cancelled")

    assert wait_until(counts, "the end of the search") == 1
    done = platform.mig("results", action_id, "--json", "--all", check=False)
    assert done.returncode == 3
    assert '"status":"cancelled"' in done.stdout

"""Actions that go out little by little, the whole way on real parts."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gpg import Investigator
from tests.support.platform import Platform, running_platform, wait_until

pytestmark = pytest.mark.system

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Platform]:
    """A platform whose agents let Ada ask who they are, and want a second signature for files."""
    alone = {"minimum_weight": 1, "investigators": {ada.fingerprint: 1}}
    acl = {"default": alone, "file": {**alone, "minimum_weight": 2}}
    directory = tmp_path_factory.mktemp("platform")
    with running_platform(directory, ada, *NAMES, agent_table={"heartbeat_s": 1, "acl": acl}) as running:
        yield running


def listed(platform: Platform, action_id: str) -> Any:
    """Return what the server shows of an action."""
    actions = map(json.loads, platform.mig("action", "list", "--json").stdout.splitlines())
    return next(action for action in actions if action["id"] == action_id)


def test_a_question_goes_out_in_its_waves_and_everyone_answers(platform: Platform) -> None:
    done = platform.mig("agentinfo", "--waves", "1,1", "--stop-at", "20%", "--yes", "--json")
    *answers, summary = map(json.loads, done.stdout.splitlines())
    assert len(answers) == 3
    assert summary["summary"]["campaign"]["wave"] == 3
    assert "mig: wave 3 of 3: all let out" in done.stderr


def test_one_agent_that_fails_keeps_the_question_from_all_others(platform: Platform) -> None:
    words = ("file", "--path", "/etc", "--name", "^hosts$", "--waves", "1", "--stop-at", "20%")
    done = platform.mig(*words, "--yes", "--json", check=False)
    assert done.returncode == 4
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]
    assert sorted(line["state"] for line in summary["missing"]) == ["cancelled", "cancelled", "refused"]
    assert "mig: stopped: 1 of 1 answers failed, which is 20% or more; wave 1" in done.stderr
    action_id = summary["action"]
    asked = [name for name in NAMES if action_id in platform.log(name)]
    assert len(asked) == 1
    assert listed(platform, action_id)["status"] == "stopped"


def test_a_campaign_goes_on_where_the_server_was_killed(platform: Platform) -> None:
    path = platform.directory / "slow.json"
    path.write_text(json.dumps({"name": "slow", "operations": [{"module": "agentinfo", "parameters": {}}]}))
    platform.mig("action", "sign", str(path), "--expire", "10m")
    signed = str(path.with_suffix("")) + ".signed.json"
    submitted = platform.mig("action", "submit", signed, "--rate", "0.3", "--yes", "--json")
    action_id = json.loads(submitted.stdout)["id"]
    wait_until(lambda: listed(platform, action_id)["counts"].get("done"), "the first answer")
    platform.kill("server")
    platform.start_server()
    assert listed(platform, action_id)["counts"].get("pending")
    done = platform.mig("results", action_id, "--wait", "--json", check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert [platform.count_runs(name, action_id) for name in NAMES] == [1, 1, 1]

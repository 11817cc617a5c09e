"""Alerts on a whole platform: from a file that changes to the investigator and to a webhook."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.alert import decode_public_key, open_alert
from protocol.documents import SignedEnvelope
from tests.support.gpg import Investigator
from tests.support.platform import Platform, wait_until
from tests.support.receiver import Receiver, receiving

pytestmark = pytest.mark.system


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    place = tmp_path / "watched"
    place.mkdir()
    (place / "passwd").write_text("root")
    return place


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def platform(tmp_path: Path, ada: Investigator, watched: Path, receiver: Receiver) -> Iterator[Platform]:
    table = {"recursive": [str(watched)], "paths": [], "settle_s": 1}
    # Her word alone suffices to remove an agent: it weighs as much as that of two others.
    acl = {"default": {"minimum_weight": 1, "investigators": {ada.fingerprint: 2}}}
    agent_table = {"fswatch": table, "heartbeat_s": 1, "acl": acl}
    made = Platform(tmp_path, ada, agent_table=agent_table, webhook=receiver.url)
    try:
        made.start("web1")
        yield made
    finally:
        made.stop()


def alerts(platform: Platform, *words: str) -> list[dict[str, object]]:
    """Return what the investigator sees."""
    return [json.loads(line) for line in platform.mig("alerts", "--json", *words).stdout.splitlines()]


def kinds(platform: Platform) -> list[object]:
    return [alert["kind"] for alert in alerts(platform)]


def test_a_change_reaches_investigator_and_webhook_and_none_is_lost_while_the_server_is_away(
    platform: Platform, watched: Path, receiver: Receiver
) -> None:
    wait_until(lambda: "baseline-created" in kinds(platform), "the baseline")
    (watched / "passwd").write_text("evil")
    wait_until(lambda: "changed" in kinds(platform), "the change")
    assert alerts(platform, "--module", "fswatch", "-t", "tags->>'name' = 'web1'")[-1]["record"]
    answers, _ = platform.mig_json("fswatch")
    [record] = answers[0]["records"]
    assert (record["running"], record["entries"]) == (True, 2)

    platform.kill("server", signal.SIGKILL)
    (watched / "new").write_text("x")
    platform.start_server()
    wait_until(lambda: "created" in kinds(platform), "the change while the server was away")

    told = [one.json for one in receiver.wait_for(3)]
    assert [one["alert"]["seq"] for one in told][-1] == 3
    for one in told:
        envelope = SignedEnvelope(**one["envelope"]).encode()
        open_alert(envelope, decode_public_key(one["agent"]["public_key"]), one["agent"]["id"])
    assert "siem: 0 alerts wait" in platform.mig_server("doctor", "--config", str(platform.config))


def test_what_changes_while_the_agent_is_down_and_who_kills_its_watcher_are_told(
    platform: Platform, watched: Path
) -> None:
    wait_until(lambda: "baseline-created" in kinds(platform), "the baseline")
    agent = platform.processes["web1"].pid
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    [watcher] = [pid for pid in children if is_watcher(int(pid))]
    os.kill(int(watcher), signal.SIGKILL)
    wait_until(lambda: "watcher-ended" in kinds(platform), "the end of the watcher")
    platform.kill("web1")
    (watched / "passwd").unlink()
    platform.start_agent("web1")
    wait_until(lambda: "removed" in kinds(platform), "the removal")
    assert "signal 9" in platform.agent_says("web1", "log")


def is_watcher(pid: int) -> bool:
    """Tell whether a process holds an inotify instance."""
    directory = Path(f"/proc/{pid}/fd")
    return any("inotify" in str(entry.readlink()) for entry in directory.iterdir())


def test_an_agent_that_is_ordered_to_removes_itself_once_its_answer_has_arrived(
    platform: Platform, watched: Path
) -> None:
    wait_until(lambda: "baseline-created" in kinds(platform), "the baseline")
    state = platform.directory / "state-web1"
    process = platform.processes["web1"]
    answers, _ = platform.mig_json("agentdestroy", "--version", "0.0-other")
    assert answers[0]["records"] == []
    assert process.poll() is None

    answers, _ = platform.mig_json("agentdestroy", "--version", "0.0-test")
    [record] = answers[0]["records"]
    assert (record["version"], record["purge"]) == ("0.0-test", False)
    assert process.wait(20) == 0
    assert sorted(entry.name for entry in state.iterdir()) == ["asked", "audit.log", "lock"]
    assert "the agent removes itself" in platform.agent_says("web1", "log")
    condition = f"id = '{record['id']}' AND status = 'removed'"
    wait_until(
        lambda: record["id"] in platform.mig("agents", "-t", condition, "--json").stdout, "the removal"
    )
    assert platform.mig("agents", "-t", "status = 'online'", check=False).returncode == 1

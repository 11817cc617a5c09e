"""The whole way on real parts: an investigator asks, an endpoint answers."""

import json
import os
import pty
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.envelope import ACTION, decode_envelope
from tests.support.endpoint import sign_action
from tests.support.gpg import Investigator
from tests.support.platform import ROOT, Platform, running_platform, wait_until
from tests.support.resident import MODULES

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Platform]:
    directory = tmp_path_factory.mktemp("platform")
    with running_platform(directory, ada, "one", "two", modules=MODULES) as running:
        yield running


def test_a_question_is_answered_by_every_agent_with_its_coverage(platform: Platform) -> None:
    answers, summary = platform.mig_json("file", "--path", "/etc", "--name", "^passwd$", "--maxdepth", "1")
    assert len(answers) == 2
    for answer in answers:
        assert answer["status"] == "ok"
        assert [record["path"] for record in answer["records"]] == ["/etc/passwd"]
        assert answer["statistics"]["files_seen"] > 0
    assert summary["exit"] == 0


def test_nothing_found_has_an_exit_code_of_its_own(platform: Platform) -> None:
    done = platform.mig("file", "--path", "/etc", "--name", "^no such file$", "--yes")
    assert done.returncode == 1


def test_the_published_action_runs_unchanged_and_really_hashes(platform: Platform) -> None:
    answers, _ = platform.mig_json("run", str(ROOT / "actions/linux-backdoor.json"))
    assert len(answers) == 2
    for answer in answers:
        assert answer["module"] == "file"
        assert not answer["found"]
        assert answer["statistics"]["files_read"] > 100


def test_only_the_targeted_agent_answers(platform: Platform) -> None:
    answers, _ = platform.mig_json("agentinfo", "-t", "tags->>'name' = 'two'")
    assert [answer["records"][0]["tags"]["name"] for answer in answers] == ["two"]


def test_whoever_waits_for_a_long_action_sees_how_far_it_is(platform: Platform, ada: Investigator) -> None:
    file = platform.directory / "long.signed.json"
    operations = [{"module": "trouble", "parameters": {"how": "count"}}]
    file.write_bytes(sign_action(ada, name="long", target="tags->>'name' = 'one'", operations=operations))
    action_id = json.loads(decode_envelope(file.read_bytes(), ACTION).payload)["id"]
    terminal, end = pty.openpty()
    follower = platform.start_mig("run", str(file), "--yes", stderr=end)
    os.close(end)
    shown = b""
    while b"1 running: " not in shown or b"files seen" not in shown:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, shown
        shown += os.read(terminal, 65536)
    assert b"secret" not in shown
    lines = platform.mig("action", "show", action_id).stdout.splitlines()
    assert re.search(r"^runs on .* for \d+ s: [\d,]+ files seen, [\d.]+ \w+ read$", lines[-1])
    platform.mig("action", "cancel", action_id, "--yes")
    follower.communicate(timeout=60)
    os.close(terminal)


def test_an_agent_that_is_away_answers_when_it_returns(platform: Platform) -> None:
    platform.kill("two")
    template = platform.directory / "later.json"
    action = {
        "name": "for later",
        "target": "tags->>'name' = 'two'",
        "operations": [{"module": "agentinfo", "parameters": {}}],
        "syntaxversion": 2,
    }
    template.write_text(json.dumps(action))
    platform.mig("action", "sign", str(template), "--expire", "10m")
    submitted = platform.mig("action", "submit", f"{template.with_suffix('')}.signed.json", "--yes", "--json")
    action_id = json.loads(submitted.stdout.splitlines()[0])["id"]
    platform.start_agent("two")

    def is_answered() -> bool:  # exit code 3 as long as it is not
        done = platform.mig("results", action_id, "--format", "jsonl", check=False)
        return '"found":true' in done.stdout

    wait_until(is_answered, "the answer")


def test_the_server_may_be_killed_between_question_and_answer(platform: Platform) -> None:
    before = platform.mig_json("agentinfo")[1]
    platform.kill("server", signal.SIGKILL)
    assert platform.mig("agentinfo", "--yes", check=False).returncode == 5
    platform.start_server()
    assert platform.mig_json("agentinfo")[1]["exit"] == before["exit"] == 0


def test_the_broker_may_go_away_and_come_back(platform: Platform) -> None:
    platform.broker.stop()
    platform.broker.start()

    def answered() -> bool:
        _, summary = platform.mig_json("agentinfo", "--expire", "20s")
        return bool(summary["exit"] == 0)

    wait_until(answered, "an answer after the broker came back", seconds=120)


def test_the_server_takes_as_many_open_files_as_it_may(platform: Platform) -> None:
    limits = Path(f"/proc/{platform.processes['server'].pid}/limits").read_text()
    [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
    soft, hard = line.split()[3:5]
    assert soft == hard

"""The audit logs on real parts: the server's head goes to agents and back, and a rewritten history shows."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.audit import NO_HEAD, encode_entry
from tests.support.gpg import Investigator
from tests.support.platform import Platform, running_platform, wait_until

pytestmark = pytest.mark.system


@pytest.fixture
def platform(tmp_path: Path, ada: Investigator) -> Iterator[Platform]:
    with running_platform(tmp_path, ada, "one", agent_table={"heartbeat_s": 5}) as running:
        yield running


def rewrite(database: Path) -> None:
    """Do what somebody with the database can do: leave an entry out, and chain everything behind it anew."""
    with sqlite3.connect(database) as connection:
        entries = [json.loads(row[0]) for row in connection.execute("SELECT entry FROM audit ORDER BY seq")]
        connection.execute("DELETE FROM audit")
        head = NO_HEAD
        for entry in [entries[0], *entries[2:]]:
            line, head = encode_entry(
                head, time=entry["time"], kind=entry["kind"], who=tuple(entry["who"]), what=entry["what"]
            )
            connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (head.seq, head.sha256, line))
    connection.close()


def rewrite_own(log: Path) -> None:
    """Do what root on the endpoint can do: the same with the agent's own log."""
    entries = [json.loads(line) for line in log.read_bytes().splitlines()]
    head, lines = NO_HEAD, []
    for entry in [entries[0], *entries[2:]]:
        line, head = encode_entry(
            head, time=entry["time"], kind=entry["kind"], who=tuple(entry["who"]), what=entry["what"]
        )
        lines.append(line + b"\n")
    log.write_bytes(b"".join(lines))


def log_of(platform: Platform, *words: str) -> str:
    """Return what `mig-agent log` prints for the machine's owner."""
    state = str(platform.directory / "state-one")
    command = platform.agent_command("one", "log", "--state-dir", state, *words)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_who_asked_what_is_written_on_both_sides_and_a_rewritten_history_shows(platform: Platform) -> None:
    _, summary = platform.mig_json("agentinfo", "--yes")
    action = summary["action"]

    def is_witnessed() -> bool:
        said = platform.mig("audit", "verify").stdout
        return "heads seen by 1 agents" in said and "0 of" not in said

    wait_until(is_witnessed, "the agent's signed head")
    shown = platform.mig("audit", "show").stdout
    for kind in ("login", "action", "ended", "read", "enrolment"):
        assert f"  {kind}  " in shown
    assert action in shown

    assert "1 actions kept with good signatures" in log_of(platform, "--verify")
    plain = log_of(platform)
    assert action in plain
    assert "the server mig said that its own log has" in plain

    own_log = platform.directory / "own.jsonl"
    own_log.write_text(log_of(platform, "--json"))
    agent = json.loads(platform.mig("agents", "--json").stdout)["id"]
    compared = platform.mig("audit", "verify", "--file", str(own_log), "--agent", agent, check=False)
    assert "heads that the agent signed stand in it" in compared.stdout
    assert compared.returncode in {0, 3}  # 3: a heartbeat was faster than the copy

    platform.kill("one")
    rewrite_own(platform.directory / "state-one" / "audit.log")
    platform.start_agent("one")

    def is_told() -> bool:
        return "its own log was written anew" in platform.mig("agents").stdout

    wait_until(is_told, "what the agent signs of its own log")
    said = platform.mig("audit", "verify", check=False)
    assert said.returncode == 4
    assert f"({agent}): its own log: " in said.stdout
    assert platform.mig("agents", "approve", agent, "--yes").returncode == 0
    assert platform.mig("audit", "forget", agent).returncode == 0
    assert platform.mig("audit", "verify").returncode == 0

    platform.kill("server")
    rewrite(platform.directory / "server" / "mig.sqlite")
    platform.start_server()
    said = platform.mig("audit", "verify", check=False)
    assert said.returncode == 4
    assert "saw entry" in said.stdout
    assert "history was rewritten" in said.stdout

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

    platform.kill("server")
    rewrite(platform.directory / "server" / "mig.sqlite")
    platform.start_server()
    said = platform.mig("audit", "verify", check=False)
    assert said.returncode == 4
    assert "saw entry" in said.stdout
    assert "history was rewritten" in said.stdout

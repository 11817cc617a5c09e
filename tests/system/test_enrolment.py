"""How agents come to take part, and are shut out: real agents, a real server, a real broker."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from protocol.enrolment import encode_token
from tests.support.gpg import Investigator
from tests.support.platform import Platform, running_platform, wait_until

pytestmark = pytest.mark.system

REVOKED_S = 60.0  # seconds it takes, and more on a machine that has much else to do


def status(platform: Platform, name: str) -> str:
    """Return what the agent itself says of its broker."""
    path = platform.directory / f"state-{name}" / "status.json"
    return str(json.loads(path.read_text())["broker"]) if path.exists() else ""


def agents(platform: Platform, target: str) -> list[dict[str, Any]]:
    """Return what `mig agents` shows."""
    return [json.loads(line) for line in platform.mig("agents", "-t", target, "--json").stdout.splitlines()]


def test_a_token_lets_an_agent_in_and_without_one_it_is_told_why(tmp_path: Path, ada: Investigator) -> None:
    with running_platform(tmp_path, ada, enrolment="token", agent_table={"heartbeat_s": 1}) as platform:
        platform.start_agent("web1")
        wait_until(lambda: "no good enrolment token" in status(platform, "web1"), "a refusal")
        assert agents(platform, "status = 'pending'") == []
        platform.kill("web1", 15)
        token = tmp_path / "token"
        config = str(platform.config)
        token.write_text(platform.mig_server("agent", "token", "new", "--uses", "1", "--config", config))
        token.chmod(0o600)
        command = platform.agent_command("web1", "run", "--foreground", "--token-file", str(token))
        platform.spawn("web1", [*command, "--state-dir", str(tmp_path / "state-web1")])
        wait_until(lambda: platform.is_online("web1"), "the agent")
        [agent] = agents(platform, "status = 'online'")
        assert agent["enrolled_by"].startswith("token ")
        platform.kill("web1", 15)
        platform.start_agent("web1")  # a token is asked for once only
        wait_until(lambda: status(platform, "web1") == "connected", "the agent again")
        secret = token.read_text().strip()
        assert secret != encode_token(bytes(32))
        for log in ("server", "web1"):
            assert secret not in platform.log(log)


def test_an_agent_waits_is_seen_approved_and_revoked_by_signed_decisions_and_a_copy_of_it_shows(
    tmp_path: Path, ada: Investigator
) -> None:
    with running_platform(tmp_path, ada, enrolment="approval", agent_table={"heartbeat_s": 1}) as platform:
        platform.start_agent("web1")
        wait_until(lambda: status(platform, "web1") == "this agent waits for approval", "its turn")
        [waiting] = agents(platform, "status = 'pending'")
        assert (waiting["peer"], waiting["name"]) == ("127.0.0.1", waiting["name"] or "?")
        done = platform.mig("agents", "approve", waiting["id"], "--yes")
        assert done.stdout == f"approved {waiting['id']}\n"
        wait_until(lambda: platform.is_online("web1"), "the agent")
        assert platform.mig("agents", "revoke", waiting["id"], "--yes").stdout == f"revoked {waiting['id']}\n"
        wait_until(lambda: "revoked" in status(platform, "web1"), "the end", seconds=REVOKED_S)
        # Its next heartbeat may be refused before its connection is closed.
        ends = ("CONNECTION_FORCED - revoked", "ACCESS_REFUSED - access to exchange 'mig.agents'")
        assert any(end in platform.log("web1") for end in ends)
        signed = tmp_path / "approval"
        platform.mig("agents", "approve", waiting["id"], "--yes", "--output", str(signed))
        platform.mig_server("agent", "approve", "--file", str(signed), "--config", str(platform.config))
        wait_until(lambda: platform.is_online("web1"), "the agent again", seconds=120)
        # A copy of it, with its state.
        shutil.copytree(tmp_path / "agent-web1", tmp_path / "agent-copy")
        (tmp_path / "state-copy").mkdir(mode=0o700)
        shutil.copy2(tmp_path / "state-web1" / "identity.json", tmp_path / "state-copy" / "identity.json")
        platform.start_agent("copy")
        wait_until(lambda: agents(platform, "status = 'online'")[0]["duplicate"], "the warning")
        [agent] = agents(platform, "status = 'online'")
        # Their logs do not go on from each other either, which may be told as well.
        assert any(warning.startswith("two agents run under this id: ") for warning in agent["warnings"])
        assert "  warning: two agents run under this id" in platform.mig("agents").stdout

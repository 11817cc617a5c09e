import os
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import urllib3

from protocol.enrolment import decode_token, token_id
from protocol.version import VERSION
from server.config import load_config
from server.main import cli
from server.parts import utc_now
from tests.support import openpgp_forge as forge
from tests.support.broker import AgentKey
from tests.support.gpg import Investigator
from tests.support.installation import Installation

ROOT = Path(__file__).resolve().parent.parent.parent
END_S = 60


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Return every command's words."""
    for name, command in group.commands.items():
        yield (*prefix, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION


def test_there_are_the_commands_that_scripts_rely_on() -> None:
    assert set(commands(cli)) == {
        ("serve",),
        ("init",),
        ("migrate",),
        ("doctor",),
        ("investigator",),
        ("investigator", "add"),
        ("investigator", "list"),
        ("investigator", "disable"),
        ("agent",),
        ("agent", "list"),
        ("agent", "approve"),
        ("agent", "revoke"),
        ("agent", "token"),
        ("agent", "token", "new"),
        ("agent", "token", "list"),
        ("agent", "token", "revoke"),
        ("audit",),
        ("audit", "export"),
        ("audit", "cut"),
        ("trust",),
        ("trust", "list"),
        ("trust", "publish"),
        ("trust", "withdraw"),
        ("broker",),
        ("broker", "up"),
        ("broker", "down"),
        ("broker", "setup"),
    }


@pytest.mark.parametrize("words", [(), *commands(cli)], ids=" ".join)
def test_every_command_has_help(installation: Installation, words: tuple[str, ...]) -> None:
    done = installation(*words, "--help", config=False)
    assert done.code == 0
    assert done.out.startswith(f"Usage: mig-server {' '.join(words)}".rstrip())


@pytest.mark.slow
def test_init_writes_a_configuration_that_can_be_used_and_only_the_owner_can_read(
    installation: Installation,
) -> None:
    done = installation("init", "--state-dir", str(installation.state))
    assert done.code == 0
    assert f"wrote {installation.config}" in done.out
    config = load_config(installation.config)
    assert config.enrolment == "token"
    assert config.state_dir == str(installation.state)
    assert stat.S_IMODE(installation.config.stat().st_mode) == 0o600
    assert stat.S_IMODE(installation.state.stat().st_mode) == 0o700


def test_init_with_a_private_broker_writes_its_url(installation: Installation) -> None:
    assert installation("init", "--state-dir", str(installation.state), "--private-broker").code == 0
    [relay] = load_config(installation.config).relays
    assert relay.startswith("amqp://mig-server:")
    assert relay.endswith("/mig")


def test_init_changes_nothing_that_is_there(installation: Installation) -> None:
    installation.config.write_text("mine\n")
    done = installation("init", "--state-dir", str(installation.state))
    assert (done.code, installation.config.read_text()) == (4, "mine\n")
    assert "conflict" in done.err


def test_without_a_configuration_every_command_says_which_file_is_missing(installation: Installation) -> None:
    for words in (["migrate"], ["serve"], ["agent", "list"], ["investigator", "list"]):
        done = installation(*words)
        assert done.code == 2
        assert done.err == f"mig-server: bad-config: {installation.config}: No such file or directory\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mig"', 'nmae = "mig"', "nmae"),
        ('enrolment = "token"', 'enrolment = "all"', "enrolment"),
        ('listen = "127.0.0.1:', 'listen = "127.0.0.1', "host:port"),
        ("[server]", "[server", "config.toml"),
        ('database = "sqlite:///', 'database = "mysql:///', "mysql"),
    ],
)
def test_a_wrong_setting_is_named(prepared: Installation, old: str, new: str, said: str) -> None:
    prepared.config.write_text(prepared.config.read_text().replace(old, new, 1))
    done = prepared("agent", "list")
    assert done.code == 2
    assert done.err.startswith("mig-server: bad-config: ")
    assert done.err.count("\n") == 1
    assert said in done.err


@pytest.mark.system
def test_an_investigator_is_added_listed_and_disabled(prepared: Installation, ada: Investigator) -> None:
    key = prepared.directory / "ada.asc"
    key.write_bytes(ada.public_key)
    assert ada.fingerprint in prepared("investigator", "add", "--name", "Ada", str(key)).out
    assert prepared("investigator", "list").out.split() == [
        ada.fingerprint,
        "active",
        "read,submit,manage",
        "Ada",
    ]
    prepared("investigator", "add", "--rights", "read", str(key))
    assert prepared("investigator", "list").out.split()[2:4] == ["read", "Ada"]
    assert prepared("investigator", "disable", ada.fingerprint).code == 0
    assert prepared("investigator", "list").out.split()[1] == "disabled"


@pytest.mark.parametrize(
    ("content", "rights", "code"),
    [(b"no key", "read", "bad-key"), (b"", "read", "bad-key"), (b"no key", "all", "usage")],
)
def test_a_file_that_is_no_key_adds_nobody(
    prepared: Installation, content: bytes, rights: str, code: str
) -> None:
    key = prepared.directory / "key.asc"
    key.write_bytes(content)
    done = prepared("investigator", "add", "--rights", rights, str(key))
    assert done.code == 2
    assert f"mig-server: {code}: " in done.err
    assert prepared("investigator", "list").out == ""


UNUSABLE = {
    "the primary key is revoked": forge.WITH_SUBKEY + forge.revoke(),
    "the primary key has expired": forge.half(
        forge.name(), forge.certify(forge.flags(3), forge.key_expires_after(9))
    ),
    "the primary key is not allowed to sign (key flags)": forge.half(
        forge.name(), forge.certify(forge.flags(1))
    ),
    "a secret key": forge.packet(5, forge.ALICE.body + b"\0secret"),
    "more than one certificate": forge.GOOD + forge.GOOD,
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_a_key_that_could_not_sign_adds_nobody_and_one_line_says_why(
    prepared: Installation, reason: str
) -> None:
    key = prepared.directory / "key.asc"
    key.write_bytes(UNUSABLE[reason])
    done = prepared("investigator", "add", str(key))
    assert done.code == 2
    assert done.err == f"mig-server: bad-key: {key}: {reason}\n"
    assert prepared("investigator", "list").out == ""


def test_agents_are_listed_approved_and_revoked(prepared: Installation) -> None:
    agent = AgentKey()
    prepared.store.enrol_agent(agent.id, agent.public, "approval", utc_now())
    assert prepared("agent", "list", "--pending").out.split() == [agent.id, "pending", "never", "from", "?"]
    assert prepared("agent", "approve", agent.id).code == 0
    assert prepared("agent", "list", "--pending").out == ""
    done = prepared("agent", "revoke", agent.id)
    assert done.code == 5
    assert "revoked, but its queue or connection still stands" in done.err
    assert prepared("agent", "list").out.split()[1] == "revoked"


def test_a_list_of_agents_is_approved_at_once(prepared: Installation) -> None:
    agents = [AgentKey() for _ in range(3)]
    for agent in agents:
        prepared.store.enrol_agent(agent.id, agent.public, "approval", utc_now())
    listed = prepared.directory / "list"
    listed.write_text(f"# web servers\n{agents[0].id}  # web1\n\n{agents[1].id}\n")
    assert prepared("agent", "approve", "--file", str(listed)).out.count("approved") == 2
    assert prepared("agent", "list", "--pending").out.split()[0] == agents[2].id
    assert prepared("agent", "approve", "--file", str(listed), agents[2].id).code == 2


def test_tokens_are_made_listed_and_revoked_and_their_text_is_kept_nowhere(prepared: Installation) -> None:
    done = prepared("agent", "token", "new", "--uses", "3", "--expires", "12h", "--label", "rack 7")
    text = done.out.strip()
    token = decode_token(text)
    known = token_id(token.public_key)
    assert f"token {known} for 3 agents, until " in done.err
    listed = prepared("agent", "token", "list").out.split()
    assert listed[:3] + listed[4:] == [known, "good", "0/3", "rack", "7"]
    files = [path.read_bytes() for path in prepared.state.rglob("*") if path.is_file()]
    assert not any(text.encode() in content for content in files)
    assert not any(token.private_key.private_bytes_raw() in content for content in files)
    assert prepared("agent", "token", "revoke", known).code == 0
    assert prepared("agent", "token", "list").out.split()[1] == "revoked"
    assert prepared("agent", "token", "revoke", "0" * 16).err == (
        f"mig-server: not-found: no enrolment token {'0' * 16}\n"
    )
    assert prepared("agent", "token", "new", "--expires", "soon").code == 2


@pytest.mark.parametrize("verb", ["approve", "revoke"])
def test_an_agent_that_is_none_is_refused(prepared: Installation, verb: str) -> None:
    assert prepared("agent", verb, "nonsense").err.startswith("mig-server: usage: ")
    assert prepared("agent", verb, "0" * 32).err == f"mig-server: not-found: no agent {'0' * 32}\n"


class Serving:
    """A server as a process of its own."""

    def __init__(self, config: Path) -> None:
        self.url = load_config(config).url
        command = [sys.executable, "-B", "-m", "server.main", "serve", "--config", str(config)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, env=dict(os.environ))

    def until_said(self, text: bytes) -> None:
        """Read the log until it holds a text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line:
                return
        raise AssertionError(f"the server ended before it said {text!r}")

    def stop(self) -> int:
        """Ask the server to end, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        _, _ = self.process.communicate(timeout=END_S)
        return self.process.returncode


@pytest.fixture
def serving(prepared: Installation) -> Iterator[Serving]:
    running = Serving(prepared.config)
    try:
        running.until_said(b"msg=serving")
        yield running
    finally:
        running.stop()


@pytest.mark.system
def test_with_the_broker_away_the_api_is_up_and_says_so(prepared: Installation, serving: Serving) -> None:
    answer = urllib3.request("GET", f"{serving.url}/api/v1/health", retries=False)
    assert answer.json() == {"status": "degraded", "database": "ok", "broker": "away", "version": VERSION}
    looked = prepared("doctor").out
    assert "a server is running" in looked
    assert "FAIL  health: broker-away: the server says: database ok, broker away" in looked


@pytest.mark.system
def test_a_second_server_on_the_same_state_says_so(prepared: Installation, serving: Serving) -> None:
    done = prepared("serve")
    assert done.code == 2
    assert "mig-server: state-in-use: another mig-server runs" in done.err


@pytest.mark.system
def test_sigterm_ends_a_server_in_good_order(serving: Serving) -> None:
    assert serving.stop() == 0


@pytest.mark.parametrize("which", ["api_address", "broker_auth_address"])
def test_a_port_in_use_ends_the_start_with_one_line(prepared: Installation, which: str) -> None:
    port = getattr(load_config(prepared.config), which).port
    with socket.create_server(("127.0.0.1", port)):
        done = prepared("serve")
    assert done.code == 2
    assert done.err == f"mig-server: port-in-use: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_database_that_cannot_be_opened_ends_the_start_with_one_line(prepared: Installation) -> None:
    text = prepared.config.read_text()
    prepared.config.write_text(text.replace("mig.sqlite", "nowhere/mig.sqlite"))
    done = prepared("serve")
    assert done.code == 5
    assert done.err == f"mig-server: database-away: no directory {prepared.state / 'nowhere'}\n"

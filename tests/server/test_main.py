import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import urllib3

from protocol.audit import Head
from protocol.enrolment import decode_token, token_id
from protocol.trust import decode_bundle
from protocol.version import VERSION
from server.config import load_config
from server.database import Database
from server.main import cli, main
from server.migrations import migrate
from server.parts import utc_now
from server.store import Store
from tests.support import openpgp_forge as forge
from tests.support.broker import AgentKey, free_port
from tests.support.endpoint import make_bundle
from tests.support.fleet import FleetAgent
from tests.support.gpg import Investigator

ROOT = Path(__file__).resolve().parent.parent.parent
END_S = 60


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Installation:
    """A configuration, and `mig-server` run in this process on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.config = directory / "config.toml"
        self.state = directory / "state"
        self._capsys = capsys

    def __call__(self, *words: str, config: bool = True) -> Done:
        """Run a command."""
        options = ["--config", str(self.config)] if config else []
        with pytest.raises(SystemExit, match=r"\d") as ended:
            main([*words, *options])
        out, err = self._capsys.readouterr()
        return Done(int(str(ended.value.code)), out, err)

    def init(self) -> None:
        """Make a configuration with ports that are free, and a broker that is away."""
        assert self("init", "--state-dir", str(self.state)).code == 0
        text = self.config.read_text()
        for port in ("1664", "1665", "5672"):
            text = text.replace(f":{port}", f":{free_port()}")
        self.config.write_text(text)

    @property
    def store(self) -> Store:
        """The store, migrated; closed with the process."""
        database = Database(load_config(self.config).database)
        migrate(database)
        return Store(database)


@pytest.fixture
def installation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    return Installation(tmp_path, capsys)


@pytest.fixture
def prepared(installation: Installation) -> Installation:
    installation.init()
    assert installation("migrate").code == 0
    return installation


def change_nothing(_state: Path) -> None:
    """Leave a first configuration as it is."""


def publish_another_agent(state: Path) -> None:
    """Offer an agent whose sum is not that of SHA256SUMS."""
    (state / "agents" / "mig-agent-linux-x86_64").write_bytes(b"agent")
    (state / "agents" / "SHA256SUMS").write_text(f"{'0' * 64}  mig-agent-linux-x86_64\n")


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
    relay = load_config(installation.config).relay
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


def test_the_doctor_says_everything_in_one_line_each(prepared: Installation) -> None:
    done = prepared("doctor")
    subjects = [line.split(":")[0][6:] for line in done.out.splitlines()]
    assert subjects == [
        "config",
        "state",
        "disk",
        "database",
        "agents",
        "clocks",
        "investigators",
        "trust bundle",
        "agents' trust",
        "audit log",
        "enrolment",
        "broker",
        "api port",
        "broker-auth port",
        "downloads",
    ]
    assert [line for line in done.out.splitlines() if line.startswith("FAIL")] == [
        "FAIL  broker: broker-away: [Errno 111] Connection refused"
    ]
    assert done.code == 5


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda state: (state / "mig.sqlite").unlink(), "FAIL  database: database-away: is older than this"),
        (lambda state: (state / "mig.sqlite").write_bytes(b"x" * 9000), "FAIL  database: database-away: "),
        (lambda state: state.chmod(0o777), "FAIL  state: unsafe-file: "),
        (lambda state: (state.parent / "config.toml").chmod(0o644), "FAIL  config: "),
        (lambda state: (state / "agents").chmod(0o777), "FAIL  downloads: unsafe-file: "),
        (change_nothing, "warn  downloads: no mig-agent-* in "),
        (change_nothing, "warn  investigators: nobody may use the API"),
        (change_nothing, "warn  enrolment: by token, and there is no good one"),
        (publish_another_agent, "mig-agent-linux-x86_64 is not what "),
    ],
    ids=[
        "no database",
        "no SQLite file",
        "open state",
        "open configuration",
        "open downloads",
        "no downloads",
        "no investigator",
        "no token",
        "another agent file",
    ],
)
def test_the_doctor_sees_what_is_wrong(prepared: Installation, break_it: object, said: str) -> None:
    assert callable(break_it)
    break_it(prepared.state)
    assert said in prepared("doctor").out


def test_the_doctor_sees_what_is_odd_about_agents(prepared: Installation) -> None:
    store, now = prepared.store, utc_now()
    assert "ok    agents: none yet" in prepared("doctor").out
    waiting = AgentKey()
    store.enrol_agent(waiting.id, waiting.public, "approval", now)
    assert "warn  agents: 1 pending; mig-server agent list --pending" in prepared("doctor").out
    late = FleetAgent(store, "late", now=now)
    store.save_heartbeat(late.heartbeat(now - timedelta(hours=1), started=now), now)
    assert f"warn  clocks: 1 agents are off by more than 5 minutes: {late.id}" in prepared("doctor").out
    for second, process in ((1, 1), (2, 2), (3, 1)):
        time, started = now + timedelta(seconds=second), now - timedelta(hours=process)
        store.save_heartbeat(late.heartbeat(time, started=started), now)
    assert f"two processes under one id: {late.id}" in prepared("doctor").out
    assert prepared("agent", "token", "new").code == 0
    assert "ok    enrolment: by token, 1 good tokens" in prepared("doctor").out


def test_the_doctor_sees_trust_that_ends_or_lags(prepared: Installation, ada: Investigator) -> None:
    store, now = prepared.store, utc_now()
    out = prepared("doctor").out
    assert "ok    trust bundle: none is published: agents obey what was baked into them" in out
    assert "ok    agents' trust: every agent that was heard obeys somebody" in out
    agents = {name: FleetAgent(store, name, now=now) for name in ("expired", "soon", "behind")}
    told: dict[str, dict[str, Any]] = {
        "expired": {"trust_version": 7, "trust_state": "expired", "trust_expires": now - timedelta(days=1)},
        "soon": {"trust_version": 7, "trust_state": "in-force", "trust_expires": now + timedelta(days=1)},
        "behind": {"trust_version": 6, "trust_state": "in-force"},
    }
    for name, members in told.items():
        store.save_heartbeat(agents[name].heartbeat(now, **members), now)
    for version, expires_s, said in (
        (5, 90 * 86400, "ok    trust bundle: bundle 5 is published, good until "),
        (6, 86400, ": publish a newer one before that"),
        (7, -60, "FAIL  trust bundle: trust-expired: bundle 7 is published, good until "),
    ):
        bundle = decode_bundle(json.dumps(make_bundle(version, ada, expires_s=expires_s)).encode())
        store.publish_trust(bundle, b"{}", f"d{version}", ada.fingerprint, now - timedelta(hours=2))
        assert said in prepared("doctor").out
    [line] = [line for line in prepared("doctor").out.splitlines() if "agents' trust" in line]
    expired, soon, behind = (agents[name].id for name in told)
    assert line == (
        f"warn  agents' trust: 1 agents obey nobody: their trust has expired or is lost: {expired}; "
        f"1 agents' trust expires within 14 days: {soon}; 1 agents were heard and do not hold the "
        f"newest bundle (those without roots take none): {behind}"
    )


def test_the_doctor_compares_the_audit_log_with_what_agents_have_signed(prepared: Installation) -> None:
    store, now = prepared.store, utc_now()
    good, forged = FleetAgent(store, "good"), FleetAgent(store, "forged")

    def sign(agent: FleetAgent, *heads: Head, minutes: int = 0, **more: Any) -> None:
        time = now + timedelta(minutes=minutes)
        heartbeat = agent.heartbeat(time, server_heads=tuple(map(tuple, heads)), **more)
        store.save_witnesses([(heartbeat, agent.signed(heartbeat))], now)

    sign(good, store.audit_head())
    assert "ok    audit log: 2 entries; the newest heads that 1 agents have signed" in prepared("doctor").out
    sign(good, Head(1, "0" * 64), store.audit_head(), minutes=1)
    forged.key = good.key
    sign(forged, Head(1, "0" * 64))
    out = prepared("doctor").out
    assert "warn  audit log: 1 agents have signed heads that do not stand in it" in out
    assert f"or a backup): {good.id}; see mig audit verify" in out
    for minutes, length in ((2, 9), (3, 5)):
        sign(good, Head(999, "0" * 64), minutes=minutes, log_head=(length, "a" * 64))
    assert f"1 agents' own logs were written anew or went back: {good.id}" in prepared("doctor").out


def test_the_doctor_sees_a_port_that_is_taken(prepared: Installation) -> None:
    port = load_config(prepared.config).api_address.port
    with socket.create_server(("127.0.0.1", port)):
        assert f"FAIL  api port: port-in-use: cannot listen on 127.0.0.1:{port}" in prepared("doctor").out


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
    assert "a server is running" in prepared("doctor").out


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

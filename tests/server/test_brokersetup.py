"""A RabbitMQ that is already there, set up by `mig-server broker setup`, with TLS: on a real node."""

import asyncio
import json
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest

from agent.runtime.amqp import IOLoop
from agent.runtime.identity import Identity
from agent.runtime.link import Link
from agent.runtime.link import Relay as AgentRelay
from protocol.errors import EnvironmentFailure, InvalidInput
from server.amqp import Link as ServerLink
from server.broker import PrivateBroker
from server.brokerctl import BrokerControl
from server.brokerprobe import BrokerFindings, examine_broker
from server.brokersetup import BrokerSetup, Request, settings_of_cluster
from server.certificates import TlsFiles, describe_certificate
from server.main import main
from server.parts import utc_now
from server.setup import replace_password
from tests.support.broker import AgentKey
from tests.support.plainbroker import Authority, PlainBroker
from tests.support.ports import free_port
from tests.support.relay import make_config, running_server

AUTHORITY = Authority.make()


class Host(NamedTuple):
    """A broker's host with `mig-server` on it."""

    node: PlainBroker
    config: Path
    files: TlsFiles
    tls_port: int

    def setup(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
        """Run the command; return its exit code, lines and errors."""
        fixed = [
            "--config",
            str(self.config),
            "--conf-dir",
            str(self.node.etc),
            "--tls-port",
            str(self.tls_port),
        ]
        files = ["--tls-cert", self.files.certificate, "--tls-key", self.files.key, "--tls-ca", self.files.ca]
        with pytest.raises(SystemExit, match=r"\d") as ended:
            main(["broker", "setup", *map(str, [*fixed, *files]), *words])
        out, err = capsys.readouterr()
        return int(str(ended.value.code)), out.splitlines(), err


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="mig-plain-") as name:
        directory = Path(name)
        node = PlainBroker(directory / "rabbitmq", auth_listen=f"127.0.0.1:{free_port()}")
        node.start()
        config = directory / "config.toml"
        config.write_text(
            "[server]\n"
            'name = "mig"\nurl = "http://127.0.0.1:1664"\nlisten = "127.0.0.1:1664"\n'
            f'broker_auth_listen = "{node.auth_listen}"\n'
            f'database = "sqlite:///{directory}/mig.sqlite"\n'
            f'relay = "amqp://mig-server:PASSWORD@127.0.0.1:{node.port}/mig"\n'
            f'rabbitmqctl = "{node.rabbitmqctl}"\nstate_dir = "{directory}"\nagents_dir = "{directory}"\n'
        )
        config.chmod(0o600)
        files = AUTHORITY.issue(directory, "localhost", "127.0.0.1")
        try:
            yield Host(node, config, files, free_port())
        finally:
            node.stop()


def relay_of(host: Host) -> str:
    return next(
        line.split('"')[1] for line in host.config.read_text().splitlines() if line.startswith("relay =")
    )


def words(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.split()[0] in {"ok", "did", "would", "warn", "next"}]


@pytest.mark.system
def test_a_plain_broker_is_set_up_once_and_agents_come_over_tls(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control = BrokerControl(host.node.rabbitmqctl)
    users = control.ask("list_users")

    code, lines, _ = host.setup(capsys, "--dry-run")
    assert (code, "did" in words(lines)) == (0, False)
    assert "PASSWORD" in host.config.read_text()
    assert control.ask("list_users") == users
    assert list((host.node.etc / "conf.d").iterdir()) == []

    code, _, err = host.setup(capsys)
    assert (code, err) == (
        2,
        "mig-server: usage: there is an account guest: say --delete-guest or --keep-guest\n",
    )

    code, lines, err = host.setup(capsys, "--delete-guest")
    assert (code, err) == (0, "")
    assert lines[-1].startswith("next  restart RabbitMQ")
    password = urlsplit(relay_of(host)).password
    assert password is not None
    assert "PASSWORD" not in password
    assert password not in "\n".join(lines)
    assert stat.S_IMODE(host.config.stat().st_mode) == 0o600
    assert control.ask("list_users") == [{"user": "mig-server", "tags": []}]
    [permissions] = control.ask("list_permissions", "-p", "mig")
    assert {permissions[kind] for kind in ("configure", "write", "read")} == {r"^mig\."}

    host.node.restart()
    code, lines, _ = host.setup(capsys)
    assert (code, set(words(lines))) == (0, {"ok"})

    config = make_config(host.node, tmp_path, url=relay_of(host))
    problems = said_of(asyncio.run(examine_broker(config, is_serving=True)))
    assert problems.pop("broker permissions") == ""
    assert (
        problems.pop("queues")
        == "mig.results, mig.heartbeats, mig.dead not there: mig-server serve makes them"
    )
    assert "the broker does not ask http://127.0.0.1:" in problems.pop("agents' logins")

    asyncio.run(exchange(host, tmp_path))


async def exchange(host: Host, tmp_path: Path) -> None:
    """Let a server with the account and an agent over TLS do their work, and strangers not."""
    config = make_config(host.node, tmp_path, url=relay_of(host))
    agent = AgentKey()

    async with running_server(host.node, tmp_path, config=config) as server:
        await server.enrol(agent)
        for place, ca, said in (
            ("localhost", AUTHORITY.pem, "ready"),
            ("127.0.0.2", AUTHORITY.pem, "the broker's certificate is not accepted: IP address mismatch"),
            ("localhost", Authority.make().pem, "the broker's certificate is not accepted: self-signed"),
            ("localhost", "", "the broker's certificate is not accepted: self-signed"),
        ):
            heard = await asyncio.to_thread(outcome, f"amqps://{place}:{host.tls_port}/mig", ca, agent)
            assert heard.startswith(said), heard
            assert "\n" not in heard
        assert said_of(await examine_broker(config, is_serving=True)) == {
            "broker permissions": "",
            "queues": "",
            "agents' logins": "",
        }
        tls = f"amqps://{urlsplit(relay_of(host)).netloc.rsplit('@')[0]}@localhost:{host.tls_port}/mig"
        await (await ServerLink.open(tls, name="test", ca=str(host.files.ca))).close()
        other = tmp_path / "other.pem"
        other.write_text(Authority.make("another authority").pem)
        for url, ca, said in (
            (tls, str(other), "the broker's certificate is not accepted: "),
            (tls, "", "the broker's certificate is not accepted: "),
            (tls.replace("localhost", "127.0.0.2"), str(host.files.ca), "IP address mismatch"),
        ):
            with pytest.raises(EnvironmentFailure, match=said) as refused:
                await ServerLink.open(url, name="test", ca=ca)
            assert "\n" not in refused.value.detail


@pytest.mark.system
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rabbitmq.conf", "auth_backends.1 = ldap\n", "rabbitmq.conf sets auth_backends.1 = ldap"),
        ("rabbitmq.conf", "auth_backends.3 = ldap\n", "rabbitmq.conf sets auth_backends.3 = ldap"),
        ("conf.d/99-x.conf", "channel_max = 2047\n", "99-x.conf sets channel_max = 2047"),
        (
            "conf.d/90-mig.conf",
            "channel_max = 32\n",
            "90-mig.conf is there and was not written by this command",
        ),
        ("advanced.config", "[{rabbit, [{tcp_listeners, []}]}].", "advanced.config sets tcp_listeners"),
        (
            "advanced.config",
            "[{rabbitmq_auth_backend_cache, [{cache_ttl, 1}]}].",
            "advanced.config sets auth_backend_cache",
        ),
    ],
)
def test_what_is_not_understood_is_refused_and_nothing_is_changed(
    host: Host, tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / name).write_text(text)
    request = Request(
        config=make_config(host.node, tmp_path, url="amqp://somebody:secret@127.0.0.1/mig"),
        conf_directory=tmp_path,
        tls=None,
        tls_port=5671,
        delete_guest=lambda: True,
        new_password=lambda: "x",
        set_password=lambda _: None,
    )
    control = BrokerControl(host.node.rabbitmqctl)
    users = control.ask("list_users")
    with pytest.raises(InvalidInput, match=f"conflict: .*{said}"):
        list(BrokerSetup(request, control, dry_run=False).run())
    assert control.ask("list_users") == users


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://guest:guest@127.0.0.1/mig", "an account of its own, not guest"),
        ("amqp://server:x@127.0.0.1/other", "the virtual host must be mig"),
        ("amqp://127.0.0.1/mig", "give the account to be made"),
    ],
)
def test_a_relay_that_names_no_account_of_ours_is_refused(tmp_path: Path, url: str, said: str) -> None:
    node = PrivateBroker(tmp_path / "node")
    config = make_config(node, tmp_path, url=url)
    request = Request(config, tmp_path, None, 5671, lambda: True, lambda: "x", lambda _: None)
    with pytest.raises(InvalidInput, match=f"bad-config: relay: .*{said}"):
        BrokerSetup(request, BrokerControl(tmp_path / "none"), dry_run=True)


def test_without_the_tool_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="tool-missing: .*rabbitmqctl: No such file"):
        BrokerControl(tmp_path / "rabbitmqctl").ask("status")


def test_a_password_is_put_where_the_configuration_says_password_and_nowhere_else(tmp_path: Path) -> None:
    path, relay = tmp_path / "config.toml", "amqp://server:PASSWORD@127.0.0.1/mig"
    path.write_text(f'# PASSWORD\nrelay = "{relay}"\n')
    replace_password(path, [relay], "secret")
    assert path.read_text() == '# PASSWORD\nrelay = "amqp://server:secret@127.0.0.1/mig"\n'
    with pytest.raises(InvalidInput, match="put a password into relay"):
        replace_password(path, [relay], "secret")


@pytest.mark.parametrize(("version", "is_told"), [((3, 10), False), ((3, 13), False), ((4, 0), True)])
def test_a_node_of_a_cluster_is_told_to_let_queues_go_with_their_node_where_it_knows_the_setting(
    version: tuple[int, ...], *, is_told: bool
) -> None:
    assert bool(settings_of_cluster(version)) is is_told


def test_nodes_of_a_cluster_with_different_accounts_are_refused(tmp_path: Path) -> None:
    config = msgspec.structs.replace(
        make_config(PrivateBroker(tmp_path / "node"), tmp_path, url="amqp://unused"),
        relay=("amqp://a:x@one.example/mig", "amqp://b:x@two.example/mig"),
    )
    request = Request(config, tmp_path, None, 5671, lambda: True, lambda: "x", lambda _: None)
    with pytest.raises(InvalidInput, match="bad-config: relay: all nodes have one account"):
        BrokerSetup(request, BrokerControl(tmp_path / "none"), dry_run=True)


def test_a_password_is_put_into_the_url_of_every_node_of_a_cluster(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    relays = [f"amqp://mig-server:PASSWORD@{host}:5672/mig" for host in ("one.example", "two.example")]
    path.write_text(f"relay = {json.dumps(relays)}\n")
    replace_password(path, relays, "secret")
    assert path.read_text().count(":secret@") == 2
    assert "PASSWORD" not in path.read_text()


@pytest.mark.parametrize(
    ("names", "days", "said"),
    [
        ((), 30, "names no host"),
        (("localhost",), -1, "expired at"),
        (("localhost",), 1, r"^warn  certificate"),
    ],
)
def test_a_certificate_is_looked_at_before_it_is_used(
    tmp_path: Path, names: tuple[str, ...], days: int, said: str
) -> None:
    files = AUTHORITY.issue(tmp_path, *names, days=days)
    if said.startswith("^"):
        assert describe_certificate(files).startswith("warn  certificate for localhost, until ")
        return
    with pytest.raises(InvalidInput, match=said):
        describe_certificate(files)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = AUTHORITY.issue(tmp_path / "other", "localhost")
    files = AUTHORITY.issue(tmp_path, "localhost")._replace(key=other.key)
    with pytest.raises(InvalidInput, match="bad-config: .*mismatch"):
        describe_certificate(files)


def said_of(findings: BrokerFindings) -> dict[str, str]:
    """Return the problems, which the doctor says."""
    return {finding.subject: str(finding.problem or "") for finding in findings}


def outcome(url: str, ca: str, agent: AgentKey) -> str:
    """Let the real agent's link connect; return `ready`, or what it says of its failure."""
    ioloop = IOLoop()
    link = Link(
        ioloop=ioloop,
        relay=AgentRelay((url,), "mig", ca),
        identity=Identity(agent.private, agent.id, is_new=True),
        clock=utc_now,
        on_delivery=lambda _body, acknowledge: acknowledge(),
        on_ready=ioloop.stop,
        on_trouble=ioloop.stop,
        random=lambda: 1.0,
        facts=lambda: {"name": "web1", "environment": {"addresses": ""}},
    )

    link.connect()
    ioloop.start()
    said = "ready" if link.is_ready else link.last_problem
    link.close()
    ioloop.call_later(0.2, ioloop.stop)
    ioloop.start()
    ioloop.close()
    return said

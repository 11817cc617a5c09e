"""Bad input and bad surroundings, through the three command lines as people run them.

Each case ends with the exit code that the table names and one line on standard error, never a traceback; and
it leaves nothing behind: no journal entry on an endpoint, no action on the server.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from protocol.envelope import ACTION, LOGIN, Envelope, Signature, encode_envelope
from server.database import Database
from server.store import Store
from tests.support.endpoint import make_action, make_baked, sign_action, utc_now
from tests.support.fleet import FleetAgent
from tests.support.forked import run_program
from tests.support.gpg import Investigator
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.tree import AgentTree

pytestmark = pytest.mark.system

HUGE = 100 << 20  # bytes


class People(NamedTuple):
    """Ada is trusted by the endpoint and known to the server; Bob is neither."""

    ada: Investigator
    bob: Investigator


Body = Callable[[People], bytes]


@pytest.fixture(scope="module")
def people(ada: Investigator, bob: Investigator) -> People:
    return People(ada, bob)


def require_one_line(said: str, expected: str) -> None:
    """Fail unless exactly one line was said, with this text in it."""
    assert expected in said
    assert (said.count("\n"), said[-1:]) == (1, "\n"), said
    assert "Traceback" not in said


def signed(**changes: Any) -> Body:
    """Return how to make an action that Ada signed, with these members changed."""
    return lambda people: sign_action(people.ada, **changes)


def signed_bytes(payload: bytes) -> Body:
    """Return how to make an envelope over any payload that Ada signed as an action."""
    return lambda people: sign_action(people.ada, payload=payload)


def unsigned(_people: People) -> bytes:
    return encode_envelope(Envelope(ACTION, json.dumps(make_action()).encode(), ()))


def badly_signed(people: People) -> bytes:
    return encode_envelope(
        people.ada.sign(ACTION, b"{}")._replace(payload=json.dumps(make_action()).encode())
    )


def garbage_signature(people: People) -> bytes:
    payload = json.dumps(make_action()).encode()
    return encode_envelope(Envelope(ACTION, payload, (Signature(people.ada.fingerprint, b"\xc2\x00"),)))


def stranger(people: People) -> bytes:
    return sign_action(people.bob)


def stranger_under_a_trusted_name(people: People) -> bytes:
    envelope = people.bob.sign(ACTION, json.dumps(make_action()).encode())
    [signature] = envelope.signatures
    return encode_envelope(envelope._replace(signatures=(signature._replace(keyid=people.ada.fingerprint),)))


def login(people: People) -> bytes:
    return encode_envelope(people.ada.sign(LOGIN, json.dumps(make_action()).encode()))


def operation(module: str, **parameters: Any) -> dict[str, Any]:
    return {"operations": [{"module": module, "parameters": parameters}]}


def window(start_s: int, end_s: int) -> dict[str, str]:
    """Return a validity window, in seconds from now."""
    now = utc_now()
    times = {"validfrom": start_s, "expireafter": end_s}
    return {name: (now + timedelta(seconds=seconds)).isoformat() for name, seconds in times.items()}


DUPLICATE = b'{"operations": [], ' + json.dumps(make_action()).encode()[1:]
NOT_A_NUMBER = json.dumps(make_action(threat={"level": float("nan")})).encode()
WEEK_S = 7 * 24 * 3600


# -- mig-agent ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> AgentTree:
    return AgentTree(tmp_path_factory.mktemp("endpoint"), make_baked([ada]), [ada])


def run_action(endpoint: AgentTree, body: bytes, state: Path | None = None) -> tuple[int, str, str]:
    state = state or endpoint.state
    done = endpoint.run("action", "-", "--state-dir", str(state), data=body)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        pytest.param(lambda _: b"", 4, "bad-json", id="nothing"),
        pytest.param(lambda _: bytes(64), 4, "bad-json", id="zeros"),
        pytest.param(lambda _: b"[" * 100_000, 4, "bad-json", id="100,000 brackets"),
        pytest.param(lambda _: b"[" * HUGE, 4, "too-large", id="100 MB"),
        pytest.param(unsigned, 4, "unsigned", id="unsigned"),
        pytest.param(badly_signed, 4, "unsigned", id="signature over something else"),
        pytest.param(garbage_signature, 4, "unsigned", id="garbage for a signature"),
        pytest.param(stranger, 4, "unsigned", id="signed by a stranger"),
        pytest.param(stranger_under_a_trusted_name, 4, "unsigned", id="signed by a stranger in Ada's name"),
        pytest.param(login, 4, "wrong-type", id="a login"),
        pytest.param(signed_bytes(DUPLICATE), 4, "duplicate key 'operations'", id="signed duplicate keys"),
        pytest.param(signed_bytes(NOT_A_NUMBER), 4, "NaN is not JSON", id="signed NaN"),
        pytest.param(signed_bytes(b"[" * 100_000), 4, "bad-json", id="100,000 signed brackets"),
        pytest.param(signed(surprise=1), 4, "bad-action", id="unknown member"),
        pytest.param(signed(**window(-7200, -3600)), 4, "expired", id="expired"),
        pytest.param(signed(**window(3600, 7200)), 4, "not-yet-valid", id="not yet valid"),
        pytest.param(signed(**window(-60, WEEK_S)), 4, "validity-too-long", id="valid for too long"),
        pytest.param(signed(target="os = 'plan9'"), 4, "not-targeted", id="for another endpoint"),
        pytest.param(signed(target="os ="), 2, "bad-target", id="a target that is none"),
        pytest.param(signed(**operation("nosuch")), 2, "unknown-module", id="unknown module"),
        pytest.param(signed(**operation("filechecker")), 2, "unknown-module", id="alias of a module"),
        pytest.param(signed(**operation("agentinfo", x=1)), 2, "bad-parameters", id="unknown parameter"),
    ],
)
def test_an_endpoint_refuses_in_one_line_and_keeps_nothing(
    endpoint: AgentTree, people: People, body: Body, code: int, said: str
) -> None:
    exit_code, printed, error = run_action(endpoint, body(people))
    assert (exit_code, printed) == (code, "")
    require_one_line(error, said)
    assert endpoint.run("log", "--state-dir", str(endpoint.state)).stdout == b""


def test_an_endpoint_refuses_a_replay_in_one_line(tmp_path: Path, people: People) -> None:
    endpoint = AgentTree(tmp_path, make_baked([people.ada]), [people.ada])
    body = sign_action(people.ada)
    assert run_action(endpoint, body)[0] == 0
    code, printed, error = run_action(endpoint, body)
    assert (code, printed) == (4, "")
    require_one_line(error, "replayed")


@pytest.mark.parametrize(
    "words", [("run", "--foreground"), ("run", "--check-in"), ("action", "-")], ids=" ".join
)
def test_a_state_directory_that_cannot_be_used_is_said_in_one_line(
    endpoint: AgentTree, people: People, tmp_path: Path, words: tuple[str, ...]
) -> None:
    state = tmp_path / "file"
    state.write_text("not a directory")
    done = endpoint.run(*words, "--state-dir", str(state), data=sign_action(people.ada))
    assert done.returncode == 5
    require_one_line(done.stderr.decode(), str(state))
    assert state.read_text() == "not a directory"


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size; needs root."""
    mount = directory / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def fill(mount: Path) -> Path:
    """Write until there is no room, and return the file that took it."""
    path = mount / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return path


def test_an_endpoint_without_room_runs_nothing_and_loses_nothing(
    endpoint: AgentTree, people: People, tmp_path: Path
) -> None:
    with small_disk(tmp_path, "256k") as mount:
        state = mount / "state"
        assert run_action(endpoint, sign_action(people.ada), state)[0] == 0
        filler = fill(mount)
        # More than what is left in the last page of any file.
        body = sign_action(people.ada, name="n" * 2000, description={"author": "a" * 1000, "url": "u" * 1000})
        code, printed, error = run_action(endpoint, body, state)
        assert (code, printed) == (5, "")
        require_one_line(error, "disk-full")
        filler.unlink()
        assert run_action(endpoint, body, state)[0] == 0


# -- mig ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Platform]:
    """A server without its broker, which has one agent in its database."""
    running = Platform(tmp_path_factory.mktemp("platform"), ada)
    try:
        running.start_without_broker()
        enrol_one(running)
        yield running
    finally:
        running.stop()


def enrol_one(platform: Platform) -> None:
    database = Database(f"sqlite:///{platform.directory / 'server' / 'mig.sqlite'}")
    FleetAgent(Store(database), now=utc_now())
    database.close()


def actions_stored(platform: Platform) -> list[str]:
    return platform.mig("action", "list", "--json").stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nosuch",), 2, "No such command 'nosuch'"),
        (("file", "--nosuch"), 2, "No such option"),
        (("file", "--path", "/etc", "--name", "(", "--yes"), 2, "bad-parameters"),
        (("file", "--path", "etc", "--yes"), 2, "usage: --path 'etc': endpoints know absolute paths only"),
        (("agentinfo", "-t", "os =", "--yes"), 2, "bad-target"),
        (("agentinfo", "-t", "os = 'plan9'", "--yes"), 1, "no-agents"),
        (("agentinfo", "--expire", "soon", "--yes"), 2, "usage"),
        (("agentinfo",), 2, "--yes"),
        (("run", "nowhere.json", "--yes"), 2, "nowhere.json: No such file"),
        (("run", "/", "--yes"), 2, "/: Is a directory"),
        (("results", "nosuch"), 2, "not-found"),
        (("results", "018f0000-0000-7000-8000-000000000000"), 2, "not-found"),
        (("agents", "-t", "nosuch = 1"), 2, "bad-target"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_investigator_is_told_in_one_line_what_is_wrong(
    platform: Platform, words: tuple[str, ...], code: int, said: str
) -> None:
    done = platform.mig(*words, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    require_one_line(done.stderr, said)
    assert actions_stored(platform) == []


TEMPLATE = {"name": "x", "target": "os = 'linux'", "operations": [{"module": "agentinfo", "parameters": {}}]}


def template(**changes: Any) -> Body:
    """Return how to make an unsigned action file."""
    return lambda _: json.dumps({**TEMPLATE, **changes}).encode()


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        pytest.param(lambda _: b"", 4, "bad-json", id="nothing"),
        pytest.param(lambda _: b'{"name": "a", "name": "b"}', 4, "duplicate key 'name'", id="duplicate keys"),
        pytest.param(template(threat={"level": float("nan")}), 4, "NaN is not JSON", id="NaN"),
        pytest.param(lambda _: b"[" * 100_000, 4, "bad-json", id="100,000 brackets"),
        pytest.param(lambda _: b" " * HUGE, 4, "too-large", id="100 MB"),
        pytest.param(template(surprise=1), 4, "unknown member 'surprise'", id="unknown member"),
        pytest.param(template(**operation("nosuch")), 2, "unknown-module", id="unknown module"),
        pytest.param(template(**operation("agentinfo", x=1)), 2, "bad-parameters", id="unknown parameter"),
        pytest.param(unsigned, 4, "unsigned", id="unsigned envelope"),
        pytest.param(badly_signed, 4, "bad-signature", id="signature over something else"),
        pytest.param(garbage_signature, 4, "bad-signature", id="garbage for a signature"),
        pytest.param(stranger, 4, "no active investigator", id="signed by a stranger"),
        pytest.param(login, 4, "wrong-type", id="a login"),
        pytest.param(signed(**window(-7200, -3600)), 4, "expired", id="expired"),
        pytest.param(signed(target="os = 'plan9'"), 1, "no-agents", id="for nobody"),
        pytest.param(signed_bytes(DUPLICATE), 4, "duplicate key 'operations'", id="signed duplicate keys"),
    ],
)
def test_an_action_file_that_cannot_be_meant_is_refused_and_not_stored(
    platform: Platform, people: People, tmp_path: Path, *, body: Body, code: int, said: str
) -> None:
    file = tmp_path / "action.json"
    file.write_bytes(body(people))
    done = platform.mig("run", str(file), "--yes", check=False)
    assert (done.returncode, done.stdout) == (code, "")
    require_one_line(done.stderr, said)
    assert actions_stored(platform) == []


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("server = ", "sever = ", 2, "bad-config"),
        ("[client]", "[client", 2, "bad-config"),
        ('gpg_home = "', 'gpg = "/nowhere/gpg"\ngpg_home = "', 2, "gpg-missing"),
        ('gpg_home = "', 'gpg_home = "/nowhere', 2, "key-missing"),
        ('gpg_home = "', 'gpg = "/bin/true"\ngpg_home = "', 4, "gpg-failed"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_said_in_one_line(
    platform: Platform, tmp_path: Path, *, old: str, new: str, code: int, said: str
) -> None:
    head, client = platform.config.read_text().split("[client]")
    config = tmp_path / "config.toml"
    config.write_text(head + f"[client]{client}".replace(old, new))
    done = run_mig(platform, config, "agents")
    assert done.returncode == code
    require_one_line(done.stderr, said)


def run_mig(platform: Platform, config: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `mig` with another configuration, and without the session that is kept."""
    environment = {**platform.environment(), "MIG_CONFIG": str(config), "HOME": str(config.parent)}
    return run_program("client.main", *words, env=environment, timeout=60)


def test_a_missing_configuration_says_how_to_make_one(platform: Platform, tmp_path: Path) -> None:
    done = run_mig(platform, tmp_path / "config.toml", "agents")
    assert done.returncode == 2
    require_one_line(done.stderr, "make one")


def test_a_server_that_is_away_is_out_of_reach(platform: Platform, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(platform.config.read_text().replace(platform.url, f"http://127.0.0.1:{free_port()}"))
    done = run_mig(platform, config, "agentinfo", "--yes")
    assert done.returncode == 5
    require_one_line(done.stderr, "server-away")


# -- mig-server --------------------------------------------------------------------------------------------


def run_server(platform: Platform, *words: str) -> "subprocess.CompletedProcess[str]":
    return run_program("server.main", *words, env=platform.environment(), timeout=60)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nosuch",), 2, "No such command 'nosuch'"),
        (("serve", "--nosuch"), 2, "No such option"),
        (("serve", "--config", "/nowhere/config.toml"), 2, "/nowhere/config.toml: No such file"),
        (("investigator", "add", "/nowhere/key"), 2, "/nowhere/key"),
        (("investigator", "add", "/dev/null"), 2, "/dev/null"),
        (("investigator", "disable", "nosuch"), 2, "usage"),
        (("investigator", "disable", "A" * 40), 2, "not-found"),
        (("agent", "approve", "nosuch"), 2, "usage"),
        (("agent", "revoke", "0" * 32), 2, "not-found"),
        (("serve",), 2, "another mig-server runs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_operator_is_told_in_one_line_what_is_wrong(
    platform: Platform, words: tuple[str, ...], code: int, said: str
) -> None:
    done = run_server(platform, *words)
    assert (done.returncode, done.stdout) == (code, "")
    require_one_line(done.stderr, said)


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("enrolment = ", "enrollment = ", 2, "bad-config"),
        ("[server]", "[server", 2, "bad-config"),
        ('relay = "amqp://', 'relay = "http://', 2, "bad-config"),
        ("mig.sqlite", "nowhere/mig.sqlite", 5, "database-away"),
        ("mig.sqlite", "", 5, "database-away"),
        ("mig.sqlite", "garbage", 5, "database-away"),
        ('state_dir = "', 'state_dir = "/dev/null', 5, "state-failed"),
        ("sqlite:///", "postgresql://nobody@127.0.0.1:9/", 5, "database-away"),
        ("sqlite:///", "nosuch:///", 2, "bad-config"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(
    platform: Platform, tmp_path: Path, *, old: str, new: str, code: int, said: str
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "garbage").write_bytes(b"this is no database" * 100)
    config = tmp_path / "config.toml"
    text = platform.config.read_text().replace(str(platform.directory), str(tmp_path))
    for port in (platform.api_port, platform.auth_port):
        text = text.replace(f":{port}", f":{free_port()}")
    config.write_text(text.replace(old, new))
    done = run_server(platform, "serve", "--config", str(config))
    assert (done.returncode, done.stdout) == (code, "")
    require_one_line(done.stderr, said)
    assert (tmp_path / "server" / "garbage").read_bytes() == b"this is no database" * 100


def test_a_server_without_room_refuses_an_action_and_takes_it_when_there_is_room(
    ada: Investigator, tmp_path: Path
) -> None:
    platform = Platform(tmp_path / "platform", ada)
    platform.directory.mkdir()
    with small_disk(platform.directory, "2m") as mount:
        shutil.rmtree(platform.directory / "server", ignore_errors=True)
        (platform.directory / "server").symlink_to(mount, target_is_directory=True)
        try:
            platform.start_without_broker()
            enrol_one(platform)
            file = tmp_path / "action.json"
            # Larger than what is left of the database's last pages.
            file.write_bytes(sign_action(ada, description={"author": "a" * 1000, "url": "u" * 1000}))
            assert actions_stored(platform) == []
            filler = fill(mount)
            done = platform.mig("action", "submit", str(file), "--yes", check=False)
            assert done.returncode == 5
            require_one_line(done.stderr, "disk-full")
            filler.unlink()
            platform.mig("action", "submit", str(file), "--yes")
            assert len(actions_stored(platform)) == 1
        finally:
            platform.stop()

"""Sealed answers on real parts: asked, run, encrypted, carried, opened; and read by nobody on the way."""

import base64
import json
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from protocol.envelope import SEALED_RESULT
from protocol.names import AGENTS_EXCHANGE, RESULTS_QUEUE
from protocol.sealing import MAX_SEALED_ENVELOPE_BYTES
from server.brokerfiles import MAX_MESSAGE_BYTES
from tests.support.gpg import Investigator, temporary_investigator
from tests.support.platform import Platform, running_platform, wait_until

pytestmark = pytest.mark.system

ONE = "tags->>'name' = 'one'"


@pytest.fixture(scope="module")
def carol() -> Iterator[Investigator]:
    with temporary_investigator("Carol Investigator", "rsa3072") as investigator:
        investigator.add_encryption_key("cv25519")
        yield investigator


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, carol: Investigator) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("sealed"), carol, "one") as running:
        yield running


@pytest.fixture
def canary(tmp_path: Path) -> str:
    """The name of a file that stands in an answer and nowhere in its question."""
    name = f"canary-{secrets.token_hex(16)}"
    (tmp_path / name).touch()
    return name


class Tap:
    """Gets a copy of every answer that crosses the broker."""

    def __init__(self, platform: Platform) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(platform.broker.url))
        self._channel = self._connection.channel()
        self._queue = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.queue_bind(self._queue, AGENTS_EXCHANGE, "result.*")

    def take(self) -> bytes:
        """Return the next copy."""

        def get() -> Any:
            return self._channel.basic_get(self._queue, auto_ack=True)[2]

        return bytes(wait_until(get, "an answer on the broker"))

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def tap(platform: Platform) -> Iterator[Tap]:
    tap = Tap(platform)
    yield tap
    tap.close()


def stored_bytes(platform: Platform) -> Iterator[tuple[Path, bytes]]:
    """Yield every file that server, broker and agent keep or have logged."""
    for path in platform.directory.rglob("*"):
        if path.is_file() and not path.relative_to(platform.directory).parts[0].startswith("agent-"):
            yield path, path.read_bytes()


def traces(text: bytes) -> list[bytes]:
    """Return how a text shows in bytes: as it is, in base64 at each of three offsets, and in that again."""

    def encoded(plain: bytes) -> list[bytes]:
        # The first characters hold bits of what stood before, the last ones of what comes behind.
        return [base64.b64encode(bytes(at) + plain)[at + (at > 0) : -4] for at in range(3)]

    once = encoded(text)
    return [text, *once, *(trace for form in once for trace in encoded(form))]


def shows(data: bytes, text: str) -> bool:
    return any(trace in data for trace in traces(text.encode()))


def holders(platform: Platform, text: str) -> list[Path]:
    return [path for path, data in stored_bytes(platform) if shows(data, text)]


def ask(
    platform: Platform, tmp_path: Path, *words: str, target: str = ONE
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    return platform.mig_json("file", "-t", target, "--path", str(tmp_path), "--name", "^canary-", *words)


def test_a_sealed_answer_is_read_by_the_investigator_and_nobody_on_the_way(
    platform: Platform, tmp_path: Path, canary: str, tap: Tap
) -> None:
    answers, summary = ask(platform, tmp_path, "--seal")
    assert [record["path"] for record in answers[0]["records"]] == [str(tmp_path / canary)]
    assert summary["exit"] == 0
    message = tap.take()
    assert json.loads(message)["payloadType"] == SEALED_RESULT
    assert not shows(message, canary)
    assert holders(platform, canary) == []
    # The client's own memory of which agent bore which name holds no answer either; the answer opens again.
    again = platform.mig("results", summary["action"], "--json")
    assert canary in again.stdout
    assert canary in platform.mig("results", summary["action"], "--format", "csv").stdout
    assert canary in platform.mig("results", summary["action"]).stdout


def test_without_a_seal_the_platform_reads_the_answer(
    platform: Platform, tmp_path: Path, canary: str, tap: Tap
) -> None:
    ask(platform, tmp_path)
    assert shows(tap.take(), canary)
    assert any("sqlite" in path.name for path in holders(platform, canary))


def test_the_largest_answer_comes_through_sealed(platform: Platform, tmp_path: Path, tap: Tap) -> None:
    for number in range(5000):
        (tmp_path / f"canary-{number:0200d}").touch()
    answers, _ = ask(platform, tmp_path, "--seal", "--matchlimit", "5000")
    assert answers[0]["truncated"]
    assert len(json.dumps(answers[0]["records"])) > 900_000
    assert 2 << 20 < len(tap.take()) < MAX_SEALED_ENVELOPE_BYTES < MAX_MESSAGE_BYTES


def test_where_the_secret_key_is_elsewhere_one_line_says_so_and_the_status_shows(
    platform: Platform, tmp_path: Path, canary: str
) -> None:
    _, summary = ask(platform, tmp_path, "--seal")
    with temporary_investigator("Eve Investigator") as eve:
        config = platform.config.read_text()
        platform.config.write_text(re.sub(r'gpg_home = ".*"', f'gpg_home = "{eve.home}"', config))
        try:
            done = platform.mig("results", summary["action"], check=False)
            lines = platform.mig("results", summary["action"], "--json", check=False).stdout.splitlines()
        finally:
            platform.config.write_text(config)
    assert done.returncode == 3
    assert canary not in done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "secret key" in line)
    assert "done: sealed to" in line
    member = json.loads(lines[0])
    assert (member["status"], member["sealed"]) == ("done", True)


def test_a_reader_whom_the_agents_do_not_trust_refuses_the_action(
    platform: Platform, tmp_path: Path, canary: str
) -> None:
    done = platform.mig(
        *("file", "-t", ONE, "--path", str(tmp_path), "--name", "^canary-", "--sealed-to", "F" * 40, "--yes"),
        check=False,
    )
    assert done.returncode == 4
    assert f"cannot-seal: {'F' * 40} is not a trusted investigator" in done.stdout


def test_a_sealed_answer_that_waits_on_the_endpoint_cannot_be_read_there(
    platform: Platform, tmp_path: Path, canary: str
) -> None:
    file = tmp_path / "action.json"
    search = {"paths": [str(tmp_path)], "names": ["^canary-"]}
    operations = [{"module": "file", "parameters": {"searches": {"s": search}}}]
    file.write_text(
        json.dumps({"name": "waits", "target": ONE, "operations": operations, "syntaxversion": 2})
    )
    signed = platform.mig("action", "sign", str(file), "--seal").stdout.strip()
    with pika.BlockingConnection(pika.URLParameters(platform.broker.url)) as connection:
        channel = connection.channel()
        channel.queue_unbind(RESULTS_QUEUE, AGENTS_EXCHANGE, "result.*")
        try:
            action = platform.mig("action", "submit", signed, "--yes").stdout.strip()
            spool = platform.directory / "state-one" / "spool"
            wait_until(lambda: [*spool.glob("[!.]*")], "an answer that waits")
            assert holders(platform, canary) == []
        finally:
            channel.queue_bind(RESULTS_QUEUE, AGENTS_EXCHANGE, "result.*")
    platform.kill("one")
    platform.start_agent("one")
    wait_until(lambda: canary in platform.mig("results", action, check=False).stdout, "the answer")
    assert holders(platform, canary) == []


def test_an_agent_built_to_seal_everything_does_so_unasked(
    platform: Platform, tmp_path: Path, canary: str, carol: Investigator
) -> None:
    platform.start_agent("sealer", seal_to=[carol.fingerprint])
    wait_until(lambda: platform.is_online("sealer"), "agent sealer")
    answers, _ = ask(platform, tmp_path, target="tags->>'name' = 'sealer'")
    assert [record["path"] for record in answers[0]["records"]] == [str(tmp_path / canary)]
    assert holders(platform, canary) == []
    platform.kill("sealer", signal.SIGTERM)

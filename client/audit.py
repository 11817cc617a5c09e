"""Checks the server's audit log against what it cannot have changed: what agents signed, what we saw before.

Rules:
1. Heads are collected before the log is read, so a head beyond the log's end means that its end is withheld.
2. A head counts only under the signature of the agent whose key hashes to its id.
3. A head from before the log begins (behind a checkpoint) can no longer be compared, and that is said.
4. The head of a log that was found good is remembered here, for the next time.
5. Archives of what was cut off the log are read too: each is a chain by itself, heads from before the log
   begins are compared with them, and their own heads with the log and with each other.
6. What agents sign of their own logs is checked on the way (`client.agent_logs`).
"""

import base64
import binascii
import hashlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from client.agent_logs import AgentLogs, SignedLogs
from client.api import Api
from client.config import ClientConfig, data_dir
from client.files import write_file
from protocol.audit import MAX_ENTRY_BYTES, NO_HEAD, Chain, Head, Witnessed, is_sha256
from protocol.documents import SignedEnvelope, Witness
from protocol.errors import InvalidInput
from protocol.heartbeat import Heartbeat
from protocol.witness import open_witness

_OURSELVES = "this client"


class Verdict(NamedTuple):
    """What was found, in lines for people."""

    is_broken: bool
    lines: tuple[str, ...]


class RememberedHead:
    """The head of one server's log as this client saw it last, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Head | None:
        """Return it, or None where nothing (readable) is remembered."""
        try:
            head = msgspec.json.decode(self._path.read_bytes(), type=Head)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return head if is_sha256(head.sha256) else None

    def save(self, head: Head) -> None:
        """Remember a head.

        Raises:
            EnvironmentFailure: `state-failed`.

        """
        write_file(self._path, msgspec.json.encode(head), mode=0o600)


def remembered_head(config: ClientConfig) -> RememberedHead:
    """Return where the head of the configured server's log is remembered."""
    return RememberedHead(_memory(config).with_suffix(".json"))


def remembered_logs(config: ClientConfig) -> AgentLogs:
    """Return what is remembered of the logs of the configured server's agents.

    Raises:
        EnvironmentFailure: `state-failed`.

    """
    return AgentLogs(_memory(config).with_suffix(".agents.json"))


def _memory(config: ClientConfig) -> Path:
    return data_dir() / "audit" / hashlib.sha256(config.server.encode()).hexdigest()[:32]


class Auditor:
    """Checks the log of one server."""

    def __init__(self, api: Api, remembered: RememberedHead, logs: AgentLogs) -> None:
        self._api = api
        self._remembered = remembered
        self._logs = logs
        self._lines: list[str] = []
        self._is_broken = False

    def verify(self, archives: Sequence[Path] = ()) -> Verdict:
        """Read everything, compare everything; nothing that is wrong ends it early but a broken chain."""
        seen = self._collect() + [(str(path), check_export(path)) for path in archives]
        found = set()
        for path in archives:
            passed = Witnessed(seen)
            check_export(path, passed)
            found.update(passed.confirmed)
            self._contradict(passed, str(path))
        witnessed = Witnessed(seen)
        chain = Chain()
        try:
            for line in self._api.read_audit(0):
                chain.add(line)
                witnessed.passed(chain.head)
            chain.require_complete()
        except InvalidInput as error:
            if error.code != "broken-chain":
                raise
            self._complain(f"the log is broken: {error.detail}")
            return Verdict(is_broken=True, lines=tuple(self._lines))
        self._contradict(witnessed, "the log")
        found.update(witnessed.confirmed)
        self._compare_rest(witnessed, chain, found)
        head = chain.head
        self._lines.append(f"entries {chain.first_seq} to {head.seq} stand in one chain, head {head.sha256}")
        agents = len({who for who, _ in seen} - {_OURSELVES, *map(str, archives)})
        self._lines.append(
            f"{len(found)} of {len({*seen})} heads seen by {agents} agents and this client stand in it"
        )
        self._lines.append(f"{self._logs.compared} agents' own logs go on from what they had signed before")
        if not self._is_broken and head != NO_HEAD:
            self._remembered.save(head)
        self._logs.save()
        return Verdict(is_broken=self._is_broken, lines=tuple(self._lines))

    def _complain(self, line: str) -> None:
        self._is_broken = True
        self._lines.append(line)

    def _collect(self) -> list[tuple[str, Head]]:
        seen: list[tuple[str, Head]] = []
        before = self._remembered.load()
        if before is not None:
            seen.append((_OURSELVES, before))
        agents = []
        for witness in self._api.list_witnesses():
            who = f"agent {witness.agent_name} ({witness.agent})"
            agents.append(witness.agent)
            try:
                signed = open_witnesses(witness)
            except InvalidInput as error:
                self._complain(f"{who}: what the server shows was not signed by it: {error.detail}")
                continue
            heads = {Head(*head) for heartbeat in signed.all() for head in heartbeat.server_heads}
            seen += [(who, head) for head in sorted(heads)]
            for problem in self._logs.check(signed):
                self._complain(f"{who}: its own log: {problem}")
        for agent in self._logs.missing(agents):
            self._lines.append(f"agent {agent}: the server shows nothing of it any more")
        return seen

    def _contradict(self, witnessed: Witnessed, where: str) -> None:
        for who, head in witnessed.contradictions:
            self._complain(
                f"{who} saw entry {head.seq} as {head.sha256}, which does not stand in {where}: "
                "history was rewritten"
            )

    def _compare_rest(self, witnessed: Witnessed, chain: Chain, found: Collection[tuple[str, Head]]) -> None:
        for who, head in witnessed.left():
            if head.seq > chain.head.seq:
                self._complain(
                    f"{who} saw entry {head.seq}, but the log ends at {chain.head.seq}: "
                    "history is withheld or was rewritten"
                )
            elif (who, head) not in found:
                self._lines.append(
                    f"{who} saw entry {head.seq}, from before the log begins: it cannot be compared"
                )


def open_witnesses(witness: Witness) -> SignedLogs:
    """Verify what the server shows of one agent.

    Raises:
        InvalidInput: where the agent did not sign it.

    """
    try:
        public_key = base64.b64decode(witness.public_key, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("bad-document", "its public key is not base64") from None

    def opened(envelope: SignedEnvelope) -> Heartbeat:
        return open_witness(envelope.encode(), public_key, witness.agent)

    return SignedLogs(
        opened(witness.envelope),
        None if witness.earlier is None else opened(witness.earlier),
        tuple(map(opened, witness.contradiction[:2])),
    )


def read_export(path: Path) -> Iterator[bytes]:
    """Yield the entries of an exported log, by their exact bytes.

    Raises:
        InvalidInput: `usage` where it cannot be read.

    """
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_ENTRY_BYTES + 2):
                yield line.removesuffix(b"\n")
    except OSError as error:
        raise InvalidInput("usage", f"{path}: {error.strerror}") from None


def check_export(path: Path, witnessed: Witnessed | None = None) -> Head:
    """Check an exported log, and return its head; what others have seen is compared on the way.

    Raises:
        InvalidInput: `usage` where it cannot be read; `broken-chain`.

    """
    chain = Chain()
    try:
        for line in read_export(path):
            chain.add(line)
            if witnessed is not None:
                witnessed.passed(chain.head)
        chain.require_complete()
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{path}: {error.detail}") from None
    return chain.head

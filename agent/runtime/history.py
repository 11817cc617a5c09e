"""The machine's own log, for its owner: in plain language, and checked (`mig-agent log`).

The chain shows that nothing was changed behind the agent's back; what investigators signed is kept and
verified anew, by the policy and the keys of this agent, as of the time at which it was asked.
"""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence

from agent.runtime.audit import ASKED_DIRECTORY, AUDIT_FILE, read_lines
from agent.runtime.state import environment_failure
from protocol.audit import Chain, Entry, decode_entry, is_sha256
from protocol.envelope import ACTION, decode_envelope
from protocol.errors import CODES, InvalidInput
from protocol.keyring import Keyring
from protocol.names import is_fingerprint


class Checked(NamedTuple):
    """What a check of the log found: contradictions, what cannot be checked, and how much was good."""

    wrong: List[str]
    unknown: List[str]
    entries: int
    signed: int


def read_history(directory: Path) -> Iterator[bytes]:
    """Yield the entries of the log in a state directory, by their exact bytes; a line under way is left out.

    Raises:
        EnvironmentFailure: `state-failed`.

    """
    path = directory / AUDIT_FILE
    try:
        for line in read_lines(path):
            if line.endswith(b"\n"):
                yield line[:-1]
    except OSError as error:
        raise environment_failure(error, path) from None


class Narrator:
    """Says what entries mean; `keyrings` know investigators' names."""

    def __init__(self, keyrings: Sequence[Keyring]) -> None:
        self._keyrings = keyrings
        self._names: Dict[str, str] = {}  # actions that were let in
        self._highest = 0
        self._said: Dict[str, Callable[[Entry], str]] = {
            "started": self._started,
            "asked": self._asked,
            "answered": self._answered,
            "refused": self._refused,
            "cancelled": self._cancelled,
            "trust": self._trust,
            "trust-expired": self._trust_expired,
            "watcher-ended": self._watcher_ended,
            "removing": lambda entry: f"the agent removes itself, by command {entry.what.get('command')}",
            "ignored": self._ignored,
            "notice": self._notice,
            "checkpoint": self._checkpoint,
        }

    def tell(self, line: bytes) -> str:
        """Return one entry as one line for people.

        Raises:
            InvalidInput: where it is no entry.

        """
        entry = decode_entry(line)
        say = self._said.get(entry.kind)
        said = say(entry) if say else f"{entry.kind}: {entry.what}"
        lost = entry.what.get("lost_before")
        missing = f" ({lost} entries before this one could not be written)" if lost else ""
        return f"{entry.time[:19].replace('T', ' ')} UTC  {said}{missing}"

    def name(self, fingerprint: str) -> str:
        """Return an investigator's name, where a key here has one, and the fingerprint."""
        for keyring in self._keyrings:
            certificate = keyring.find(fingerprint)
            if certificate is not None and certificate.user_ids:
                return f"{certificate.user_ids[0]} ({fingerprint})"
        return fingerprint

    def _who(self, entry: Entry) -> str:
        return " and ".join(map(self.name, entry.who)) or "somebody"

    def _title(self, entry: Entry) -> str:
        action = str(entry.what.get("action"))
        return f'"{self._names[action]}"' if action in self._names else f"action {action}"

    def _checkpoint(self, entry: Entry) -> str:
        return f"the log was shortened: it begins at entry {entry.what.get('first')}"

    def _started(self, entry: Entry) -> str:
        return f"the agent started, version {entry.what.get('version')} (build {entry.what.get('build')})"

    def _watcher_ended(self, entry: Entry) -> str:
        return f"{entry.what.get('module')} watches no more: {entry.what.get('reason')}"

    def _asked(self, entry: Entry) -> str:
        what = entry.what
        self._names[str(what.get("action"))] = str(what.get("name"))
        modules = ", ".join(map(str, what.get("modules", ())))
        occurrence = f", the run of {what['occurrence']}" if what.get("occurrence") else ""
        return (
            f'{self._who(entry)} asked "{what.get("name")}" with {modules}{occurrence}, '
            f"of all machines where {what.get('target')} (action {what.get('action')})"
        )

    def _answered(self, entry: Entry) -> str:
        status, problem = entry.what.get("status"), entry.what.get("problem")
        why = f", {_explain(str(problem))}" if problem else ""
        ended = "it ran, and the answer was sent" if status == "done" else f"it ended: {status}"
        return f"answered {self._title(entry)}: {ended}{why}"

    def _refused(self, entry: Entry) -> str:
        what = entry.what
        more = f" ({what['left_out']} refusals before it are not listed)" if what.get("left_out") else ""
        name = f'"{what.get("name")}" ' if what.get("name") else ""
        return (
            f"refused {name}(action {what.get('action')}) at step {what.get('step')}: "
            f"{_explain(str(what.get('code')))}; nothing of it was run{more}"
        )

    def _cancelled(self, entry: Entry) -> str:
        return f"{self._who(entry)} cancelled {self._title(entry)}"

    def _trust(self, entry: Entry) -> str:
        return f"trust bundle {entry.what.get('version')} is in force: it says whom this machine obeys"

    def _trust_expired(self, entry: Entry) -> str:
        version = entry.what.get("version")
        bundle = f"trust bundle {version}" if version else "what was built in to say whom to obey"
        return f"{bundle} has expired: nobody is obeyed until a newer bundle comes"

    def _ignored(self, entry: Entry) -> str:
        return f"ignored {entry.what.get('deliveries')} messages that nobody trusted here had signed"

    def _notice(self, entry: Entry) -> str:
        seq = entry.what.get("seq")
        told = f"the server {entry.what.get('server')} said that its own log has {seq} entries"
        if isinstance(seq, int) and seq <= self._highest:
            return f"{told}, but {self._highest} were seen before: it is not the same log"
        self._highest = seq if isinstance(seq, int) else self._highest
        return told


def _explain(code: str) -> str:
    return CODES[code].text if code in CODES else code


def check_history(directory: Path, keyrings: Sequence[Keyring]) -> Checked:
    """Check the chain, and every kept envelope's bytes and signatures as of the time of its entry.

    Raises:
        EnvironmentFailure: `state-failed`.

    """
    checked = Checked([], [], 0, 0)
    chain = Chain()
    signed = 0
    try:
        for line in read_history(directory):
            entry = chain.add(line)
            if entry.kind == "asked":
                signed += _check_asked(directory, entry, keyrings, checked)
        chain.require_complete()
    except InvalidInput as error:
        checked.wrong.append(error.detail)
    return checked._replace(entries=chain.head.seq, signed=signed)


def _check_asked(directory: Path, entry: Entry, keyrings: Sequence[Keyring], checked: Checked) -> int:
    """Check one entry; return 1 where what it says was signed."""
    where = f"entry {entry.seq}, action {entry.what.get('action')}"
    name = str(entry.what.get("envelope", ""))
    try:
        body = (directory / ASKED_DIRECTORY / name).read_bytes() if is_sha256(name) else b""
    except OSError:
        body = b""
    if not body:
        checked.unknown.append(f"{where}: what was signed is no longer kept")
        return 0
    try:
        _require_kept(entry, body)
        _require_signed(entry, body, keyrings)
    except InvalidInput as error:
        (checked.unknown if error.code == "not-found" else checked.wrong).append(f"{where}: {error.detail}")
        return 0
    return 1


def _require_kept(entry: Entry, body: bytes) -> None:
    """Raise unless these bytes are what the entry says was let in.

    Raises:
        InvalidInput: `broken-chain`, or what is wrong with the envelope.

    """
    if hashlib.sha256(body).hexdigest() != entry.what.get("envelope"):
        raise InvalidInput("broken-chain", "the kept envelope is not the one that was let in")
    if decode_envelope(body, ACTION).digest != entry.what.get("sha256"):
        raise InvalidInput("broken-chain", "the entry names another action than the kept envelope")


def _require_signed(entry: Entry, body: bytes, keyrings: Sequence[Keyring]) -> None:
    """Raise unless everybody whom the entry names has signed, by the policy of that time.

    Raises:
        InvalidInput: `bad-signature`; `not-found` where a key is not here any more.

    """
    envelope = decode_envelope(body, ACTION)
    time = datetime.fromisoformat(entry.time.replace("Z", "+00:00"))
    signers = frozenset().union(*(keyring.signers(envelope, time).fingerprints for keyring in keyrings))
    known = frozenset().union(*(keyring.fingerprints for keyring in keyrings))
    for who in entry.who:
        if who in signers:
            continue
        if who in known or not is_fingerprint(who):
            raise InvalidInput("bad-signature", f"{who} has not signed what is kept")
        raise InvalidInput("not-found", f"the key of {who} is not here any more")
    if not entry.who:
        raise InvalidInput("bad-signature", "it names nobody who signed")

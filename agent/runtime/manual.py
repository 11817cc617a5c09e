"""Actions run or judged by hand on the endpoint: `mig-agent action FILE` and `mig-agent verify FILE`.

A signed action takes the same way as one from the broker: gate, journal, child. It needs the state directory
for itself, so that there is one writer of the journal; while the resident holds it, it is refused. What it
answers is printed here and goes nowhere, so that nothing is sealed, whatever the action says.
"""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from agent.config import Baked
from agent.facts import collect_facts, machine_id
from agent.registry import module_names
from agent.runtime.answers import NO_OCCURRENCE
from agent.runtime.audit import AuditLog
from agent.runtime.digest_cache import open_digest_cache
from agent.runtime.gate import Gate, RequireNotRun, Verdict, make_endpoint
from agent.runtime.identity import load_identity
from agent.runtime.journal import Journal, read_journal
from agent.runtime.loop import SelectorLoop
from agent.runtime.state import IDENTITY_FILE, lock_state_directory, open_state_directory
from agent.runtime.supervisor import Answer, Supervisor
from agent.runtime.trust import Trust, decode_told_trust, resolve_trust
from agent.runtime.trust_store import TrustStore, encode_trust, read_held
from protocol.envelope import ACTION, decode_envelope
from protocol.errors import EnvironmentFailure
from protocol.keyring import Keyring
from protocol.openpgp import parse_certificate

JOURNAL_FILE = "journal"


def _collect_facts(baked: Baked, agent_id: str) -> Dict[str, Any]:
    return collect_facts(
        agent_id=agent_id, version=baked.version, tags=baked.config.tags, modules=module_names()
    )


def load_trust(baked: Baked, directory: Path, now: datetime) -> Trust:
    """Return whom the agent of a state directory obeys now; nothing is written.

    Raises:
        EnvironmentFailure: `state-failed`.
        InvalidInput: `bad-config` or `bad-key`, of this agent's own.

    """
    return resolve_trust(decode_told_trust(encode_trust(baked, read_held(directory), now)))


def load_keyrings(baked: Baked, directory: Path, now: datetime) -> Tuple[Keyring, ...]:
    """Return the keys of the bundle of now and those built in, to check what was signed before.

    Raises:
        EnvironmentFailure: `state-failed`.
        InvalidInput: `bad-config` or `bad-key`, of this agent's own.

    """
    built_in = Keyring(map(parse_certificate, baked.keys))
    return load_trust(baked, directory, now).keyring, built_in


def _make_gate(
    body: bytes, trust: Trust, facts: Dict[str, Any], now: datetime, require_not_run: RequireNotRun
) -> Gate:
    return Gate(body, trust=trust, endpoint=make_endpoint(facts), now=now, require_not_run=require_not_run)


def judge_action(
    body: bytes, baked: Baked, trust: Trust, directory: Path, now: datetime
) -> Iterator[Verdict]:
    """Yield the gate's verdicts on a delivery, up to the first refusal; nothing is written and nothing run.

    Raises:
        EnvironmentFailure: `state-failed`.
        InvalidInput: `bad-config` or `bad-key`, of this agent's own.

    """
    # An agent that has never run has no id yet; no target that names one can match it.
    agent_id = load_identity(directory, machine_id()).agent_id if (directory / IDENTITY_FILE).exists() else ""
    view = read_journal(directory / JOURNAL_FILE)
    return _make_gate(body, trust, _collect_facts(baked, agent_id), now, view.require_not_run).judge()


def run_action(body: bytes, baked: Baked, directory: Path, clock: Callable[[], datetime]) -> Dict[str, Any]:
    """Run a signed action through gate and journal and return its `Result` as JSON members.

    Raises:
        Refusal: by the gate.
        EnvironmentFailure: `state-in-use` while the agent runs as a service; `state-failed`, `disk-full`.
        InvalidInput: `bad-config`, `bad-key` or `unsafe-file`, of this agent's own.

    """
    open_state_directory(directory)
    with lock_state_directory(directory):
        # Before the identity, which without a mark beside it waits for a bundle.
        store = TrustStore(directory, has_roots=bool(baked.config.trust.roots))
        agent_id = load_identity(directory, machine_id()).agent_id
        now = clock()
        trust = load_trust(baked, directory, now)
        view = read_journal(directory / JOURNAL_FILE)
        # Here for its words: what decides is the child's gate and the journal's insert.
        _make_gate(body, trust, _collect_facts(baked, agent_id), now, view.require_not_run).admit()
        journal = Journal(directory / JOURNAL_FILE, clock=clock)
        audit = AuditLog(directory, clock=clock)
        try:
            return _supervise(
                body,
                baked,
                directory=directory,
                store=store,
                agent_id=agent_id,
                journal=journal,
                audit=audit,
                clock=clock,
            )
        finally:
            audit.close()
            journal.close()


def _supervise(
    body: bytes,
    baked: Baked,
    *,
    directory: Path,
    store: TrustStore,
    agent_id: str,
    journal: Journal,
    audit: AuditLog,
    clock: Callable[[], datetime],
) -> Dict[str, Any]:
    loop = SelectorLoop()
    answers: List[Answer] = []
    digest_cache = open_digest_cache(baked, directory)
    # Not started: what a crash left in the journal is the resident's to answer.
    supervisor = Supervisor(
        loop=loop,
        journal=journal,
        baked=baked._replace(config=baked.config._replace(warm_child=False)),
        agent_id=agent_id,
        facts=lambda: _collect_facts(baked, agent_id),
        held=lambda: store.held,
        clock=clock,
        on_answer=answers.append,
        audit=audit,
        digest_cache=digest_cache,
    )
    try:
        supervisor.submit(body, lambda: None)
        loop.run_until(lambda: bool(answers) or supervisor.failure is not None or supervisor.is_idle)
        if not answers:
            raise supervisor.failure or EnvironmentFailure("child-failed", "judging it ended the child")
        result: Dict[str, Any] = json.loads(answers[0].payload)
        return result
    finally:
        supervisor.close()
        loop.close()
        if digest_cache is not None:
            os.close(digest_cache)
        # Its answer was for whoever asked here; cut short, there is none and it does not run again.
        digest = decode_envelope(body, ACTION).digest
        if journal.state_of(digest, NO_OCCURRENCE) is not None:
            journal.mark_answered(digest, NO_OCCURRENCE)

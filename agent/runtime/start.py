"""Starts the resident agent on a state directory: what is read and locked before it, and what comes after it.

Standard library only, beside what the resident imports.
"""

import logging
from pathlib import Path
from typing import Optional

from agent.config import load_baked
from agent.facts import machine_id
from agent.runtime.identity import load_identity
from agent.runtime.removal import Removal
from agent.runtime.resident import Resident
from agent.runtime.state import lock_state_directory, open_state_directory
from agent.runtime.token import find_token
from agent.runtime.trust_store import TrustStore

_LOG = logging.getLogger("mig.agent")


def run_resident(directory: Path, *, token_file: Optional[Path] = None, check_in: bool = False) -> None:
    """Run the resident agent on a state directory until it is told to end.

    Args:
        directory: the state directory; made where it is missing.
        token_file: holds the enrolment token to show, instead of the usual place's or the baked one.
        check_in: connect, take what waits, answer, and end; for endpoints that run the agent from cron.

    Raises:
        EnvironmentFailure: `state-in-use`, `state-failed`, `disk-full`.
        InvalidInput: `bad-config`, `bad-token`, `unsafe-file`.

    """
    baked = load_baked()
    token = find_token(token_file, baked.config.enrolment_token)
    open_state_directory(directory)
    with lock_state_directory(directory):
        removal = Removal(directory, baked.version)
        if removal.is_confirmed:  # a crash came in between; the identity may be gone already
            removal.carry_out()
            return
        # Before the identity, which without a mark beside it waits for a bundle.
        trust = TrustStore(directory, has_roots=bool(baked.config.trust.roots))
        identity = load_identity(directory, machine_id())
        said = {"agent": identity.agent_id, "version": baked.version, "new": identity.is_new}
        _LOG.info("starting", extra=said)
        Resident(
            baked=baked,
            directory=directory,
            identity=identity,
            trust=trust,
            token=token,
            check_in=check_in,
        ).run()
        removal = Removal(directory, baked.version)
        if removal.is_confirmed:
            removal.carry_out()

"""Takes a signed action in: everything that the server can refuse before an agent would.

Nothing here protects an endpoint; its own gate does. What is refused here would be refused there, later and
by everyone, or could help nobody.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from protocol.action import Action, decode_action
from protocol.envelope import ACTION, decode_envelope
from protocol.errors import InvalidInput
from protocol.target import Target, parse_target
from server.config import ServerConfig
from server.rows import CreatedAction, InvestigatorRow, Manner
from server.services import Services
from server.signers import require_signers

# Agents allow 7 days unless built otherwise; beyond 49 days the broker knows no time to live (2^32 ms).
MAX_VALIDITY = timedelta(days=31)
MAX_SCHEDULE = timedelta(days=90)  # each of its occurrences lives for its grace only


class Checked(NamedTuple):
    """An action whose signatures, shape and target were found good."""

    action: Action
    target: Target
    digest: str
    signers: frozenset[str]


async def submit_action(
    services: Services, body: bytes, submitter: str, manner: Manner
) -> tuple[str, CreatedAction]:
    """Check and store an action, and wake the scheduler; return its id and what became of it.

    Args:
        services: the server's parts.
        body: the envelope as it came.
        submitter: fingerprint of the session, which has the right `submit`.
        manner: how it is to be sent.

    Raises:
        InvalidInput: what is wrong with envelope, signatures, action, validity or target; `conflict` where
            the id is taken; `usage` for a manner that does not fit; `no-agents` where nobody is meant,
            `too-many-agents` where it means more than the submitter may have thought of.

    """
    database, store = services.database, services.store
    now = services.clock()
    investigators = await database.read(store.list_investigators)
    checked = await asyncio.to_thread(check_action, body, investigators, now)
    agent_ids: Sequence[str] = ()
    # The same action again needs no agents, and may have expired: it tells what became of it.
    if await database.read(store.get_action, checked.action.id) is None:
        _require_valid_now(checked.action, now)
        agent_ids = await database.read(store.find_commanded, checked.target, now)
        # A recurring action may be for endpoints that are yet to come.
        if not agent_ids and checked.action.schedule is None:
            raise InvalidInput("no-agents", f"no agent matches {checked.target}")
        _require_manner(services.config, checked.action, manner, len(agent_ids))
    created = await database.run(
        store.create_action,
        checked.action,
        body,
        checked.digest,
        sorted(checked.signers),
        submitter,
        agent_ids,
        now,
        manner=manner,
    )
    if created.commands or created.is_new:
        services.wake.set()
    return checked.action.id, created


def check_action(body: bytes, investigators: Sequence[InvestigatorRow], now: datetime) -> Checked:
    """Verify, then decode the same bytes. Takes milliseconds of computing: not for the event loop.

    Raises:
        InvalidInput: `too-large`, `bad-json`, `bad-envelope`, `wrong-type`, `unsigned`, `bad-signature`,
            `forbidden`, `bad-action` or `bad-target`.

    """
    envelope = decode_envelope(body, ACTION)
    signers = require_signers(envelope, investigators, now)
    if not any(row.fingerprint in signers and "submit" in row.rights for row in investigators):
        raise InvalidInput("forbidden", "no signer of the action has the right 'submit'")
    action = decode_action(envelope.payload)
    return Checked(action, parse_target(action.target), envelope.digest, signers)


def _require_manner(config: ServerConfig, action: Action, manner: Manner, count: int) -> None:
    if manner.pacing is not None and action.schedule is not None:
        raise InvalidInput("usage", "an action with a schedule cannot be paced")
    if not manner.is_wide and count > config.max_agents:
        raise InvalidInput(
            "too-many-agents",
            f"{count:,} agents match, at most {config.max_agents:,} are asked unless all are meant: "
            "mig ... --all-agents, or all=true in the query",
        )


def _require_valid_now(action: Action, now: datetime) -> None:
    allowed = MAX_VALIDITY if action.schedule is None else MAX_SCHEDULE
    if action.expireafter - action.validfrom > allowed:
        raise InvalidInput(
            "validity-too-long", f"such an action may be valid for {allowed.days} days at most"
        )
    if now >= action.expireafter:
        raise InvalidInput("expired", f"the action expired at {action.expireafter.isoformat()}")
    if now < action.validfrom:
        late = int((action.validfrom - now).total_seconds()) + 1
        raise InvalidInput("not-yet-valid", f"by the server's clock the action becomes valid in {late} s")

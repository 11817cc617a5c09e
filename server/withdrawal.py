"""Takes a signed cancel in: what the server can refuse before an agent would, and whom to tell."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from protocol.cancel import Cancel, decode_cancel
from protocol.documents import Cancelled
from protocol.envelope import CANCEL, decode_envelope
from protocol.errors import InvalidInput
from protocol.target import parse_target
from server.rows import ActionRow, InvestigatorRow
from server.services import Services
from server.signers import require_signers


async def cancel_action(services: Services, row: ActionRow, body: bytes, submitter: str) -> Cancelled:
    """Check and keep a cancel, and wake the scheduler, which sends it.

    Args:
        services: the server's parts.
        row: the action that it is for.
        body: the envelope as it came.
        submitter: fingerprint of the session, which has the right `submit`.

    Raises:
        InvalidInput: what is wrong with envelope or signatures; `forbidden` where nobody who signed it may
            cancel this action; `conflict` where it names other bytes; `expired`.

    """
    database, store = services.database, services.store
    now = services.clock()
    investigators = await database.read(store.list_investigators)
    signers = await asyncio.to_thread(check_cancel, body, row, investigators, now)
    agent_ids = set(await database.read(store.list_concerned, row.id))
    if row.occurrence is not None:
        # Whoever holds the platform next could trigger it on endpoints that were never asked so far.
        agent_ids |= set(await database.read(store.find_commanded, parse_target(row.target), now))
    whom = sorted(agent_ids)
    changes = await database.run(store.save_cancel, row.id, body, sorted(signers), submitter, whom, now)
    services.events.publish(changes)
    services.wake.set()
    return Cancelled(id=row.id, cancelled=len(changes), agents=len(whom))


def check_cancel(
    body: bytes, row: ActionRow, investigators: Sequence[InvestigatorRow], now: datetime
) -> frozenset[str]:
    """Verify, then decode the same bytes; return who signed. Computes: not for the event loop.

    Raises:
        InvalidInput: as `cancel_action`.

    """
    envelope = decode_envelope(body, CANCEL)
    signers = require_signers(envelope, investigators, now)
    cancel: Cancel = decode_cancel(envelope.payload)
    managers = {investigator.fingerprint for investigator in investigators if "manage" in investigator.rights}
    if not signers & ({*row.signers} | managers):
        raise InvalidInput("forbidden", "it is signed by nobody who signed the action or may manage")
    if (cancel.action, cancel.action_sha256, cancel.expireafter) != (row.id, row.digest, row.expireafter):
        raise InvalidInput("conflict", "the cancel is for another action, or other bytes of it")
    if row.expireafter <= now:
        raise InvalidInput("expired", f"the action expired at {row.expireafter.isoformat()}")
    return signers

"""The audit log: its entries by their exact bytes, and what agents have signed of its heads."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from protocol.documents import AuditHead, AuditPage, WitnessPage
from server.api.access import needs
from server.api.agents import Limit
from server.api.described import SECURED, refusals
from server.api.documents import witness_document
from server.services import Services

_MAX_SEQ = (1 << 63) - 1
After = Annotated[int, QueryParameter(ge=0, le=_MAX_SEQ, description="entries behind this one")]
AfterAgent = Annotated[str, QueryParameter(pattern=r"^([0-9a-f]{32})?$", description="agents behind this id")]


@get(
    "/audit",
    summary="Read the audit log",
    tags=["audit"],
    guards=[needs("manage")],
    security=SECURED,
    responses=refusals(400, 401, 403, 503),
)
async def read_audit(services: NamedDependency[Services], after: After = 0, limit: Limit = 100) -> AuditPage:
    """Return one page of entries, the oldest first, and the log's head of that moment.

    Each entry is the exact text that was hashed: its SHA-256 is what the next one names as `previous`.
    """
    entries, head = await services.database.read(services.store.list_audit, after, limit)
    last = entries[-1][0] if entries else after
    return AuditPage(
        head=AuditHead(seq=head.seq, sha256=head.sha256),
        entries=tuple(entry.decode("utf-8") for _, entry in entries),
        next=last if last < head.seq else None,
    )


@get(
    "/audit/witnesses",
    summary="Show what agents have seen of the audit log",
    tags=["audit"],
    guards=[needs("manage")],
    security=SECURED,
    responses=refusals(400, 401, 403, 503),
)
async def list_witnesses(
    services: NamedDependency[Services], after: AfterAgent = "", limit: Limit = 100
) -> WitnessPage:
    """Return, for each agent that has seen a head, the newest heartbeat in which it signed what it saw."""
    rows = await services.database.read(services.store.list_witnesses, after, limit)
    return WitnessPage(
        witnesses=tuple(map(witness_document, rows)), next=rows[-1].agent_id if len(rows) == limit else None
    )

"""Holds the audit log against the heads that agents have signed, as far as this server can: for the doctor.

What agents signed lies in the same database as the log, so this finds a backup that was restored, and who
forgot something; not who wrote both anew. `mig audit verify` does: it verifies elsewhere, and remembers.
"""

from typing import NamedTuple

from protocol.errors import InvalidInput
from protocol.witness import open_witness
from server.rows import WitnessRow
from server.store import Store

_PAGE = 500


class LogFindings(NamedTuple):
    """How many agents have signed, and of whom the server's log or their own is not what they signed."""

    agents: int
    rewritten: list[str]
    contradicted: list[str]


def compare_witnesses(store: Store) -> LogFindings:
    """Compare every agent's newest heartbeat that names heads."""
    ids: list[str] = []
    rewritten: list[str] = []
    after = ""
    while page := store.list_witnesses(after, _PAGE):
        after = page[-1].agent_id
        signed = {row.agent_id: heads for row in page if (heads := _signed_heads(row)) is not None}
        ids += signed
        found = store.find_heads({seq for heads in signed.values() for seq in heads})
        first = store.first_audit_entry()
        for agent_id, heads in signed.items():
            seen = [(seq, sha256) for seq, sha256 in heads.items() if seq >= first]
            if any(seq not in found or found[seq].sha256 != sha256 for seq, sha256 in seen):
                rewritten.append(agent_id)
    return LogFindings(len(ids), rewritten, sorted(store.find_contradicted(ids)))


def _signed_heads(row: WitnessRow) -> dict[int, str] | None:
    """Return the heads by their numbers; None where the agent has not signed what is kept."""
    try:
        heartbeat = open_witness(row.envelope, row.public_key, row.agent_id)
    except InvalidInput:
        return None
    return dict(heartbeat.server_heads)

"""What the server's API answers of alerts (beside `protocol.documents`)."""

from datetime import datetime
from typing import Optional, Tuple

import msgspec

from protocol.documents import AgentName, PublicKey, SignedEnvelope


class AlertItem(msgspec.Struct, frozen=True, kw_only=True):
    """One alert: only what stands in the envelope is the agent's word."""

    seq: int
    digest: str
    agent: str
    agent_name: AgentName
    public_key: PublicKey
    received: datetime
    envelope: SignedEnvelope


class AlertPage(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts in the order in which they came; `next` is where to go on, null where there is no more.

    `last` is the number of the newest alert of all.
    """

    alerts: Tuple[AlertItem, ...]
    next: Optional[int] = None
    last: int = 0

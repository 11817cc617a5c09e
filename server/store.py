"""The store: everything that the server remembers. One suite of tests holds it on SQLite and PostgreSQL.

Promises:
1. Each method is one transaction; when it has returned, what it did survives a crash and a power cut.
2. Every method can be called twice with the same arguments and the second call changes nothing.
3. Commands change only along the table of `protocol.command`.
4. What the audit log is to say is appended in the same transaction as what it records.
5. Methods block: the event loop calls them through `Database.run` and `Database.read`.
"""

from server.store_access import AccessStore
from server.store_actions import ActionStore
from server.store_agents import AgentStore
from server.store_alerts import AlertStore
from server.store_audit import AuditStore
from server.store_campaigns import CampaignStore
from server.store_cancels import CancelStore
from server.store_commands import CommandStore
from server.store_counts import CountStore
from server.store_enrolment import EnrolmentStore
from server.store_logins import LoginStore
from server.store_retention import RetentionStore
from server.store_schedules import ScheduleStore
from server.store_trust import TrustStore
from server.store_webhooks import WebhookStore
from server.store_witnesses import WitnessStore


class Store(
    AgentStore,
    EnrolmentStore,
    ActionStore,
    CommandStore,
    AccessStore,
    LoginStore,
    AuditStore,
    ScheduleStore,
    CancelStore,
    CampaignStore,
    RetentionStore,
    TrustStore,
    CountStore,
    WitnessStore,
    AlertStore,
    WebhookStore,
):
    """All subjects of the store over one database."""

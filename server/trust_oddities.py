"""What is wrong with agents' trust and the newest bundle, for people: in `mig agents` and the doctor.

All of it is what agents say of themselves, signed; nothing here decides whom anybody obeys.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from server.rows import AgentRow, PublishedRow

# Whoever holds the roots needs a while to meet: two weeks of the 90 days that a bundle is good by default.
SOON = timedelta(days=14)
_ARRIVAL = timedelta(hours=1)  # an agent that is heard gets a bundle within minutes


class TrustProblems(NamedTuple):
    """Ids of the enrolled agents that obey nobody, that soon will, and that lag behind."""

    nobody: list[str]
    soon: list[str]
    behind: list[str]


def trust_warnings(row: AgentRow, newest: PublishedRow | None, now: datetime) -> Iterator[str]:
    """Yield one line for each thing that a person should look into."""
    if row.enrolment != "enrolled":
        return
    held = f"trust bundle {row.trust_version}" if row.trust_version else "what was baked into it"
    if obeys_nobody(row, now):
        why = "it waits for a trust bundle"
        if row.trust_state != "missing":
            why = f"{held} expired {_day(row.trust_expires)}"
        yield f"it obeys nobody: {why}"
    elif _expires_soon(row, now):
        yield f"{held} expires {_day(row.trust_expires)}, then it obeys nobody: publish a newer bundle"
    if newest is not None and is_behind(row, newest):
        yield f"it obeys {held}, while bundle {newest.version} is published since {_day(newest.published)}"


def obeys_nobody(row: AgentRow, now: datetime) -> bool:
    """Tell whether no action of anybody would be run there, by its own word or because time has passed."""
    if row.trust_expires is not None and now >= row.trust_expires:
        return True
    return row.trust_state is not None and row.trust_state != "in-force"


def is_behind(row: AgentRow, newest: PublishedRow) -> bool:
    """Tell whether an agent was heard well after a bundle's publication, and does not hold it."""
    if row.enrolment != "enrolled" or row.heartbeattime is None or row.trust_version is None:
        return False
    return row.trust_version < newest.version and row.heartbeattime - newest.published > _ARRIVAL


def describe_published(newest: PublishedRow, now: datetime) -> str:
    """Say which bundle is published, and until when it is good."""
    return f"bundle {newest.version} is published, good until {_day(newest.expires)}" + (
        "" if now < newest.expires else ": it has expired, and agents that hold it obey nobody"
    )


def find_problems(agents: Sequence[AgentRow], newest: PublishedRow | None, now: datetime) -> TrustProblems:
    """Look at all agents."""
    enrolled = [row for row in agents if row.enrolment == "enrolled"]
    nobody = [row.id for row in enrolled if obeys_nobody(row, now)]
    soon = [row.id for row in enrolled if not obeys_nobody(row, now) and _expires_soon(row, now)]
    behind = [row.id for row in enrolled if newest is not None and is_behind(row, newest)]
    return TrustProblems(nobody, soon, behind)


def _expires_soon(row: AgentRow, now: datetime) -> bool:
    return row.trust_expires is not None and row.trust_expires - now < SOON


def _day(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}"

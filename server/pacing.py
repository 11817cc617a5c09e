"""How a paced action is let out: in waves, so many at a time, so many a second; and when it is stopped.

Rules:
1. Wave n has as many commands as its number says, the last wave all the rest. A wave begins when the one
   before is over: all its commands have ended, or none of them waits to be sent and `wave_wait_s` have passed
   since the last of them was sent or acknowledged. So an agent that went away holds up nobody for longer.
2. Under way is what was let out and has not ended. What was sent `wave_wait_s` ago and never acknowledged
   does not count: its agent is away.
3. `rate` is kept over any second: what could not go out while something else held it up is not made up for.
4. Failed are answers that say so: `failed`, `timed-out` and `refused`. An agent that is silent, or whose
   command expired, has said nothing and counts on neither side.
5. The share of failed answers is judged once there are `MIN_ANSWERS`, and at the end of each wave however few
   there are: a first wave of one that fails ends it all.

Nothing here reads a clock or a database: the store tells how a campaign stands, and does what is decided.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from protocol.documents import Pacing

MIN_ANSWERS = 10
_TICK = timedelta(milliseconds=100)  # what a high rate lets out goes out together so often
_CREDIT = timedelta(seconds=1)


class Standing(NamedTuple):
    """What the database says of a running campaign.

    `wave`, `in_wave`, `unsent` and `open_in_wave` are of the wave that goes out: its number, how many of its
    commands were let out, wait to be sent, have not ended. `last_sent` is when one of these last was sent or
    acknowledged. `held` and `under_way` are of all waves, `oldest_sent` of those under way that are
    not acknowledged. The rate lets the next command out at `next_release`.
    """

    wave: int
    next_release: datetime
    held: int
    in_wave: int = 0
    unsent: int = 0
    open_in_wave: int = 0
    last_sent: datetime | None = None
    under_way: int = 0
    oldest_sent: datetime | None = None
    answered: int = 0
    failed: int = 0


class Decision(NamedTuple):
    """What to do: let out so many commands under this wave, or stop for a reason; and when to look again."""

    wave: int
    release: int
    next_release: datetime
    look_again: datetime | None = None
    stop_reason: str | None = None


def decide(pacing: Pacing, standing: Standing, now: datetime) -> Decision:
    """Decide what a running campaign that holds something back does now."""
    wait = timedelta(seconds=pacing.wave_wait_s)
    is_out = standing.in_wave >= _size(pacing, standing.wave, standing)
    over_at = standing.last_sent + wait if standing.last_sent is not None and not standing.unsent else None
    is_over = is_out and (standing.open_in_wave == 0 or (over_at is not None and over_at <= now))
    reason = _stop_reason(pacing, standing, is_over=is_over)
    if reason is not None:
        return Decision(standing.wave, 0, standing.next_release, stop_reason=reason)
    if is_out and not is_over:
        return Decision(standing.wave, 0, standing.next_release, look_again=over_at)
    wave, in_wave = (standing.wave + 1, 0) if is_over else (standing.wave, standing.in_wave)
    allowed = min(standing.held, _size(pacing, wave, standing) - in_wave)
    look_again = None
    if pacing.concurrency is not None and pacing.concurrency - standing.under_way < allowed:
        allowed = max(pacing.concurrency - standing.under_way, 0)
        look_again = standing.oldest_sent + wait if standing.oldest_sent is not None else None
    if pacing.rate is None or not allowed:
        return Decision(wave, allowed, standing.next_release, look_again)
    # A clock that was set back must not hold the next one up for longer than the rate does.
    start = min(max(standing.next_release, now - _CREDIT), now + timedelta(seconds=1 / pacing.rate))
    due = int((now - start).total_seconds() * pacing.rate) + 1 if start <= now else 0
    release = min(allowed, due)
    following = start + timedelta(seconds=release / pacing.rate)
    if release < allowed:
        look_again = max(following, now + _TICK)
    return Decision(wave, release, following, look_again)


def _size(pacing: Pacing, wave: int, standing: Standing) -> int:
    if wave <= len(pacing.waves):
        return pacing.waves[wave - 1]
    return standing.held + (standing.in_wave if wave == standing.wave else 0)


def _stop_reason(pacing: Pacing, standing: Standing, *, is_over: bool) -> str | None:
    if pacing.stop_at is None or not standing.failed or not (is_over or standing.answered >= MIN_ANSWERS):
        return None
    if standing.failed * 100 < pacing.stop_at * standing.answered:
        return None
    return (
        f"{standing.failed:,} of {standing.answered:,} answers failed, which is {pacing.stop_at:g}% or more; "
        f"wave {standing.wave:,}"
    )

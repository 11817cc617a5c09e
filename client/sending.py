"""How an action is to be sent: told to the server beside what is signed, since no agent needs to know it."""

import math
import re
from datetime import timedelta
from typing import Any, NamedTuple

import click

from client.action import parse_duration
from client.screen import printable
from protocol.documents import Campaign
from protocol.errors import InvalidInput

_MAX_COUNT = 1_000_000
_MAX_RATE = 10_000
_LONGEST_WAIT_S = 7 * 86400
_WAVES = re.compile(r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}){0,15}\Z")
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%?\Z")
_ALL_PERCENT = 100


class Sending(NamedTuple):
    """How an action is to be sent; what is None is left to the server."""

    is_wide: bool = False
    waves: str | None = None
    concurrency: int | None = None
    rate: float | None = None
    stop_at: float | None = None
    wave_wait_s: int | None = None

    @property
    def is_paced(self) -> bool:
        """Tell whether anything is to be held back."""
        return bool(self.waves or self.concurrency or self.rate)

    def query(self) -> dict[str, str]:
        """Return the parameters of the submission's query; of one like any other there are none."""
        members = {
            "all": "true" if self.is_wide else None,
            "waves": self.waves,
            "concurrency": self.concurrency,
            "rate": self.rate,
            "stop_at": self.stop_at,
            "wave_wait": self.wave_wait_s,
        }
        return {name: str(value) for name, value in members.items() if value is not None}

    def require_few(self, count: int, allowed: int | None) -> None:
        """Raise before anything is signed where the server would refuse so many agents.

        Args:
            count: the agents that match now.
            allowed: what the server said; None of one that has no such limit.

        Raises:
            InvalidInput: `too-many-agents`.

        """
        if allowed is not None and count > allowed and not self.is_wide:
            raise InvalidInput(
                "too-many-agents",
                f"{count:,} agents match, at most {allowed:,} are asked without --all-agents",
            )

    def too_slow(self, count: int, valid: timedelta) -> str:
        """Return why the last commands would expire before they are sent: by the rate alone; or nothing."""
        if self.rate is None or count / self.rate <= valid.total_seconds():
            return ""
        return (
            f"{count:,} agents at {self.rate:g} a second take {count / self.rate:,.0f} s, and the action "
            f"is valid for {valid.total_seconds():,.0f} s: say --expire"
        )

    def describe(self) -> str:
        """Return in words how the action goes out."""
        parts = []
        if self.waves:
            parts.append(f"in waves of {self.waves.replace(',', ', ')} and the rest")
        if self.concurrency:
            parts.append(f"{self.concurrency:,} at a time")
        if self.rate:
            parts.append(f"{self.rate:g} a second")
        if self.stop_at:
            parts.append(f"until {self.stop_at:g}% of the answers are failures")
        return ", ".join(parts)


def sending_options() -> list[click.Parameter]:
    """Return fresh options of commands that submit an action."""
    return [
        all_agents_option(),
        click.Option(
            ["--waves"],
            metavar="N,N...",
            help="So many agents at first, then so many, then the rest: 1,10. Each waits for the one before.",
        ),
        click.Option(
            ["--wave-wait"],
            metavar="DURATION",
            help="For who is silent a wave waits no longer than this. Default: 60s.",
        ),
        click.Option(
            ["--concurrency"], type=click.IntRange(1, _MAX_COUNT), help="At most so many agents at a time."
        ),
        click.Option(
            ["--rate"],
            type=click.FloatRange(0, _MAX_RATE, min_open=True),
            help="At most so many agents a second.",
        ),
        click.Option(
            ["--stop-at"],
            metavar="SHARE",
            help="Cancel what was not sent when this share of the answers are failures: 20%.",
        ),
    ]


def all_agents_option() -> click.Option:
    """Return a fresh option for what may reach more agents than usual."""
    return click.Option(
        ["--all-agents", "is_wide"],
        is_flag=True,
        help="It is meant for every agent that matches, also for more than the server's max_agents.",
    )


def choose_sending(options: dict[str, Any]) -> Sending:
    """Return what was chosen by `sending_options`.

    Raises:
        InvalidInput: `usage`.

    """
    waves, rate, wait = options.get("waves"), options.get("rate"), options.get("wave_wait")
    if waves is not None:
        waves = waves.replace(" ", "")
        if _WAVES.match(waves) is None:
            raise InvalidInput("usage", f"--waves {waves!r}: numbers of agents, at most 16, like 1,10")
    if rate is not None and math.isnan(rate):  # click compares, and no comparison finds it out of range
        raise InvalidInput("usage", "--rate is not a number")
    sending = Sending(
        is_wide=bool(options.get("is_wide")),
        waves=waves,
        concurrency=options.get("concurrency"),
        rate=rate,
        stop_at=_parse_share(options.get("stop_at")),
        wave_wait_s=None if wait is None else parse_duration(wait),
    )
    if sending.wave_wait_s is not None and sending.wave_wait_s > _LONGEST_WAIT_S:
        raise InvalidInput("usage", "--wave-wait is at most 7d")
    if not sending.is_paced and (sending.stop_at is not None or sending.wave_wait_s is not None):
        raise InvalidInput(
            "usage", "nothing is held back: --stop-at and --wave-wait need --waves, --concurrency or --rate"
        )
    return sending


def _parse_share(text: str | None) -> float | None:
    if text is None:
        return None
    found = _SHARE.match(text)
    if found is None or not 0 < float(found[1]) <= _ALL_PERCENT:
        raise InvalidInput("usage", f"--stop-at {text!r} is not a share above 0% and up to 100%")
    return float(found[1])


def campaign_text(campaign: Campaign) -> str:
    """Return how a paced action stands, by the server's word, on one safe line."""
    waves = campaign.pacing.waves
    wave = f"wave {campaign.wave:,} of {len(waves) + 1:,}" if waves else "paced"
    if campaign.state == "stopped":
        return f"stopped: {printable(campaign.reason, 300)}"
    return f"{wave}: {campaign.held:,} held back" if campaign.state == "running" else f"{wave}: all let out"

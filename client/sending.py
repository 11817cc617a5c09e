"""How an action is to be sent: told to the server beside what is signed, since no agent needs to know it."""

from typing import Any, NamedTuple

import click

from protocol.errors import InvalidInput


class Sending(NamedTuple):
    """How an action is to be sent."""

    is_wide: bool = False

    def query(self) -> dict[str, str]:
        """Return the parameters of the submission's query; of one like any other there are none."""
        return {"all": "true"} if self.is_wide else {}

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


def sending_options() -> list[click.Parameter]:
    """Return fresh options of commands that submit an action."""
    return [
        click.Option(
            ["--all-agents", "is_wide"],
            is_flag=True,
            help="It is meant for every agent that matches, also for more than the server's max_agents.",
        ),
    ]


def choose_sending(options: dict[str, Any]) -> Sending:
    """Return what was chosen by `sending_options`."""
    return Sending(is_wide=bool(options.get("is_wide")))

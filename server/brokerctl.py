"""RabbitMQ's own tools: what AMQP cannot do, such as closing somebody else's connection.

They work on the broker's host only, as root or as the broker's user. A private node writes scripts of its own
(`PrivateBroker`), which hold its environment.
"""

import json
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

from protocol.errors import EnvironmentFailure

_TIMEOUT_S = 60.0
_LAST = 300


class BrokerControl:
    """Runs `rabbitmqctl`, and the tools beside it; each call starts an Erlang machine: half a second."""

    def __init__(self, rabbitmqctl: Path) -> None:
        self.rabbitmqctl = rabbitmqctl

    def run(self, *words: str, secret: str | None = None, tool: str = "rabbitmqctl") -> str:
        """Run a command and return what it printed; `secret` goes to its standard input, not its arguments.

        Raises:
            EnvironmentFailure: `tool-missing`, or `broker-away` with what it said.

        """
        program = self.rabbitmqctl.with_name(tool)
        try:
            done = subprocess.run(
                [str(program), "--quiet", *words] if tool == "rabbitmqctl" else [str(program), *words],
                input=None if secret is None else f"{secret}\n",
                stdin=subprocess.DEVNULL if secret is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except OSError as error:
            raise EnvironmentFailure("tool-missing", f"{program}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise EnvironmentFailure("broker-away", f"{program.name} {words[0]} did not end") from None
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[:_LAST]
            raise EnvironmentFailure("broker-away", f"{program.name} {words[0]}: {said}")
        return done.stdout

    def ask(self, *words: str) -> Any:
        """Run a command and return its answer, decoded from JSON.

        Raises:
            EnvironmentFailure: as `run`.

        """
        text = self.run(*words, "--formatter", "json")
        try:
            return json.loads(text or "[]")
        except ValueError:
            raise EnvironmentFailure(
                "broker-away", f"rabbitmqctl {words[0]} did not answer in JSON"
            ) from None

    def close_connections(self, users: Collection[str], reason: str) -> int:
        """Close every connection of these users, and return of how many users there were any.

        Raises:
            EnvironmentFailure: as `run`.

        """
        connected = {entry["user"] for entry in self.ask("list_connections", "user")}
        chosen = sorted(connected & set(users))
        for user in chosen:
            self.run("close_all_user_connections", user, reason)
        return len(chosen)

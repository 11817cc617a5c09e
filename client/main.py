"""The command line `mig`.

Commands are loaded when they are used: an investigator waits for gpg and the network, not for imports.
"""

import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from functools import lru_cache

import click

from client.screen import printable
from protocol.errors import EXIT_REFUSED, EXIT_USAGE, InvalidInput, MigError

_COMMANDS = {
    "run": ("client.command_run", "run", "Sign an action file, submit it, follow it, print the answers."),
    "action": ("client.command_action", "action", "Write, sign, check and submit actions step by step."),
    "results": ("client.command_results", "results", "Print the answers to an action, each verified."),
    "schedule": ("client.command_schedule", "schedule", "Actions that recur, signed once."),
    "agents": ("client.command_agents", "agents", "List agents; approve or revoke them."),
    "investigators": ("client.command_agents", "investigators", "List investigators."),
    "alerts": ("client.command_alerts", "alerts", "Show what agents saw without being asked, each verified."),
    "audit": ("client.command_audit", "audit", "Read the server's audit log, and check it."),
    "trust": ("client.command_trust", "trust", "Say whom agents obey: compose, sign, publish trust bundles."),
    "verify": ("client.command_verify", "verify", "Say whether our OpenPGP policy accepts a signature."),
}
# Modules whose names are those of commands, and an alias of each.
_HIDDEN = {"audit": "kaudit"}
_INTERRUPTED = 128 + signal.SIGINT


class Commands(click.Group):
    """The fixed commands and one for each module, each loaded on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's)
        """Return all names."""
        return [*_COMMANDS, *map(asked_as, _module_names())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's)
        """Return one command, a module's under its aliases too."""
        if cmd_name in _COMMANDS:
            file, name, _ = _COMMANDS[cmd_name]
            command: click.Command = getattr(importlib.import_module(file), name)
            return command
        from agent.registry import canonical_name  # noqa: PLC0415  (not needed by the commands above)
        from client.command_module import module_command  # noqa: PLC0415  (the same)

        try:
            return module_command(canonical_name(cmd_name))
        except InvalidInput:
            return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        """Write modules and commands apart, without loading any."""
        with formatter.section("Modules (mig MODULE --help)"):
            formatter.write_dl([(asked_as(name), _first_line(name)) for name in _module_names()])
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@lru_cache(maxsize=1)
def _module_names() -> tuple[str, ...]:
    from agent.registry import module_names  # noqa: PLC0415  (not needed by most commands)

    return module_names()


def asked_as(module: str) -> str:
    """Return the name under which a module is asked: an alias, where a command has its own name."""
    return _HIDDEN.get(module, module)


def _first_line(module: str) -> str:
    """Return the first line of a module's docstring from its source: importing all of them takes long."""
    name = f"agent.modules.{module}"
    spec = importlib.util.find_spec(name)
    get_source = getattr(spec.loader if spec else None, "get_source", lambda _: "")
    first, _, _ = (get_source(name) or "").partition("\n")
    _, quotes, text = first.partition('"""')
    return text.removesuffix('"""').strip() if quotes else ""


@click.group(cls=Commands, context_settings={"max_content_width": 110})
def mig() -> None:
    """Ask questions of endpoints, and act on them, with actions that you sign.

    Exit codes: 0 found, 1 nothing found, 2 usage, 3 some agents did not answer, 4 refused, 5 out of reach.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command line and exit with its code."""
    sys.exit(run_command_line(argv))


def run_command_line(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; what went wrong is one line on standard error."""
    try:
        code = mig.main(args=None if argv is None else list(argv), prog_name="mig", standalone_mode=False)
        sys.stdout.flush()
    except MigError as error:
        _complain(f"{error.code}: {error.detail}")
        return error.info.exit
    except click.ClickException as error:
        hint = (
            f" ({error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        )
        _complain(error.format_message() + hint)
        return EXIT_USAGE
    except click.Abort:
        _complain("nothing was asked")
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Who reads has enough. What is still buffered has nowhere to go and is no complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    return code if isinstance(code, int) else 0


def _complain(text: str) -> None:
    sys.stderr.write(f"mig: {printable(text)}\n")


if __name__ == "__main__":
    main()

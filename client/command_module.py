"""`mig MODULE`: a module's flags become an action with one operation."""

import re
import shlex
import sys
from typing import Any

import click

from agent.registry import Module, load_module
from client.ask import ask
from client.config import load_config
from client.flags import flag_option, flag_parameters, given_values, module_flags
from client.options import asking_options, choose
from client.screen import printable
from client.unsealing import name_readers

_MAX_NAME = 200
_COMMON_WIDTH = 110


def module_command(name: str) -> click.Command:
    """Return the command of one module by its canonical name.

    Raises:
        InvalidInput: `unknown-module`.

    """
    module = load_module(name)

    def run(**options: Any) -> int:
        return _run(module, options)

    return ModuleCommand(
        module=module,
        callback=run,
        params=[
            *(flag_option(flag) for flag in module_flags(module)),
            *asking_options(),
            click.Option(
                ["--print", "is_printed"], is_flag=True, help="Print the unsigned action and do nothing else."
            ),
            click.Option(
                ["--action-name"], metavar="TEXT", help="The action's name. Default: the command line."
            ),
        ],
    )


class ModuleCommand(click.Command):
    """A module's command: its help shows the module's text, its own flags first, and its examples."""

    def __init__(self, *, module: Module, **settings: Any) -> None:
        super().__init__(
            module.name,
            help=_help_text(module.help),
            context_settings={"max_content_width": _COMMON_WIDTH},
            **settings,
        )
        self._module = module

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the module's flags, then those that every module has."""
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_own = str(parameter.name).startswith("flag_")
                (own if is_own else common).append(record)
        if own:
            with formatter.section(f"What {self._module.name} looks for"):
                formatter.write_dl(own)
        with formatter.section("How it is asked"):
            formatter.write_dl(common)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        """Write the module's examples as they are."""
        if self._module.examples:
            with formatter.section("Examples"):
                for example in self._module.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def _help_text(text: str) -> str:
    # A list must not be filled into one paragraph: click keeps the lines of one that begins with \b.
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        f"\b\n{paragraph}" if re.search(r"^\s*[*-] |^ {2,}", paragraph, re.MULTILINE) else paragraph
        for paragraph in paragraphs
    )


def _run(module: Module, options: dict[str, Any]) -> int:
    template = {
        "name": options["action_name"] or _command_line(),
        "operations": [
            {"module": module.name, "parameters": flag_parameters(module, given_values(module, options))}
        ],
        "syntaxversion": 2,
    }
    choices = choose(options)
    if options["is_printed"]:
        from client.command_action import print_template  # noqa: PLC0415  (only here)

        if choices.is_sealed:
            template = name_readers(template, choices, load_config().fingerprint)
        return print_template(template, options["target"])
    return ask(template, choices)


def _command_line() -> str:
    return printable(" ".join(["mig", shlex.join(sys.argv[1:])]), _MAX_NAME)

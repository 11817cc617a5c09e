"""`mig run`: sign an action file, submit it, follow it, print what it brings."""

from pathlib import Path
from typing import Any

import click

from client.action import SignedAction, read_action_file
from client.ask import ask, ask_signed
from client.options import asking_options, choose, with_options


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@with_options(asking_options())
def run(file: Path, **options: Any) -> int:
    """Sign an action file, submit it, follow it, print the answers.

    FILE is an action as people write it, or one signed by `mig action sign`, which is submitted as it is.
    """
    choices = choose(options)
    read = read_action_file(file)
    return ask_signed(read, choices) if isinstance(read, SignedAction) else ask(read, choices)

"""Leaves a mark where it ran: what tells, from the outside, how often. Never part of a build."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord


class Params(ModuleParams, frozen=True):
    """What to leave where."""

    directory: Annotated[str, Meta(description="where to leave it")]
    token: Annotated[str, Meta(description="what to leave", pattern=r"^[a-z0-9-]+\Z")]


class Record(ModuleRecord, frozen=True):
    """The mark."""

    token: Annotated[str, Meta(description="what was left")]


def run(params: Params, context: Context) -> Iterator[Record]:
    """Append one line in one write, and stay a while, so that there is something to kill."""
    path = Path(params.directory) / context.facts["id"]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{params.token}\n".encode())
    os.close(descriptor)
    for _ in range(5):
        context.check()
        threading.Event().wait(0.02)
    yield Record(token=params.token)

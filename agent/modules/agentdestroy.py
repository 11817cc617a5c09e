"""Removes the agent itself from the endpoint, cleanly, once the answer that says so has reached the broker.

The agent answers first. When the broker has confirmed the answer it tells the server that it leaves, ends its
watchers and children, and removes its state, its service and its own file; then it ends. What it did not make
stays, and so does its log of what was asked of the machine, unless `purge` is given. The server marks it as
removed, and lets it in again only if it is enrolled anew.

`found` means that the agent will remove itself. Nothing is found where `version` is another than the agent's.
By default two signers are needed.
"""

from typing import Annotated, Iterator, Optional

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord

EXAMPLES = (
    "mig agentdestroy -t \"name = 'old1'\"    remove the agent from old1",
    "mig agentdestroy -t \"name = 'old1'\" --version 0.1.0 --purge    only this version, and its log too",
)

PATHS = ()

MINIMUM_WEIGHT = 2


class Params(ModuleParams, frozen=True, kw_only=True):
    """What is removed. `agent.runtime.removal` reads these members from what was signed."""

    version: Annotated[
        Optional[Annotated[str, Meta(max_length=128)]],
        Meta(description="only an agent of exactly this version; none: of any"),
    ] = None
    purge: Annotated[bool, Meta(description="remove the agent's own log, too")] = False


class Record(ModuleRecord, frozen=True, kw_only=True):
    """The agent that removes itself."""

    id: Annotated[str, Meta(description="the agent's id")]
    version: Annotated[str, Meta(description="the agent's version")]
    purge: Annotated[bool, Meta(description="whether its log is removed, too")]


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record where the agent will remove itself; it is the resident that does."""
    context.check()
    version = str(context.facts.get("version", ""))
    context.statistics["agents_seen"] = int(context.watchers is not None)
    if context.watchers is None:
        context.note("asked without an agent: nothing is removed")
    elif params.version is not None and params.version != version:
        context.note(f"this agent is of version {version}, and stays")
    else:
        yield Record(id=str(context.facts.get("id", "")), version=version, purge=params.purge)

"""Answers what this agent is: its id, version, modules, tags and the endpoint's facts.

`found` is always true: an agent that answers is there. It looks at nothing outside of the agent; the facts
are those that the agent also reports in its heartbeats, so the answer shows what a target would match.

This is the smallest module; `docs/writing-a-module.md` walks through it.
"""

from typing import Annotated, Dict, Iterator, Tuple

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord

EXAMPLES = ("mig agentinfo -t \"name = 'web1'\"    what the agent on web1 is and can do",)

PATHS = ()


class Params(ModuleParams, frozen=True):
    """Nothing to ask for."""


class Record(ModuleRecord, frozen=True):
    """One agent."""

    id: Annotated[str, Meta(description="the agent's id: 32 hex digits of the SHA-256 of its public key")]
    name: Annotated[str, Meta(description="the endpoint's host name")]
    os: Annotated[str, Meta(description="operating system: linux, darwin or windows")]
    arch: Annotated[str, Meta(description="processor architecture, e.g. amd64 or arm64")]
    ident: Annotated[
        str, Meta(description="the system's own name and version, from os-release where there is one")
    ]
    version: Annotated[str, Meta(description="the agent's version")]
    modules: Annotated[Tuple[str, ...], Meta(description="names of the modules built in")]
    tags: Annotated[Dict[str, str], Meta(description="tags from the agent's configuration")]
    environment: Annotated[
        Dict[str, str], Meta(description="further facts: init, kernel, addresses and the like")
    ]


def run(params: Params, context: Context) -> Iterator[Record]:  # noqa: ARG001  (every module takes parameters)
    """Yield one record: this agent."""
    context.check()
    facts = context.facts
    yield Record(
        id=str(facts.get("id", "")),
        name=str(facts.get("name", "")),
        os=str(facts.get("os", "")),
        arch=str(facts.get("arch", "")),
        ident=str(facts.get("ident", "")),
        version=str(facts.get("version", "")),
        modules=tuple(facts.get("modules", ())),
        tags=dict(facts.get("tags", {})),
        environment=dict(facts.get("environment", {})),
    )

"""The help of a module on an endpoint: what it answers, and the JSON that it takes, as it is declared."""

import textwrap
from typing import Any, Dict, Iterator, Mapping, Set

import msgspec

from agent.registry import Module

_WIDTH = 110
_REFERENCE = "#/$defs/"
_INDENT = "  "


def describe_module(module: Module) -> str:
    """Return a module's text and its parameters, a line or more for each."""
    schema = msgspec.json.schema(module.params)
    definitions: Dict[str, Any] = schema.get("$defs", {})
    lines = [f"{module.name}: {module.help.strip()}", "", "Parameters (JSON, for --params):"]
    lines += _members(_resolve(schema, definitions), definitions, _INDENT, set())
    return "\n".join(lines)


def _resolve(shape: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = str(shape.get("$ref", ""))
    found: Mapping[str, Any] = definitions.get(reference[len(_REFERENCE) :], shape) if reference else shape
    return found


def _members(
    shape: Mapping[str, Any], definitions: Mapping[str, Any], indent: str, known: Set[str]
) -> Iterator[str]:
    """Yield the members of an object; those of an inner one below it, where it first comes."""
    for name, member in shape.get("properties", {}).items():
        needed = " (needed)" if name in shape.get("required", ()) else ""
        text = f"{name}: {_description(member)}{needed}"
        yield from textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + _INDENT * 2)
        for reference in _references(member):
            if reference not in known:
                known.add(reference)
                inner = definitions.get(reference, {})
                yield from _members(inner, definitions, indent + _INDENT, known)


def _description(member: Mapping[str, Any]) -> str:
    if "description" in member:
        return str(member["description"])
    return next((str(one["description"]) for one in member.get("anyOf", ()) if "description" in one), "")


def _references(member: Any) -> Iterator[str]:
    """Yield the names of the objects that a member holds, alone, in a list or by name."""
    if isinstance(member, dict):
        if "$ref" in member:
            yield str(member["$ref"])[len(_REFERENCE) :]
        for inner in member.values():
            yield from _references(inner)
    elif isinstance(member, list):
        for inner in member:
            yield from _references(inner)

"""What a module declares, told: its help on an endpoint, and the members of its parameters and records."""

import textwrap
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Set

import msgspec

from agent.registry import Module

_WIDTH = 110
_REFERENCE = "#/$defs/"
_INDENT = "  "
_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}


class Member(NamedTuple):
    """One member of a declared structure; `depth` counts the structures that it stands in, from 0."""

    depth: int
    name: str
    type: str
    is_needed: bool
    description: str


def describe_module(module: Module) -> str:
    """Return a module's text and its parameters, a line or more for each."""
    lines = [f"{module.name}: {module.help.strip()}", "", "Parameters (JSON, for --params):"]
    for member in declared_members(module.params):
        indent = _INDENT * (member.depth + 1)
        needed = " (needed)" if member.is_needed else ""
        text = f"{member.name}: {member.description}{needed}"
        lines += textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + _INDENT * 2)
    return "\n".join(lines)


def declared_members(declared: type) -> Iterator[Member]:
    """Yield the members of a declared structure; those of an inner one behind it, where it first comes."""
    schema = msgspec.json.schema(declared)
    definitions: Dict[str, Any] = schema.get("$defs", {})
    yield from _members(_resolve(schema, definitions), definitions, 0, set())


def _resolve(shape: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = str(shape.get("$ref", ""))
    found: Mapping[str, Any] = definitions.get(reference[len(_REFERENCE) :], shape) if reference else shape
    return found


def _members(
    shape: Mapping[str, Any], definitions: Mapping[str, Any], depth: int, known: Set[str]
) -> Iterator[Member]:
    for name, member in shape.get("properties", {}).items():
        is_needed = name in shape.get("required", ())
        yield Member(depth, name, _type(member, definitions), is_needed, _description(member))
        for reference in _references(member):
            if reference not in known:
                known.add(reference)
                yield from _members(definitions.get(reference, {}), definitions, depth + 1, known)


def _description(member: Mapping[str, Any]) -> str:
    if "description" in member:
        return str(member["description"])
    return next((str(one["description"]) for one in member.get("anyOf", ()) if "description" in one), "")


def _type(member: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return in words what a member holds."""
    member = _resolve(member, definitions)
    if "enum" in member:
        return "one of " + ", ".join(map(str, member["enum"]))
    if "anyOf" in member:
        kinds = [_type(one, definitions) for one in member["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = member.get("type")
    if kind == "array":
        return f"list of {_type(member.get('items', {}), definitions)}"
    if kind == "object":
        inner = member.get("additionalProperties")
        return f"{_type(inner, definitions)} by name" if isinstance(inner, dict) else "object"
    return _TYPES.get(str(kind), "anything")


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

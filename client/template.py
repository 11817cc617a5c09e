"""A first action to start from, and in words what its members mean: JSON has no comments."""

from typing import Any

import msgspec
from msgspec import inspect

from agent.registry import canonical_name, load_module

EXPLANATION = """\
name         what the action is for; investigators and endpoints' owners read it
target       which endpoints, checked by each endpoint itself: docs/targets.md
description  author, email, url, revision: for people
threat       level, type, family, ref: for people
operations   modules to run, in this order, each with its parameters: mig MODULE --help
             `file` takes searches by label: paths, names, sizes, modes, mtimes, contents, md5, sha256, ...
next         mig run FILE            sign, submit, follow, print
             mig action sign FILE    only sign; a second investigator signs what that wrote
id, validfrom and expireafter are added when it is signed: valid for 5 minutes unless --expire says more"""

# Of modules whose parameters nest: the members that must be there would be empty objects.
_EXAMPLES: dict[str, dict[str, Any]] = {
    "file": {
        "searches": {"example": {"paths": ["/etc"], "names": ["^passwd$"], "options": {"matchall": True}}}
    },
    "log": {"paths": ["/var/log/auth.log*"], "matches": ["Failed password"], "since": "<1d"},
    "memory": {
        "searches": {
            "example": {
                "names": ["^sshd$"],
                "contents": ["BEGIN OPENSSH PRIVATE KEY"],
                "options": {"matchall": True},
            }
        }
    },
    "ping": {"destinations": ["192.0.2.1"]},
    "yara": {
        "rules": {"example": 'rule example { strings: $a = "#!/bin/sh" condition: $a at 0 }'},
        "searches": {"new": {"paths": ["/var/www"], "mtimes": ["<7d"], "options": {"matchall": True}}},
        "processes": {"shells": {"names": ["^(ba|da|z)?sh$"]}},
    },
}


def new_template(module: str) -> dict[str, Any]:
    """Return an action for one module, to be edited by hand.

    Raises:
        InvalidInput: `unknown-module`.

    """
    name = canonical_name(module)
    return {
        "name": f"what you look for with {name}",
        "target": "status = 'online'",
        "description": {"author": "your name", "email": "you@example.net", "revision": 1},
        "threat": {"level": "info", "type": "system", "family": "example"},
        "operations": [{"module": name, "parameters": _EXAMPLES.get(name) or _parameters(name)}],
        "syntaxversion": 2,
    }


def _parameters(name: str) -> dict[str, Any]:
    declared = inspect.type_info(load_module(name).params)
    fields = declared.fields if isinstance(declared, inspect.StructType) else ()
    return {field.encode_name: _example(field) for field in fields if field.required}


def _example(field: inspect.Field) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    kind: Any = field.type
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    empty: dict[type, Any] = {
        inspect.IntType: 0,
        inspect.FloatType: 0.0,
        inspect.BoolType: False,
        inspect.DictType: {},
    }
    if isinstance(kind, (inspect.VarTupleType, inspect.ListType)):
        return []
    return empty.get(type(kind), "")

"""A first action to start from, and in words what its members mean: JSON has no comments."""

import shlex
from typing import Any

from agent.registry import canonical_name, load_module
from client.command_module import module_command
from client.flags import flag_parameters, given_values

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

# Rules stand in an action as text, on the command line as files.
_YARA = {
    "rules": {"example": 'rule example { strings: $a = "#!/bin/sh" condition: $a at 0 }'},
    "searches": {"new": {"paths": ["/var/www"], "mtimes": ["<7d"], "options": {"matchall": True}}},
    "processes": {"shells": {"names": ["^(ba|da|z)?sh$"]}},
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
        "operations": [{"module": name, "parameters": _parameters(name)}],
        "syntaxversion": 2,
    }


def _parameters(name: str) -> dict[str, Any]:
    """Return what the first of the module's own examples asks for."""
    if name == "yara":
        return _YARA
    module = load_module(name)
    words = shlex.split(module.examples[0].partition("   ")[0])[2:]
    with module_command(name).make_context(name, words) as context:
        return flag_parameters(module, given_values(module, context.params))

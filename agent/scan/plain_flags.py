"""The flags of a module whose parameters are lists, numbers and switches, told by singular names.

Investigators type `--name a --name b` where the parameter is `names: [a, b]`. Each flag is made of the
field's declaration: its description, and by its default whether it may be repeated, is a number or a switch.
"""

from typing import Any, Dict, Mapping, Tuple, get_args

import msgspec
from msgspec import Meta

from agent.module import Flag


def plain_flags(declared: type, singular: Mapping[str, str]) -> Tuple[Flag, ...]:
    """Return the flags of a module's parameters.

    Args:
        declared: the module's `Params`; every field has a default.
        singular: what the flag of a list is called, by the field's name, such as `names: name`.

    """
    return tuple(_flag(field, singular) for field in msgspec.structs.fields(declared))


def _flag(field: msgspec.structs.FieldInfo, singular: Mapping[str, str]) -> Flag:
    name = singular.get(field.name, field.name).replace("_", "-")
    metas = [extra for extra in get_args(field.type) if isinstance(extra, Meta)]
    text = next((meta.description for meta in metas if meta.description), "")
    if isinstance(field.default, bool):
        return Flag(name, text, is_bool=True)
    kind = int if isinstance(field.default, int) else str
    return Flag(name, text, repeat=isinstance(field.default, tuple), type=kind)


def plural_parameters(parameters: Any, singular: Mapping[str, str]) -> Any:
    """Rewrite looser spellings: a list by its singular name or with dashes, a lone value for a list."""
    if not isinstance(parameters, dict):
        return parameters
    plural = {one: many for many, one in singular.items()}
    upgraded: Dict[str, Any] = {}
    for name, value in parameters.items():
        known = name.replace("-", "_") if isinstance(name, str) else name
        known = plural.get(known, known)
        if known in singular and isinstance(value, (tuple, list)):
            upgraded[known] = [*upgraded.get(known, ()), *value]
        elif known in singular:
            upgraded[known] = [*upgraded.get(known, ()), value]
        else:
            upgraded[known] = value
    return upgraded

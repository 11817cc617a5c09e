"""Makes command-line options of a module's declaration.

A module whose parameters nest declares `FLAGS` and `from_flags`; for any other the options follow from the
fields of its `Params`: strings, integers, floats, switches, choices, and tuples of these as options to be
repeated. Names are accepted with one dash as well (`-path`), as investigators of the ancestor type them.
"""

from typing import Any

import click
import msgspec
from msgspec import inspect

from agent.module import Flag
from agent.registry import Module
from protocol.errors import InvalidInput

_TYPES: dict[type, type] = {inspect.StrType: str, inspect.IntType: int, inspect.FloatType: float}


class ModuleOption(click.Option):
    """An option whose one-dash spelling is understood, and not shown in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the help line with the two-dash spelling only."""
        names = self.opts
        self.opts = [name for name in names if name.startswith("--")]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


def module_flags(module: Module) -> tuple[Flag, ...]:
    """Return a module's flags: declared, or derived from its parameters.

    Raises:
        TypeError: a field has a type for which no flag can be made, and the module declares none.

    """
    if module.flags:
        return module.flags
    declared = inspect.type_info(module.params)
    if not isinstance(declared, inspect.StructType):
        raise TypeError(f"module {module.name}: Params is no struct")
    return tuple(_derive(module.name, field) for field in declared.fields)


def _derive(module: str, field: inspect.Field) -> Flag:
    description = ""
    kind: Any = field.type
    while isinstance(kind, (inspect.Metadata, inspect.UnionType)):
        if isinstance(kind, inspect.Metadata):
            description = (kind.extra_json_schema or {}).get("description", description)
            kind = kind.type
        else:
            members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
            if len(members) != 1:
                break
            kind = members[0]
    is_repeated = isinstance(kind, (inspect.VarTupleType, inspect.ListType))
    item: Any = kind.item_type if is_repeated else kind
    while isinstance(item, inspect.Metadata):
        item = item.type
    name = field.encode_name.replace("_", "-")
    if isinstance(item, inspect.BoolType) and not is_repeated:
        return Flag(name, description, is_bool=True)
    if isinstance(item, (inspect.LiteralType, inspect.EnumType)):
        return Flag(name, description, repeat=is_repeated)
    if type(item) not in _TYPES:
        raise TypeError(f"module {module}: no flag can be made of {field.name}: declare FLAGS")
    return Flag(name, description, repeat=is_repeated, type=_TYPES[type(item)])


def flag_option(flag: Flag) -> click.Option:
    """Return the command-line option of one flag."""
    key = "flag_" + flag.name.replace("-", "_")
    spellings = [f"--{flag.name}", key]
    if len(flag.name) > 1:
        spellings.insert(1, f"-{flag.name}")
    if flag.is_bool:
        # Not given is None, so that the module's own default holds.
        return ModuleOption(spellings, is_flag=True, default=None, help=flag.help)
    return ModuleOption(
        spellings, type=flag.type, multiple=flag.repeat, default=None, help=flag.help, metavar=flag.metavar
    )


def flag_parameters(module: Module, given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that the given options make.

    Args:
        module: as loaded.
        given: values by flag name; what was not given is left out.

    Raises:
        InvalidInput: `bad-parameters` or `usage`.

    """
    defaults = {flag.name: flag.default for flag in module_flags(module) if flag.default is not None}
    values = {**defaults, **given}
    if module.from_flags is not None:
        return module.from_flags(values)
    parameters = {name.replace("-", "_"): value for name, value in values.items()}
    try:
        msgspec.convert(parameters, module.params)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-parameters", f"{module.name}: {error}") from None
    return parameters


def given_values(module: Module, options: dict[str, Any]) -> dict[str, Any]:
    """Return what was given of a module's options, by flag name."""
    given = {}
    for flag in module_flags(module):
        value = options["flag_" + flag.name.replace("-", "_")]
        if value is not None and value != ():
            given[flag.name] = value
    return given

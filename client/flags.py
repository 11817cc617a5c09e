"""Makes command-line options of a module's declaration.

A module whose parameters nest declares `FLAGS` and `from_flags`; for any other the options follow from the
fields of its `Params`: strings, integers, floats, switches, choices, and tuples of these as options to be
repeated, which bear the name of one: `names` is `--name`. Names are accepted with one dash as well (`-path`),
as investigators of the ancestor type them, and the plural too.
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
    """An option whose other spellings, such as that with one dash, are understood and not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the help line with the first two-dash spelling only."""
        names = self.opts
        self.opts = [name for name in names if name.startswith("--")][:1]
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
    return tuple(_derive(module, field) for field in declared.fields)


def _singular(name: str) -> str:
    """Return what one of several is called: `names` name, `families` family, `processes` process."""
    for ending, one in (
        ("ies", "y"),
        ("sses", "ss"),
        ("tches", "tch"),
        ("shes", "sh"),
        ("xes", "x"),
        ("s", ""),
    ):
        if name.endswith(ending) and not name.endswith("ss"):
            return name[: -len(ending)] + one
    return name


def _derive(module: Module, field: inspect.Field) -> Flag:
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
    plain = field.encode_name.replace("_", "-")
    name = _singular(plain) if is_repeated else plain
    aliases = (*((plain,) if name != plain else ()), *module.flag_aliases.get(field.encode_name, ()))
    flag = Flag(name, description, repeat=is_repeated, aliases=aliases, field=field.encode_name)
    if isinstance(item, inspect.BoolType) and not is_repeated:
        return flag._replace(is_bool=True)
    if isinstance(item, (inspect.LiteralType, inspect.EnumType)):
        return flag
    if type(item) not in _TYPES:
        raise TypeError(f"module {module.name}: no flag can be made of {field.name}: declare FLAGS")
    return flag._replace(type=_TYPES[type(item)])


def flag_option(flag: Flag) -> click.Option:
    """Return the command-line option of one flag."""
    key = "flag_" + flag.name.replace("-", "_")
    spellings = [f"--{flag.name}", key]
    for name in (flag.name, *flag.aliases):
        spellings += [f"--{name}", f"-{name}"] if len(name) > 1 else []
    spellings = list(dict.fromkeys(spellings))
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
    fields = {flag.name: flag.field or flag.name.replace("-", "_") for flag in module_flags(module)}
    parameters = {fields[name]: value for name, value in values.items()}
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

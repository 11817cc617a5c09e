import enum
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from msgspec import Meta

from agent.module import Flag, ModuleParams, ModuleRecord, decode_params
from agent.registry import Module, canonical_name, load_module, module_names
from client.command_module import module_command
from client.flags import flag_parameters, given_values, module_flags
from client.template import new_template
from protocol.errors import InvalidInput

COMMON = [
    "--target",
    "--expire",
    "--yes",
    "--json",
    "--found",
    "--not-found",
    "--all",
    "--print",
    "--action-name",
]


class Params(ModuleParams, frozen=True, kw_only=True):
    """Every type that a flag can be made of."""

    host_name: Annotated[str, Meta(description="where to")]
    count: Annotated[int, Meta(description="how often", ge=1)] = 1
    wait_s: Annotated[float | None, Meta(description="how long")] = None
    is_fast: Annotated[bool, Meta(description="hurry")] = False
    ports: Annotated[tuple[Annotated[int, Meta(le=65535)], ...], Meta(description="which ports")] = ()
    kind: Literal["tcp", "udp"] = "tcp"


def module(params: type, **changes: Any) -> Module:
    members: dict[str, Any] = {
        "name": "probe",
        "help": "Probes.",
        "params": params,
        "record": ModuleRecord,
        "run": lambda *_: iter(()),
        "platforms": (),
        "examples": (),
        "paths": (),
        "flags": (),
        "from_flags": None,
        "aliases": (),
        "upgrade": lambda parameters: parameters,
    }
    return Module(**{**members, **changes})


def test_flags_follow_from_the_declaration() -> None:
    assert module_flags(module(Params)) == (
        Flag("host-name", "where to"),
        Flag("count", "how often", type=int),
        Flag("wait-s", "how long", type=float),
        Flag("is-fast", "hurry", is_bool=True),
        Flag("ports", "which ports", repeat=True, type=int),
        Flag("kind", ""),
    )


def test_only_what_was_given_becomes_parameters() -> None:
    options = {
        "flag_host_name": "x",
        "flag_count": None,
        "flag_wait_s": None,
        "flag_is_fast": True,
        "flag_ports": (),
        "flag_kind": None,
    }
    probe = module(Params)
    assert flag_parameters(probe, given_values(probe, options)) == {"host_name": "x", "is_fast": True}


@pytest.mark.parametrize("given", [{}, {"host-name": "x", "count": 0}, {"host-name": "x", "kind": "icmp"}])
def test_parameters_that_the_declaration_refuses_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="bad-parameters: probe"):
        flag_parameters(module(Params), given)


def test_a_nested_field_needs_declared_flags() -> None:
    class Nested(ModuleParams, frozen=True, kw_only=True):
        searches: dict[str, str]

    with pytest.raises(TypeError, match="declare FLAGS"):
        module_flags(module(Nested))


def test_an_enumeration_is_a_flag() -> None:
    class Kind(enum.Enum):
        TCP = "tcp"

    class Chosen(ModuleParams, frozen=True, kw_only=True):
        kind: Kind

    assert module_flags(module(Chosen)) == (Flag("kind", ""),)


@pytest.mark.parametrize("name", module_names())
def test_no_flag_of_a_module_is_taken_already(name: str) -> None:
    spellings = [spelling for option in module_command(name).params for spelling in option.opts]
    assert len(spellings) == len(set(spellings))
    assert set(COMMON) <= set(spellings)


@pytest.mark.parametrize("name", module_names())
def test_every_module_has_help_for_every_flag(name: str) -> None:
    command = module_command(name)
    text = command.get_help(click.Context(command, info_name=f"mig {name}"))
    for flag in module_flags(load_module(name)):
        assert flag.help
        assert f"--{flag.name}" in text
        assert f" -{flag.name}" not in text
    for example in load_module(name).examples:
        assert example in text


@pytest.mark.parametrize("name", module_names())
def test_every_example_of_a_module_makes_parameters_that_it_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("webshell.yar", "kit.yar", "implant.yar"):
        Path(file).write_text("rule any { condition: true }", encoding="utf-8")
    loaded = load_module(name)
    for example in loaded.examples:
        words = shlex.split(example.partition("   ")[0].replace("DIGEST", "0" * 64))
        assert (words[0], canonical_name(words[1])) == ("mig", name)
        context = module_command(name).make_context(name, words[2:])
        decode_params(loaded.params, flag_parameters(loaded, given_values(loaded, context.params)))


@pytest.mark.parametrize("name", module_names())
def test_every_module_has_a_template_to_start_from(name: str) -> None:
    [operation] = new_template(name)["operations"]
    assert operation["module"] == name
    decode_params(load_module(name).params, operation["parameters"])

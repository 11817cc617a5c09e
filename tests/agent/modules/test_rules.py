"""What holds for every module: it is described, tested, and calls the same thing by the same name."""

import ast
import re
import shlex
from collections import defaultdict
from pathlib import Path

import click
import pytest

from agent.describe import declared_members
from agent.registry import Module, load_module, module_names
from client.command_module import module_command
from client.flags import module_flags
from client.main import asked_as

ROOT = Path(__file__).resolve().parents[3]
MODULES = [load_module(name) for name in module_names()]
EACH = pytest.mark.parametrize("module", MODULES, ids=[module.name for module in MODULES])
# Flags that every module is asked with.
_COMMON = {"--expire", "--json", "--seal"}
# The same word for different things, each in a place where no other is meant.
_DIFFERENT = {
    "tags": "an agent's have values; a YARA rule's are words",
    "processes": "in yara they are searches by label, as its searches for files",
    "variables": "in yara they are a rule's external variables, with their values",
}


@EACH
def test_a_module_has_help_a_test_file_and_says_what_found_means(module: Module) -> None:
    assert module.help.split("\n", 1)[0].endswith(".")
    assert "found" in module.help
    assert (ROOT / f"tests/agent/modules/test_{module.name}.py").exists()
    assert module.paths is not None, "PATHS: which parameters name paths, () where none do"


@EACH
def test_every_member_is_described(module: Module) -> None:
    bare = [
        member.name
        for declared in (module.params, module.record)
        for member in declared_members(declared)
        if not member.description or member.type == "anything"
    ]
    assert bare == []


@EACH
def test_a_module_has_examples_and_each_can_be_typed(module: Module) -> None:
    assert module.examples
    command = module_command(module.name)
    for example in module.examples:
        line, _, meaning = example.partition("   ")
        assert meaning.strip(), f"{example}: says nothing of what it asks"
        words = shlex.split(line)
        if words[:2] == ["mig", "alerts"]:
            continue  # what a module tells by itself is read there
        assert words[:2] == ["mig", asked_as(module.name)]
        context = command.make_context(module.name, words[2:], resilient_parsing=False)
        assert isinstance(context, click.Context)
        shown = {f"--{flag.name}" for flag in module_flags(module)} | _COMMON
        assert {word for word in words if word.startswith("--")} <= shown, example


@EACH
def test_a_module_imports_no_other(module: Module) -> None:
    tree = ast.parse((ROOT / f"agent/modules/{module.name}.py").read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [name for name in imported if name.startswith(("agent.modules", "agent.runtime"))] == []


@pytest.mark.parametrize("part", ["params", "record"])
def test_the_same_name_holds_the_same_in_every_module(part: str) -> None:
    kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for module in MODULES:
        for member in declared_members(getattr(module, part)):
            # Of texts it does not matter which ones there are, nor of numbers whether they are whole.
            kind = re.sub(r"one of .*", "text", member.type).replace("integer", "number")
            kinds[member.name][kind].append(module.name)
    different = {name: dict(found) for name, found in kinds.items() if len(found) > 1}
    assert {name: found for name, found in different.items() if name not in _DIFFERENT} == {}

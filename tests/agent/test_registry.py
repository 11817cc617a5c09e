"""Tests of how modules are found by their names."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.registry import canonical_name, is_built_in, load_module, module_names
from protocol.errors import InvalidInput

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_listed_is_built_in_and_nothing_else_is() -> None:
    assert all(map(is_built_in, module_names()))
    assert {"file", "ping", "agentdestroy"} <= set(module_names())


@pytest.mark.parametrize(
    "name", ["", "fil", "file.Params", ".file", "__init__", "_file", "../file", "file\0", "fi le", "os", "9"]
)
def test_a_name_that_is_no_modules_is_refused_whatever_it_is(name: str) -> None:
    assert not is_built_in(name)
    for find in (load_module, canonical_name):
        with pytest.raises(InvalidInput, match="^unknown-module: .* built in are account, "):
            find(name)


def test_an_alias_leads_to_its_module() -> None:
    assert canonical_name("filechecker") == canonical_name("file") == "file"


def test_a_module_is_loaded_without_listing_all_of_them() -> None:
    code = (
        # As the agent's own start has it, which goes without (`agent.main`).
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules['typing_extensions'] = None\n"
        "from agent.registry import load_module\n"
        "print(load_module('ping').name, 'inspect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ping", "False"]

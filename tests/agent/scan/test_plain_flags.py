"""Tests of flags that are made of a module's declaration, and of looser spellings of its parameters."""

from typing import Annotated, Any

import pytest
from msgspec import Meta

from agent.module import Flag, ModuleParams
from agent.scan.plain_flags import plain_flags, plural_parameters

SINGULAR = {"names": "name", "version_patterns": "version_pattern"}


class Params(ModuleParams, frozen=True, kw_only=True):
    names: Annotated[tuple[str, ...], Meta(description="some names")] = ()
    version_patterns: Annotated[tuple[str, ...], Meta(description="patterns", max_length=3)] = ()
    root: Annotated[str, Meta(description="a directory")] = "/"
    most: Annotated[int, Meta(description="how many")] = 7
    verify: Annotated[bool, Meta(description="look closer")] = False


def test_each_parameter_is_a_flag_by_its_singular_name() -> None:
    assert plain_flags(Params, SINGULAR) == (
        Flag("name", "some names", repeat=True),
        Flag("version-pattern", "patterns", repeat=True),
        Flag("root", "a directory"),
        Flag("most", "how many", type=int),
        Flag("verify", "look closer", is_bool=True),
    )


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"name": "a"}, {"names": ["a"]}),
        ({"name": ["a", "b"]}, {"names": ["a", "b"]}),
        ({"names": ("a",), "name": "b"}, {"names": ["a", "b"]}),
        ({"version-pattern": ("x",)}, {"version_patterns": ["x"]}),
        ({"root": "/", "other": 1}, {"root": "/", "other": 1}),
        ({3: 4}, {3: 4}),
        (["no", "object"], ["no", "object"]),
        (None, None),
    ],
)
def test_looser_spellings_become_lists(given: Any, made: Any) -> None:
    assert plural_parameters(given, SINGULAR) == made

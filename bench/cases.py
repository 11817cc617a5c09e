"""What a case of `bench/modules.py` is; a file `bench/module_NAME.py` has `CASES` with those of a module."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from measure import Sample


class Tool(NamedTuple):
    """What a user would pick instead: a line for bash, and the program that it needs."""

    command: str
    needs: str


class Made(NamedTuple):
    """What a case made to measure on: the module's parameters, and the tools by name."""

    params: Mapping[str, Any]
    tools: Mapping[str, Tool]


class Measured(NamedTuple):
    """What was measured, medians: the whole process, the module's statistics, and the tools."""

    ours: Sample
    statistics: Mapping[str, Any]
    tools: Mapping[str, Sample]


class Figure(NamedTuple):
    """What a case shows, and whether its goal is met."""

    text: str
    is_met: bool


class Case(NamedTuple):
    """One row: `make` makes what to measure on, given a directory, and takes it away again."""

    title: str
    module: str
    goal: str
    make: Callable[[Path], AbstractContextManager[Made]]
    figure: Callable[[Measured], Figure]

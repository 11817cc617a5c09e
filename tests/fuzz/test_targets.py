"""Every reader of hostile bytes gives a value or a refusal, and nothing else, for any bytes."""

import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import MigError
from tests.fuzz.mutate import mutate
from tests.fuzz.signed import SIGNED
from tests.fuzz.targets import FOUND, TARGETS

ROOT = Path(__file__).resolve().parents[2]


def read(name: str, data: bytes) -> None:
    """Give bytes to a reader; whatever is not a refusal fails the test."""
    with suppress(MigError):
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", SIGNED)
def test_the_seeds_are_documents_that_their_reader_accepts(name: str) -> None:
    for seed in SIGNED[name].seeds:
        SIGNED[name].run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=60)
def test_any_bytes_give_a_value_or_a_refusal(name: str, data: st.DataObject) -> None:
    seeds = TARGETS[name].seeds
    seed = data.draw(st.sampled_from(seeds))
    number = data.draw(st.integers(0, 1 << 32))
    changed = mutate(seed, Random(number))  # noqa: S311  (repeatable, protects nothing)
    read(name, data.draw(st.sampled_from([changed, seed]) | st.binary(max_size=200)))


@pytest.mark.parametrize(("name", "data"), FOUND, ids=lambda value: value if isinstance(value, str) else "")
def test_what_was_found_once_is_met_for_ever(name: str, data: bytes) -> None:
    read(name, data)


@pytest.mark.skipif(find_spec("atheris") is not None, reason="it is installed, and would begin")
def test_without_atheris_one_line_says_how_to_get_it() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--atheris", "trust"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "atheris is not installed: pip install atheris\n")

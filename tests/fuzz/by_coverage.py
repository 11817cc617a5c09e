"""Runs a target under atheris, libFuzzer for Python: inputs that reach new code are kept and mutated on.

What it keeps lies in `var/fuzz/TARGET` and is where the next run begins. Atheris never returns: it ends the
process, with 77 after a finding, whose input it writes to `crash-...`.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

_CORPORA = Path(__file__).resolve().parents[2] / "var" / "fuzz"


def run(words: Sequence[str]) -> int:
    """Run one target; `words` are its name and libFuzzer's options. Returns 2 where there is no such."""
    atheris = importlib.import_module("atheris")  # no requirement of anybody who only runs the tests
    with atheris.instrument_imports(include=["agent", "client", "protocol"]):
        targets = importlib.import_module("tests.fuzz.targets")
    name, *options = words or [""]
    if name not in targets.TARGETS:
        sys.stderr.write(f"there is no target {name!r}; one of {', '.join(sorted(targets.TARGETS))}\n")
        return 2
    target = targets.TARGETS[name]

    def read(data: bytes) -> None:
        try:
            target.run(data)
        except Exception as error:
            if not targets.is_refusal(error):
                raise

    corpus = _CORPORA / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(["tests.fuzz", *options, str(corpus)], read)
    atheris.Fuzz()
    return 0

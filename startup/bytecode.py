"""Byte code for the zip files, beside the sources: to compile them takes as long as most questions.

    python -I -S -B -X no_debug_ranges startup/bytecode.py

as a process of its own: from standard input it takes sources by their names in the zip, as JSON, and gives
byte code in base64 the same way. What it gives depends on the sources and the version of Python only:

* The format is the one before objects could refer to each other (marshal, version 2): whether they do
  depends on what else a process holds. Code that it has no words for stays text.
* No columns for tracebacks: a sixth less.
* Valid by definition, not by a time or a hash (PEP 552, unchecked): a zip is written as a whole, its times
  say nothing, and who could change one of the two could change the other.

Another version of Python passes byte code by that is not its own, and compiles the source (zipimport).
"""

import base64
import importlib.util
import json
import marshal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_FORMAT = 2
_UNCHECKED = (1).to_bytes(4, "little")


def byte_code_of(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return byte code by its name in the zip, for each of these sources that can be had as such."""
    flags = ["-I", "-S", "-B", "-X", "no_debug_ranges"]
    given = {name: source.decode("utf-8") for name, source in sorted(sources.items())}
    made = subprocess.run(
        [sys.executable, *flags, Path(__file__).resolve()],
        input=json.dumps(given).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return {f"{name}c": base64.b64decode(code) for name, code in json.loads(made.stdout).items()}


def _compile(name: str, source: str) -> bytes | None:
    try:
        code = marshal.dumps(compile(source, name, "exec", dont_inherit=True), _FORMAT)
    except ValueError:
        # As of slices that are constants, which CPython 3.14 has.
        return None
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(source.encode()) + code


def main() -> None:
    """Compile what standard input holds."""
    compiled = {name: _compile(name, source) for name, source in json.load(sys.stdin).items()}
    told = {name: base64.b64encode(code).decode() for name, code in compiled.items() if code is not None}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()

"""`python -m tests.fuzz TARGET --seconds N`: hostile bytes for one reader, for as long as you like.

Stops at the first thing that is neither a value nor a refusal, and prints how to repeat it. Where atheris is
installed (pip install atheris), mutations may follow what the code does, for as long as libFuzzer's options
say: python -m tests.fuzz --atheris TARGET -max_total_time=60
"""

import importlib
import importlib.util
import sys


def main() -> int:
    """Run one target and return its exit code: 1 where it found something."""
    words = sys.argv[1:]
    if "--atheris" not in words:
        return int(importlib.import_module("tests.fuzz.at_random").run(words, __doc__))
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed: pip install atheris\n")
        return 2
    words.remove("--atheris")
    # Only now: atheris instruments what is imported under its eyes.
    return int(importlib.import_module("tests.fuzz.by_coverage").run(words))


if __name__ == "__main__":
    sys.exit(main())

"""The scan core as a program of its own, for measuring it and for a shell without an agent.

    python -I -S agent/scan [--params FILE] [--digest-cache FILE]

The first FILE, or standard input, holds the parameters of the file module as JSON, the ancestor's spellings
included. On standard output come the records, a line of JSON each, as they are found, then a line with the
statistics, the notes, and how it ended. Ctrl-C ends it with what was found so far. Exit code: 0, 1 where
nothing was found, 2 for parameters or a command line that are refused. In the second FILE digests are kept
from one run to the next.

It runs from the project's directory as it lies there, on any Python that has the packages of
requirements/agent.txt: without `site` (-S), which costs more than most scans, their place is told by where
the interpreter is.
"""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, List, Optional

if TYPE_CHECKING:
    from agent.module import Context

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OUTPUT_BYTES = 64 << 10  # some hundred matches
_LIBRARY = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"


def _find_packages() -> None:
    """Put the project and the interpreter's packages in place of this directory, which -I leaves in front."""
    prefixes = dict.fromkeys((os.path.dirname(os.path.dirname(sys.executable)), sys.prefix))
    places = [
        f"{prefix}/{_LIBRARY}/{name}" for prefix in prefixes for name in ("site-packages", "dist-packages")
    ]
    sys.path[:1] = [_ROOT, *places]


def _parse(words: List[str]) -> Dict[str, str]:
    """Return the files that the command line names, by flag."""
    if words in (["--help"], ["-h"]):
        sys.stdout.write(__doc__ or "")
        sys.exit(0)
    named = dict(zip(words[::2], words[1::2]))
    if len(words) % 2 or not named.keys() <= {"--params", "--digest-cache"}:
        sys.stderr.write("usage: python -I -S agent/scan [--params FILE] [--digest-cache FILE]\n")
        sys.exit(2)
    return named


def _read_parameters(name: Optional[str]) -> bytes:
    if name is None:
        return sys.stdin.buffer.read()
    with open(name, "rb") as file:
        return file.read()


def _open_cache(name: Optional[str]) -> Optional[int]:
    """Open the file of kept digests; what runs from a directory of sources has no build to tell it by."""
    if name is None:
        return None
    from pathlib import Path  # noqa: PLC0415  (slow to load, and here only)

    from agent.digest_file import open_cache  # noqa: PLC0415

    return open_cache(Path(name), "sources").descriptor


def _run(parameters: bytes, context: "Context", output: BinaryIO) -> int:
    """Run a scan and write what it says; return the exit code.

    Raises:
        InvalidInput: for parameters that are refused.

    """
    import msgspec  # noqa: PLC0415  (not before its place is known)

    from agent.module import Cancelled, decode_params  # noqa: PLC0415
    from agent.modules import file  # noqa: PLC0415
    from protocol.strictjson import decode_json  # noqa: PLC0415

    told = decode_json(parameters, max_bytes=1 << 20)
    params = decode_params(file.Params, file.upgrade(told))
    encoder = msgspec.json.Encoder()
    found, status = 0, "ok"
    line = bytearray()  # one for all: a match is little work beside its line
    try:
        for record in file.run(params, context):
            found += 1
            encoder.encode_into(record, line)
            line += b"\n"
            output.write(line)
    except Cancelled:
        status = "cancelled"
    end: Any = {"status": status, "statistics": context.statistics, "notes": context.all_notes()}
    output.write(encoder.encode(end) + b"\n")
    return 0 if found else 1


def main(words: List[str]) -> int:
    """Do what the command line says; return the exit code."""
    from agent.module import Context, Limits  # noqa: PLC0415
    from protocol.errors import InvalidInput  # noqa: PLC0415

    stopped: List[int] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _frame: stopped.append(number))
    named = _parse(words)
    context = Context(
        limits=Limits(wall_s=float("inf")),
        digest_cache=_open_cache(named.get("--digest-cache")),
        is_cancelled=lambda: bool(stopped),
    )
    with open(1, "wb", _OUTPUT_BYTES, closefd=False) as output:  # buffered, and no text
        try:
            return _run(_read_parameters(named.get("--params")), context, output)
        except InvalidInput as error:
            sys.stderr.write(f"{error}\n")
            return 2


if __name__ == "__main__":
    _find_packages()
    if sys.version_info >= (3, 11):
        # msgspec takes from it what `typing` has by now; importing it takes as long as all of the scan core.
        sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    ended = main(sys.argv[1:])
    sys.stderr.flush()
    # To take apart again all that was loaded would take a seventh of the time of a small question.
    os._exit(ended)

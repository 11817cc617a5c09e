"""What a fuzz target is."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

VECTORS = Path(__file__).resolve().parents[1] / "protocol" / "vectors" / "openpgp"


class FuzzTarget(NamedTuple):
    """One reader: `run` takes any bytes; `seeds` are documents that it accepts or nearly does."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def vector(name: str, file: str) -> bytes:
    """Return a file of an OpenPGP case."""
    return (VECTORS / name / file).read_bytes()


def of_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return a reader of bytes for one of text."""
    return lambda data: read(data.decode("utf-8", "replace"))

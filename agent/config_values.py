"""Reads the values of a configuration's tables, strictly: what is wrong refuses, naming the member.

Standard library only: the resident agent imports this module.
"""

from typing import Any, Dict, NoReturn, Tuple

from protocol.errors import InvalidInput

MAX_TEXT = 1024  # characters of one path or pattern


def refuse(where: str, what: str) -> NoReturn:
    """Raise `bad-config` of one member."""
    raise InvalidInput("bad-config", f"{where}: {what}")


def require_table(value: Any, where: str, known: Tuple[str, ...]) -> Dict[str, Any]:
    """Return a table that has no member but the known ones."""
    if not isinstance(value, dict):
        refuse(where, "must be a table")
    unknown = sorted(set(value) - set(known))
    if unknown:
        refuse(where, f"unknown member {str(unknown[0])[:64]!r}")
    return value


def read_text(table: Dict[str, Any], name: str) -> str:
    """Return a text that must be there."""
    value = table.get(name)
    if not isinstance(value, str) or not value:
        refuse(name, "must be a text that is not empty")
    return value


def read_number(table: Dict[str, Any], name: str, default: int, lowest: int, highest: int) -> int:
    """Return a whole number within bounds."""
    value: Any = table.get(name, default)
    # bool is an int to Python and never meant as one here.
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        refuse(name, f"must be a whole number from {lowest} to {highest}")
    return int(value)


def read_flag(table: Dict[str, Any], name: str, *, default: bool) -> bool:
    """Return true or false."""
    value = table.get(name, default)
    if not isinstance(value, bool):
        refuse(name, "must be true or false")
    return value


def read_texts(
    table: Dict[str, Any], name: str, default: Tuple[str, ...], most: int, *, prefix: str = ""
) -> Tuple[str, ...]:
    """Return a list of texts that are not empty; with `prefix` each begins with that."""
    value = table.get(name, list(default))
    if not isinstance(value, list) or len(value) > most:
        refuse(name, f"must be a list of at most {most} texts")
    for one in value:
        if not isinstance(one, str) or not one or len(one) > MAX_TEXT or "\0" in one:
            refuse(name, f"holds something else than texts of 1 to {MAX_TEXT} characters")
        if not one.startswith(prefix):
            refuse(name, f"{one[:64]!r}, one of its texts, does not begin with {prefix}")
    return tuple(value)

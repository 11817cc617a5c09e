"""The words for what modules count on the way: of a fleet's agents, or of a module that runs here.

What an agent counts is hostile: nothing but these members is shown, and they only as numbers.
Standard library only.
"""

from typing import Any, Dict, Iterable, Mapping

_MOST = 1 << 63
_COUNTERS = {
    "files_seen": "files seen",
    "files_read": "files read",
    "bytes_read": "read",
    "files_scanned": "files scanned",
    "processes_seen": "processes seen",
    "processes_scanned": "processes scanned",
    "bytes_scanned": "scanned",
    "bytes_hashed": "hashed",
    "sockets_seen": "sockets seen",
    "packages_seen": "packages seen",
    "lines_seen": "lines seen",
    "entries_seen": "entries seen",
    "packets_seen": "packets seen",
    "errors": "errors",
}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEP = 1024


def counters_text(said: Iterable[Mapping[str, Any]]) -> str:
    """Return what all of these have counted together, in words; empty where that is nothing."""
    totals: Dict[str, int] = {}
    for statistics in said:
        for name in _COUNTERS:
            value = statistics.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _MOST:
                totals[name] = totals.get(name, 0) + int(value)
    return ", ".join(
        f"{_size_text(totals[name]) if name.startswith('bytes_') else format(totals[name], ',')} {words}"
        for name, words in _COUNTERS.items()
        if name in totals
    )


def _size_text(size_bytes: int) -> str:
    size, unit = float(size_bytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    return f"{size:,.1f} {_UNITS[unit]}" if unit else f"{size_bytes} B"

"""The flags of a search in memory on the command line, and the ancestor's spellings of one.

The ancestor's command line called offset and maxlength `-maxdepth` and `-matchlimit` by mistake; here each
has its own name, and `matchlimit` is what it says.
"""

from typing import Any, Dict, List

from agent.module import Flag
from agent.scan.spellings import upgrade_searches
from protocol.errors import InvalidInput

_PLURALS: Dict[str, str] = {"library": "libraries", "lib": "libraries", "libs": "libraries", "pid": "pids"}
# Whether failures are told: they always are.
_MEANINGLESS = "logfailures"


def _values(name: str, text: str, metavar: str) -> Flag:
    return Flag(name, text, repeat=True, metavar=metavar)


MEMORY_FLAGS = (
    Flag("pid", "look at this process only", repeat=True, type=int),
    _values("name", "regular expression on its name, or its program's path or file name; ! inverts", "REGEX"),
    _values("library", "regular expression on the path of a file that it maps; ! inverts", "REGEX"),
    _values("lib", "same as --library", "REGEX"),
    _values("bytes", "bytes in hexadecimal, found anywhere in its memory; ! inverts", "HEX"),
    _values("content", "regular expression on the bytes of its memory; ! inverts", "REGEX"),
    Flag("matchall", "a process must satisfy every check (the default)", is_bool=True, default=False),
    Flag("matchany", "any one check is enough", is_bool=True, default=False),
    Flag("offset", "look at memory from this address on", type=int),
    Flag("maxlength", "read at most so many bytes of each process", type=int),
    Flag("matchlimit", "report at most so many processes; 0 is all", type=int, default=1000),
    Flag("returnregions", "list the mappings of each process found", is_bool=True, default=False),
)


def searches_from_flags(values: Dict[str, Any]) -> Dict[str, Any]:
    """Make the member `searches` of the command line's flags: one search, labelled s1.

    Raises:
        InvalidInput: `usage`, for flags that contradict each other or that are missing.

    """
    if values.get("matchall") and values.get("matchany"):
        raise InvalidInput("usage", "--matchall and --matchany exclude each other")
    lists = ("pid", "name", "library", "lib", "bytes", "content")
    search: Dict[str, Any] = {name: list(values[name]) for name in lists if values.get(name)}
    if not search and not values.get("returnregions"):
        raise InvalidInput("usage", "name what to look for: --name, --library, --bytes, --content or --pid")
    options = {name: values[name] for name in ("offset", "maxlength", "returnregions") if values.get(name)}
    search["options"] = {
        "matchall": not values.get("matchany"),
        "matchlimit": values.get("matchlimit", 1000),
        **options,
    }
    upgraded: Dict[str, Any] = upgrade_memory({"searches": {"s1": search}})
    return upgraded


def upgrade_memory(parameters: Any) -> Any:
    """Return the parameters in canonical spelling; what cannot be told is left for decoding to refuse."""
    if not isinstance(parameters, dict) or not isinstance(parameters.get("searches"), dict):
        return parameters
    # What searches of files have too is spelled as loosely as there.
    upgraded: Dict[str, Any] = upgrade_searches(parameters)
    return {**upgraded, "searches": {label: _upgrade(one) for label, one in upgraded["searches"].items()}}


def _upgrade(search: Any) -> Any:
    if not isinstance(search, dict):
        return search
    upgraded: Dict[str, Any] = {}
    for key, value in search.items():
        name = str(_PLURALS.get(key, key))
        if name in _PLURALS.values():
            held: List[Any] = upgraded.setdefault(name, [])
            held.extend(value if isinstance(value, (list, tuple)) else [value])
        elif name == "options" and isinstance(value, dict):
            options = {option: one for option, one in value.items() if option != _MEANINGLESS}
            if options:
                upgraded[name] = options
        else:
            upgraded[name] = value
    return upgraded

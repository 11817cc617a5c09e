"""The flags of a question about processes on the command line, and looser spellings of its parameters."""

from typing import Any, Dict

from agent.module import Flag
from agent.scan.search import HASH_KINDS
from agent.scan.spellings import upgrade_searches

_SINGULARS = {
    "pid": "pids",
    "name": "names",
    "command": "commands",
    "user": "users",
    "executable": "executables",
    "ancestor": "ancestors",
    "parent": "ancestors",
    "open_file": "open_files",
    "library": "libraries",
    "variable": "variables",
    "port": "ports",
    "capability": "capabilities",
    "container": "containers",
    "start": "starts",
    "returnhash": "returnhashes",
}
_LISTS = frozenset(_SINGULARS.values())


def _values(name: str, text: str, metavar: str) -> Flag:
    return Flag(name, text, repeat=True, metavar=metavar)


PROCESS_FLAGS = (
    Flag("pid", "number of a process", repeat=True, type=int),
    _values("name", "regular expression on its own name or its program's; ! leaves out", "REGEX"),
    _values("command", "regular expression on the command line; ! leaves out", "REGEX"),
    _values("user", "user by name or number; ! leaves out", "USER"),
    _values("executable", "regular expression on the path of its program; ! leaves out", "REGEX"),
    _values("ancestor", "regular expression on a name of a parent, its parent ...; !: of none", "REGEX"),
    _values("open-file", "regular expression on a path that it has open; !: on none", "REGEX"),
    _values("library", "regular expression on a path that it maps; !: on none", "REGEX"),
    _values("variable", "regular expression on the name of a variable; !: on none", "REGEX"),
    Flag("port", "port on which it listens", repeat=True, type=int),
    _values("capability", "effective capability, such as cap_net_raw, or any; ! leaves out", "CAP"),
    _values("container", "container by name or id, or any; ! leaves out", "CONTAINER"),
    _values("start", "when it was started, in d h m: <1h within, >7d before", "AGE"),
    Flag("deleted", "its program's file was deleted or replaced", is_bool=True),
    Flag("fromtemporary", "its program lies below /tmp, /var/tmp, /dev/shm ...", is_bool=True),
    Flag("kernel", "threads of the kernel only", is_bool=True),
    *(
        _values(kind.replace("_", "-"), f"{kind} of its program; several are alternatives", "HEX")
        for kind in HASH_KINDS
    ),
    _values("sha2", "SHA-2 of its program, its kind told by its length", "HEX"),
    _values("sha3", "SHA-3 of its program, its kind told by its length", "HEX"),
    Flag("returnsha256", "give the SHA-256 of each program", is_bool=True),
    _values("returnhash", "give this digest of each program: md5 sha1 sha256 ...", "KIND"),
    Flag("matchlimit", "tell at most so many processes; 0 is all", type=int),
)


def upgrade_filters(parameters: Any) -> Any:
    """Return parameters in canonical spelling; what cannot be told is left for decoding to refuse."""
    if not isinstance(parameters, dict):
        return parameters
    # What the filters of files have too is spelled as loosely as there.
    alike: Dict[str, Any] = upgrade_searches({"searches": {"s": parameters}})["searches"]["s"]
    upgraded: Dict[str, Any] = {}
    for key, value in alike.items():
        name = _SINGULARS.get(key, key)
        if name not in _LISTS:
            upgraded[name] = value
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        held = upgraded.setdefault(name, [])
        if name == "returnhashes":
            values = [one.lower().replace("-", "_") if isinstance(one, str) else one for one in values]
        held.extend(one for one in values if one not in held)
    return upgraded

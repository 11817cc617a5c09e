"""Which modules are built in, found by their file names; loading one imports it and nothing else."""

import importlib
import importlib.util
import pkgutil
import sys
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

import agent.modules
from protocol.errors import InvalidInput

if TYPE_CHECKING:
    # Not at run time: the resident agent asks for names here and goes without msgspec.
    from agent.module import Context, Flag
    from agent.watching import Report, WatchContext


class Module(NamedTuple):
    """A loaded module: what `agent.module` says a file declares."""

    name: str
    help: str
    params: type
    record: type
    run: "Callable[[Any, Context], Iterator[Any]]"
    platforms: Tuple[str, ...]
    examples: Tuple[str, ...]
    flags: "Tuple[Flag, ...]"
    from_flags: Optional[Callable[[Dict[str, Any]], Dict[str, Any]]]
    upgrade: Callable[[Any], Any]
    aliases: Tuple[str, ...]
    review: Optional[Callable[[Any], Iterator[str]]] = None
    fields: Tuple[str, ...] = ()
    watch: "Optional[Callable[[Dict[str, Any], WatchContext], Iterator[Report]]]" = None
    paths: Optional[Tuple[str, ...]] = None  # None: it does not say, so no path rules can hold it
    minimum_weight: int = 1
    flag_aliases: Mapping[str, Tuple[str, ...]] = MappingProxyType({})

    def is_supported(self, platform: str = sys.platform) -> bool:
        """Tell whether the module works on a platform, by `sys.platform`."""
        return not self.platforms or platform.startswith(self.platforms)


@lru_cache(maxsize=1)
def module_names() -> Tuple[str, ...]:
    """Return the canonical names of the modules built in, sorted."""
    return tuple(sorted(entry.name for entry in pkgutil.iter_modules(agent.modules.__path__)))


def is_built_in(name: str) -> bool:
    """Tell whether a module of this canonical name is built in.

    Without listing them all: for that `pkgutil` loads `inspect`, which takes every child as long as a small
    question.
    """
    is_name = name.isidentifier() and not name.startswith("_")
    return is_name and importlib.util.find_spec(f"agent.modules.{name}") is not None


def load_module(name: str) -> Module:
    """Load one module by its canonical name.

    Raises:
        InvalidInput: `unknown-module`.

    """
    if not is_built_in(name):
        raise InvalidInput("unknown-module", f"{name!r}; built in are {', '.join(module_names())}")
    loaded = importlib.import_module(f"agent.modules.{name}")
    return Module(
        name=name,
        help=(loaded.__doc__ or "").strip(),
        params=loaded.Params,
        record=loaded.Record,
        run=loaded.run,
        platforms=getattr(loaded, "PLATFORMS", ()),
        examples=getattr(loaded, "EXAMPLES", ()),
        flags=getattr(loaded, "FLAGS", ()),
        from_flags=getattr(loaded, "from_flags", None),
        upgrade=getattr(loaded, "upgrade", lambda parameters: parameters),
        aliases=getattr(loaded, "ALIASES", ()),
        review=getattr(loaded, "review", None),
        fields=getattr(loaded, "FIELDS", ()),
        watch=getattr(loaded, "watch", None),
        paths=getattr(loaded, "PATHS", None),
        minimum_weight=getattr(loaded, "MINIMUM_WEIGHT", 1),
        flag_aliases=getattr(loaded, "FLAG_ALIASES", {}),
    )


def canonical_name(name: str) -> str:
    """Return the canonical name of a module, given that name or an alias.

    For the client and local runs only: the gate knows canonical names alone.

    Raises:
        InvalidInput: `unknown-module`.

    """
    if is_built_in(name):
        return name
    for candidate in module_names():
        if name in load_module(candidate).aliases:
            return candidate
    raise InvalidInput("unknown-module", f"{name!r}; built in are {', '.join(module_names())}")

"""Optional parts of a build, chosen by `--with NAME`: what is too large for every endpoint.

Without one its module is left out of the agent, which then neither lists nor runs it. The investigators'
command line always knows the module, since it needs its flags; with the part it also checks before signing.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from startup.archive import BuildFailure


class Addition(NamedTuple):
    """One optional part.

    extra: in pyproject.toml, what it requires. lock: in requirements/. module: path of the module in the zip.
    platforms: those that its wheels are made for. room_bytes: by how much larger an agent may be with it.
    """

    extra: str
    lock: str
    module: str
    platforms: frozenset[str]
    room_bytes: int


# yara-x has wheels for glibc only: none for musllinux (Alpine).
_GLIBC = frozenset({"linux-x86_64", "linux-aarch64"})
ADDITIONS: Mapping[str, Addition] = {
    "yara": Addition("yara", "yara.lock", "agent/modules/yara.py", _GLIBC, 12_000_000),
}
PROGRAMS = frozenset({"agent", "client"})


def choose(names: Iterable[str], platform: str) -> tuple[Addition, ...]:
    """Return the chosen parts, for a platform.

    Raises:
        BuildFailure: a part has no wheels for the platform.

    """
    chosen = []
    for name in sorted(set(names)):
        addition = ADDITIONS[name]
        if platform not in addition.platforms:
            known = ", ".join(sorted(addition.platforms))
            raise BuildFailure(
                f"--with {name} is not possible for {platform}: it has wheels for {known} only"
            )
        chosen.append(addition)
    return tuple(chosen)


def left_out(chosen: Iterable[Addition]) -> set[str]:
    """Return the paths of modules that an agent with these parts goes without."""
    return {addition.module for addition in ADDITIONS.values()} - {addition.module for addition in chosen}

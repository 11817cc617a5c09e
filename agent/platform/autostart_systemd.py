"""What systemd starts: units of the system and of people, what was added to them, and scripts that it runs.

A unit is enabled where a link in a directory `*.wants`, `*.requires` or `*.upholds` names it, or an alias in
a directory of the administrator's does. A unit that only another one pulls in, or a timer, a socket or a path
starts, is not: that other one is told, too. What generators made at the last boot is among the units.

Sources: systemd.unit(5), UNIT FILE LOAD PATH; systemd.generator(7); systemd-sleep(8); systemd-shutdown(8).
"""

from typing import Dict, Iterator, List, Set, Tuple

from agent.platform.autostart import MOST_BYTES, Program, Start, exec_program, scripts_in, settings_of
from agent.platform.packages_languages import read_homes
from agent.platform.rooted import Listed, Rooted
from agent.scan.roots import join

# In the order in which they come before each other.
SYSTEM = (
    b"/etc/systemd/system.control",
    b"/run/systemd/system.control",
    b"/run/systemd/transient",
    b"/run/systemd/generator.early",
    b"/etc/systemd/system",
    b"/etc/systemd/system.attached",
    b"/run/systemd/system",
    b"/run/systemd/system.attached",
    b"/run/systemd/generator",
    b"/usr/local/lib/systemd/system",
    b"/usr/lib/systemd/system",
    b"/lib/systemd/system",
    b"/run/systemd/generator.late",
)
USER = (
    b"/etc/systemd/user",
    b"/run/systemd/user",
    b"/usr/local/share/systemd/user",
    b"/usr/share/systemd/user",
    b"/usr/local/lib/systemd/user",
    b"/usr/lib/systemd/user",
)
_OF_HOMES = (b"/.config/systemd/user", b"/.local/share/systemd/user")
_UNITS = (b".service", b".timer", b".socket", b".path", b".mount", b".automount", b".target")
# Those that run nothing themselves are told only where they are something to wait for.
_TOLD = (b".service", b".timer", b".socket", b".path")
_PULLS = (b".wants", b".requires", b".upholds")
_SCRIPTS = (
    b"system-generators",
    b"user-generators",
    b"system-environment-generators",
    b"user-environment-generators",
    b"system-shutdown",
    b"system-sleep",
)
_SCRIPT_HOMES = (b"/etc/systemd/", b"/run/systemd/", b"/usr/local/lib/systemd/", b"/usr/lib/systemd/")
_DEVICE_NULL = b"/dev/null"


def read_systemd(files: Rooted) -> Iterator[Start]:
    """Yield units, what was added to them, and scripts."""
    yield from _Units(files, SYSTEM).read()
    homes = [home + place for home in read_homes(files) for place in _OF_HOMES]
    yield from _Units(files, (*homes, *USER)).read()
    for name in _SCRIPTS:
        for home in _SCRIPT_HOMES:
            yield from scripts_in(files, home + name, "systemd")


class _Units:
    """The units of one manager, in directories that come before each other."""

    def __init__(self, files: Rooted, directories: Tuple[bytes, ...]) -> None:
        self._files = files
        self._enabled: Set[bytes] = set()
        self._listed: Dict[bytes, List[Listed]] = {}
        seen = set()
        for directory in directories:
            real = files.inside(directory)
            entries = [] if real in seen else files.list(directory)
            seen.add(real)
            if entries:
                self._listed[directory] = entries
        for directory, entries in self._listed.items():
            for entry in entries:
                path = join(directory, entry.name)
                if entry.is_directory and entry.name.endswith(_PULLS):
                    self._enabled.update(self._pulled(path))
                elif entry.is_link and not directory.startswith((b"/usr/", b"/lib/")):
                    target = files.link(path) or b""
                    if target != _DEVICE_NULL:
                        self._enabled.update((target.rpartition(b"/")[2], entry.name))

    def _pulled(self, directory: bytes) -> Iterator[bytes]:
        for entry in self._files.list(directory):
            yield entry.name
            target = self._files.link(join(directory, entry.name)) or b""
            yield target.rpartition(b"/")[2]
            if b"@" in entry.name:
                # getty@tty1.service is made of getty@.service.
                stem, _, rest = entry.name.partition(b"@")
                yield stem + b"@." + rest.rpartition(b".")[2]

    def read(self) -> Iterator[Start]:
        first: Set[bytes] = set()
        for directory, entries in self._listed.items():
            is_of_home = directory.endswith(_OF_HOMES)
            for entry in entries:
                path = join(directory, entry.name)
                if entry.is_directory:
                    if entry.name.endswith(b".d"):
                        yield from self._added(path, entry.name[:-2])
                    continue
                if not entry.name.endswith(_UNITS):
                    continue
                is_overridden = entry.name in first and not is_of_home
                first.add(entry.name)
                if entry.name.endswith(_TOLD):
                    yield self._unit(path, entry, is_overridden=is_overridden)

    def _unit(self, path: bytes, entry: Listed, *, is_overridden: bool) -> Start:
        name = entry.name
        if entry.is_link and self._files.link(path) == _DEVICE_NULL:
            return Start("systemd", path, name, enabled=False)
        programs, user = _programs(self._files, path)
        is_enabled = name in self._enabled and not is_overridden
        return Start(
            "systemd", path, name, is_enabled, programs, user=user or None, is_overridden=is_overridden
        )

    def _added(self, directory: bytes, name: bytes) -> Iterator[Start]:
        """Yield the files that add to a unit, in a directory of its name."""
        for entry in self._files.list(directory):
            if entry.name.endswith(b".conf") and not entry.is_directory:
                path = join(directory, entry.name)
                programs, user = _programs(self._files, path)
                is_enabled = name in self._enabled or b"." not in name.strip(b".")
                yield Start("systemd", path, name, is_enabled, programs, user=user or None)


def _programs(files: Rooted, path: bytes) -> Tuple[Tuple[Program, ...], bytes]:
    programs: List[Program] = []
    user = b""
    for section, name, value in settings_of(files.read(path, MOST_BYTES)):
        if name.startswith(b"Exec") and section in (b"Service", b"Socket", b"Mount"):
            programs += [one for one in exec_program(value) if one not in programs]
        elif name == b"User" and section == b"Service":
            user = value
    return tuple(programs), user

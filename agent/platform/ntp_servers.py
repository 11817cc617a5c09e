"""Which NTP servers an endpoint is configured to ask: chrony, systemd-timesyncd, ntpd, NTPsec, OpenNTPD.

Rules:

* Every daemon's files are read, whether it runs or not: each server is told with the file that names it.
* Includes and directories of drop-ins are followed as the daemons do, below `root`, up to a depth and a
  number of files; a file is read once.
* A reference clock is no server. What is not there says nothing; what cannot be read is told to
  `on_unreadable`.

Sources: chrony.conf(5), timesyncd.conf(5), ntp.conf(5) of ntpd and NTPsec, ntpd.conf(5) of OpenNTPD;
networkd's files in /run/systemd as src/network/networkd-state-file.c writes them.
"""

import fnmatch
import os
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

_MAX_BYTES = 1 << 20
_MAX_FILES = 200
_MAX_DEPTH = 5
_MAX_SERVERS = 1000
_MAX_NAME = 253
_CHRONY = ("etc/chrony.conf", "etc/chrony/chrony.conf")
_NTPD = ("etc/ntp.conf", "etc/ntpsec/ntp.conf", "etc/inet/ntp.conf")
_OPENNTPD = ("etc/ntpd.conf", "etc/openntpd/ntpd.conf")
_TIMESYNCD = "systemd/timesyncd.conf"
_PLACES = ("etc", "run", "usr/local/lib", "usr/lib")
_LINKS = "run/systemd/netif/links"
_REFERENCE_CLOCKS = "127.127."
_MOST_PORT = 65535

Unreadable = Callable[[str, str], None]


class NtpServer(NamedTuple):
    """A server by name or address, and the file that names it; a pool is another server each time."""

    name: str
    path: str
    port: Optional[int] = None
    is_pool: bool = False
    is_fallback: bool = False


def read_ntp_servers(
    root: str = "/", *, on_unreadable: Unreadable = lambda _path, _why: None
) -> List[NtpServer]:
    """Return the servers that the files below `root` name: those of no use but as a fallback come last.

    Args:
        root: stands for /.
        on_unreadable: told path and reason of each file that is there and cannot be read.

    """
    found: Dict[NtpServer, None] = {}
    for server in _Reader(root, on_unreadable).servers():
        found[server] = None
        if len(found) >= _MAX_SERVERS:
            on_unreadable(server.path, f"more than {_MAX_SERVERS} servers")
            break
    return sorted(found, key=lambda one: one.is_fallback)


class _Reader:
    """Reads each file once, with what it includes."""

    def __init__(self, root: str, on_unreadable: Unreadable) -> None:
        self._root = root
        self._told = on_unreadable
        self._read: Set[str] = set()

    def servers(self) -> Iterator[NtpServer]:
        for name in _CHRONY:
            yield from self._chrony(name, 0)
        yield from self._timesyncd()
        for name in (*_NTPD, *self._names("etc/ntpsec/ntp.d", "*.conf")):
            yield from self._ntpd(name, 0)
        for name in _OPENNTPD:
            for line in self._lines(name):
                yield from parse_line(line, f"/{name}", ("server", "servers"), pools=("servers",))

    def _chrony(self, name: str, depth: int) -> Iterator[NtpServer]:
        for line in self._lines(name, depth):
            words = line.split()
            keyword = words[0].lower() if words else ""
            if keyword in ("include", "confdir", "sourcedir") and len(words) > 1:
                for path in words[1:]:
                    for included in self._included(keyword, path):
                        yield from self._chrony(included, depth + 1)
            else:
                yield from parse_line(line, f"/{name}", ("server", "pool", "peer"))

    def _included(self, keyword: str, path: str) -> List[str]:
        plain = path.strip("/")
        if keyword == "include":
            return self._names(*plain.rsplit("/", 1)) if "/" in plain else []
        return self._names(plain, "*.conf" if keyword == "confdir" else "*.sources")

    def _ntpd(self, name: str, depth: int) -> Iterator[NtpServer]:
        for line in self._lines(name, depth):
            words = line.split()
            if len(words) > 1 and words[0] == "includefile":
                target = words[1].strip("\"'")
                path = target.strip("/") if target.startswith("/") else f"{name.rsplit('/', 1)[0]}/{target}"
                yield from self._ntpd(path, depth + 1)
            else:
                yield from parse_line(line, f"/{name}", ("server", "pool", "peer"))

    def _timesyncd(self) -> Iterator[NtpServer]:
        drop_ins: Dict[str, str] = {}
        for place in _PLACES:
            for path in self._names(f"{place}/{_TIMESYNCD}.d", "*.conf"):
                drop_ins.setdefault(path.rsplit("/", 1)[1], path)
        mains = [
            f"{place}/{_TIMESYNCD}"
            for place in _PLACES
            if os.path.lexists(f"{self._root}/{place}/{_TIMESYNCD}")
        ]
        for name in [*mains[:1], *(drop_ins[one] for one in sorted(drop_ins))]:
            for line in self._lines(name):
                yield from parse_assignment(line, f"/{name}")
        for name in self._names(_LINKS, "[0-9]*"):
            for line in self._lines(name):
                yield from parse_assignment(line, f"/{name}")

    def _names(self, directory: str, pattern: str) -> List[str]:
        try:
            names = os.listdir(f"{self._root}/{directory}")  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError) as error:
            self._told(f"/{directory}", _reason(error))
            return []
        return [f"{directory}/{name}" for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]

    def _lines(self, name: str, depth: int = 0) -> List[str]:
        if name in self._read:
            return []
        if depth > _MAX_DEPTH or len(self._read) >= _MAX_FILES:
            self._told(f"/{name}", "too many files that include others")
            return []
        self._read.add(name)
        try:
            # Not to wait for a writer where somebody put a pipe.
            descriptor = os.open(f"{self._root}/{name}", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                return file.read(_MAX_BYTES).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            self._told(f"/{name}", _reason(error))
            return []


def _reason(error: Exception) -> str:
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else "no name of a file"


def parse_line(
    line: str, path: str, keywords: Tuple[str, ...], *, pools: Tuple[str, ...] = ("pool",)
) -> Iterator[NtpServer]:
    """Yield the server of a line such as `server NAME iburst port 1123`."""
    words = line.split("#", 1)[0].split()
    if len(words) < 2 or words[0].lower() not in keywords:  # noqa: PLR2004  (keyword and name)
        return
    # ntpd takes a family before the name.
    rest = [word for word in words[1:] if word not in ("-4", "-6")]
    if not rest or not is_server_name(rest[0]):
        return
    yield NtpServer(rest[0], path, _port(rest[1:]), is_pool=words[0].lower() in pools)


def _port(options: List[str]) -> Optional[int]:
    for word, following in zip(options, options[1:]):
        if (
            word == "port"
            and following.isascii()
            and following.isdigit()
            and 0 < int(following[:6]) <= _MOST_PORT
        ):
            return int(following)
    return None


def parse_assignment(line: str, path: str) -> Iterator[NtpServer]:
    """Yield the servers of a line such as `NTP=NAME NAME`, as systemd's files have them."""
    key, separator, value = line.strip().partition("=")
    if separator and key.strip() in ("NTP", "FallbackNTP"):
        for word in value.split():
            if is_server_name(word):
                yield NtpServer(word, path, is_fallback=key.strip() == "FallbackNTP")


def is_server_name(name: str) -> bool:
    """Tell whether a word can be the name or address of a server, and of no reference clock."""
    if name.startswith((_REFERENCE_CLOCKS, "-")) or len(name) > _MAX_NAME:
        return False
    return name.isascii() and all(letter.isalnum() or letter in ".:%-_" for letter in name)

"""Which DNS servers an endpoint asks, as its resolver's files say.

Read are resolv.conf(5), what systemd-resolved(8) keeps of each link and of the whole system, and its
configuration (resolved.conf(5)), what networkd and NetworkManager learnt, and nothing is asked. A file that
is not there says nothing; one that cannot be read is told to `on_unreadable`. Lines that make no sense are
passed over, as the resolvers do.

Sources: resolv.conf(5), resolved.conf(5), systemd-resolved.service(8); sd-resolve's and networkd's files in
/run/systemd as src/resolve/resolved-link.c and src/network/networkd-state-file.c write them.
"""

import os
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.platform.net_ranges import MOST_PORT, parse_address

# Much more than any of these files holds; of a longer one the rest is not read.
_MAX_BYTES = 1 << 20
_RESOLV = ("etc/resolv.conf", "run/systemd/resolve/resolv.conf", "run/NetworkManager/resolv.conf")
_RESOLVED = "systemd/resolved.conf"
_PLACES = ("etc", "run", "usr/local/lib", "usr/lib")
# File names there are numbers of interfaces.
_LINKS = (("run/systemd/resolve/netif", "SERVERS", "DOMAINS"), ("run/systemd/netif/links", "DNS", "DOMAINS"))
_STUBS = ("127.0.0.53", "127.0.0.54")
_MOST_SERVERS = 1000


class DnsServer(NamedTuple):
    """One server, and the file that names it.

    `ifindex` is the number of the interface for which it is asked, where the file says so. `is_stub` tells
    systemd-resolved's own address, which passes questions on; `is_fallback` what is asked where nothing else
    is known.
    """

    address: str
    path: str
    port: Optional[int] = None
    ifindex: Optional[int] = None
    interface: Optional[str] = None
    domains: Tuple[str, ...] = ()
    is_fallback: bool = False

    @property
    def is_stub(self) -> bool:
        """Whether it is systemd-resolved itself."""
        return self.address in _STUBS


def read_dns_servers(
    root: str = "/", *, on_unreadable: Callable[[str, str], None] = lambda _path, _why: None
) -> List[DnsServer]:
    """Return the servers that the files below `root` name, each once for each file, at most 1,000.

    Args:
        root: stands for /.
        on_unreadable: told path and reason of each file that is there and cannot be read.

    """
    found: List[DnsServer] = []
    for server in _servers(root, on_unreadable):
        if server not in found:
            found.append(server)
        if len(found) >= _MOST_SERVERS:
            on_unreadable(server.path, f"more than {_MOST_SERVERS} servers")
            break
    return found


def _servers(root: str, on_unreadable: Callable[[str, str], None]) -> Iterator[DnsServer]:
    for name in _RESOLV:
        text = _read(root, name, on_unreadable)
        if text is not None:
            yield from parse_resolv_conf(text, f"/{name}")
    for name in _resolved_files(root, on_unreadable):
        text = _read(root, name, on_unreadable)
        if text is not None:
            yield from parse_resolved_conf(text, f"/{name}")
    for directory, servers, domains in _LINKS:
        for name in _list(root, directory, on_unreadable):
            if not (name.isascii() and name.isdigit()):
                continue
            text = _read(root, f"{directory}/{name}", on_unreadable)
            if text is not None:
                yield from parse_link_file(text, f"/{directory}/{name}", int(name), servers, domains)


def _resolved_files(root: str, on_unreadable: Callable[[str, str], None]) -> List[str]:
    """Return the files of resolved's configuration; of a name in several places the first counts."""
    drop_ins: Dict[str, str] = {}
    for place in _PLACES:
        directory = f"{place}/{_RESOLVED}.d"
        for name in _list(root, directory, on_unreadable):
            if name.endswith(".conf"):
                drop_ins.setdefault(name, f"{directory}/{name}")
    mains = [f"{place}/{_RESOLVED}" for place in _PLACES if os.path.lexists(f"{root}/{place}/{_RESOLVED}")]
    return [*mains[:1], *(drop_ins[name] for name in sorted(drop_ins))]


def _list(root: str, directory: str, on_unreadable: Callable[[str, str], None]) -> List[str]:
    try:
        return sorted(os.listdir(f"{root}/{directory}"))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        on_unreadable(f"/{directory}", os.strerror(error.errno or 0))
        return []


def _read(root: str, name: str, on_unreadable: Callable[[str, str], None]) -> Optional[str]:
    try:
        # Not to wait for a writer where somebody put a pipe.
        descriptor = os.open(f"{root}/{name}", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        on_unreadable(f"/{name}", os.strerror(error.errno or 0))
        return None


def parse_resolv_conf(text: str, path: str) -> Iterator[DnsServer]:
    """Yield the servers of a resolv.conf(5); of several lines of domains the last counts."""
    domains: Tuple[str, ...] = ()
    addresses: List[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            addresses.append(words[1])
        elif len(words) > 1 and words[0] in ("search", "domain"):
            domains = tuple(words[1:])
    for text_address in addresses:
        address, _, interface = text_address.partition("%")
        parsed = parse_address(address)
        if parsed is not None:
            yield DnsServer(str(parsed), path, interface=interface or None, domains=domains)


def parse_resolved_conf(text: str, path: str) -> Iterator[DnsServer]:
    """Yield the servers of a resolved.conf(5)."""
    domains = tuple(word for key, value in _assignments(text) if key == "Domains" for word in value.split())
    for key, value in _assignments(text):
        if key in ("DNS", "FallbackDNS"):
            yield from _named(value.split(), path, None, domains, is_fallback=key == "FallbackDNS")


def parse_link_file(text: str, path: str, ifindex: int, servers: str, domains: str) -> Iterator[DnsServer]:
    """Yield the servers of a file that systemd keeps of one link; `servers` and `domains` are its keys."""
    values = dict(_assignments(text))
    names = tuple(values.get(domains, "").split())
    yield from _named(values.get(servers, "").split(), path, ifindex, names)


def _assignments(text: str) -> Iterator[Tuple[str, str]]:
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith(("#", ";")):
            yield key.strip(), value.strip()


def _named(
    words: List[str],
    path: str,
    ifindex: Optional[int],
    domains: Tuple[str, ...],
    *,
    is_fallback: bool = False,
) -> Iterator[DnsServer]:
    for word in words:
        parsed = parse_server(word)
        if parsed is not None:
            address, port, interface = parsed
            yield DnsServer(address, path, port, ifindex, interface, domains, is_fallback)


def parse_server(word: str) -> Optional[Tuple[str, Optional[int], Optional[str]]]:
    """Return address, port and interface of `ADDRESS[:PORT][%INTERFACE][#NAME]`; an IPv6 one in brackets."""
    rest = word.partition("#")[0]
    rest, _, interface = rest.partition("%")
    port = ""
    if rest.startswith("["):
        rest, closed, port = rest[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return None
        port = port[1:]
    elif rest.count(":") == 1:
        rest, _, port = rest.partition(":")
    address = parse_address(rest)
    if address is None or (port and not (port.isascii() and port.isdigit() and int(port[:6]) <= MOST_PORT)):
        return None
    return str(address), int(port) if port else None, interface or None

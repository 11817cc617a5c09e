"""Facts of a Linux endpoint, read from the kernel and from os-release(5). Standard library only."""

import shlex
import socket
import struct
from pathlib import Path
from typing import Dict, Iterator, List

_NETLINK_ROUTE = 0
_RTM_GETADDR = 22
_RTM_NEWADDR = 20
_NLMSG_DONE = 3
_NLMSG_ERROR = 2
_NLM_F_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH, netlink(7)
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_LOOPBACK = ("127.0.0.1/8", "::1/128")


def read_os_release(root: Path = Path("/")) -> Dict[str, str]:
    """Return the variables of os-release(5), or none where there is no such file."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        variables = {}
        for line in text.splitlines():
            key, separator, value = line.partition("=")
            if separator and not key.startswith("#"):
                try:
                    variables[key.strip()] = " ".join(shlex.split(value))
                except ValueError:  # an unbalanced quote: that variable is unknown, the others stand
                    continue
        return variables
    return {}


def describe_system(root: Path = Path("/")) -> str:
    """Return the system's own name and version, e.g. `Debian GNU/Linux 12 (bookworm)`."""
    release = read_os_release(root)
    name = release.get("PRETTY_NAME") or f"{release.get('NAME', '')} {release.get('VERSION', '')}".strip()
    return name or "Linux"


def find_init(root: Path = Path("/")) -> str:
    """Return the init system: systemd (sd_booted(3)), openrc, or the name of process 1."""
    if (root / "run/systemd/system").is_dir():
        return "systemd"
    if (root / "run/openrc").is_dir():
        return "openrc"
    try:
        return (root / "proc/1/comm").read_text(errors="replace").strip()
    except OSError:
        return "unknown"


def read_machine_id(root: Path = Path("/")) -> str:
    """Return machine-id(5), or an empty string where there is none."""
    for name in ("etc/machine-id", "var/lib/dbus/machine-id"):
        try:
            return (root / name).read_text(errors="replace").strip()
        except OSError:
            continue
    return ""


def list_addresses() -> List[str]:
    """Return the addresses of all interfaces but the loopback's own, as `ADDRESS/PREFIX`, by rtnetlink(7)."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as netlink:
        netlink.settimeout(2)
        request = struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)
        netlink.sendall(_HEADER.pack(_HEADER.size + len(request), _RTM_GETADDR, _NLM_F_DUMP, 1, 0) + request)
        found: List[str] = []
        while True:
            for kind, body in _messages(netlink.recv(65536)):
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return sorted(set(found) - set(_LOOPBACK))
                if kind == _RTM_NEWADDR:
                    found.extend(_addresses(body))


def _messages(data: bytes) -> Iterator["tuple[int, bytes]"]:
    while len(data) >= _HEADER.size:
        length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _addresses(body: bytes) -> Iterator[str]:
    family, prefix, _flags, _scope, _index = _ADDRESS.unpack_from(body)
    attributes = {}
    rest = body[_ADDRESS.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = rest[_ATTRIBUTE.size : length]
        rest = rest[(length + 3) & ~3 :]
    # On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is ours where it is there.
    raw = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS))
    if raw is not None and family in (socket.AF_INET, socket.AF_INET6):
        yield f"{socket.inet_ntop(family, raw)}/{prefix}"

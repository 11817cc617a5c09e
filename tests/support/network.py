"""Networks that a test makes for itself: namespaces, and hosts joined by a cable. Needs root and iproute2."""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

_CLONE_NEWNET = 0x40000000  # clone(2)
_NUMBERS = itertools.count()


class Host(NamedTuple):
    """A network namespace with one end of the cable; `mac` is that of its interface `wire`."""

    name: str
    ipv4: str
    ipv6: str
    mac: str

    @property
    def path(self) -> str:
        """The file that stands for the namespace."""
        return f"/run/netns/{self.name}"

    def ip(self, *arguments: str) -> None:
        """Run ip(8) in it."""
        ip("-n", self.name, *arguments)


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def namespace() -> Iterator[str]:
    """Make a network namespace with nothing but a loopback interface that is up; yield its name."""
    name = f"mig-{os.getpid()}-{next(_NUMBERS)}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "delete", name)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make two hosts joined by a cable, with addresses of IPv4 and IPv6 that work at once."""
    with namespace() as near, namespace() as far:
        hosts = (
            Host(near, "10.77.0.1", "fd77::1", "02:00:00:00:77:01"),
            Host(far, "10.77.0.2", "fd77::2", "02:00:00:00:77:02"),
        )
        ip("link", "add", "wire", "netns", near, "type", "veth", "peer", "name", "wire", "netns", far)
        for host in hosts:
            host.ip("link", "set", "wire", "address", host.mac, "up")
            host.ip("address", "add", f"{host.ipv4}/24", "dev", "wire")
            # nodad: an address that is still being tried cannot be used.
            host.ip("address", "add", f"{host.ipv6}/64", "dev", "wire", "nodad")
        yield hosts


def enter(name: str) -> Callable[[], None]:
    """Return what takes the process into a namespace; for `prepare` of `run_apart`."""

    def act() -> None:
        descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)

    return act

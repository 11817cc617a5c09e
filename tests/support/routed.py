"""Hosts of their own beside this one, behind a router that can lose their packets; needs root and iproute2.

    this machine ── router ── host a
                        └──── host b

Each host is a network namespace (ip-netns(8)); what runs there reaches this machine at `Network.here`, and
is reached at `Network.address(host)`. A host's cable can be pulled (`cut`: the router says that it is out of
reach) or its packets swallowed both ways (`swallow`: no side hears anything, so TCP goes on waiting).
"""

import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_LEG = 4  # addresses of one cable: /30


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Network:
    """One router and the hosts behind it, whose names are given."""

    def __init__(self, hosts: Sequence[str]) -> None:
        chance = random.SystemRandom()
        self._name = f"mig{chance.randrange(1 << 24):06x}"  # an interface's name has 15 characters at most
        self._base = f"10.{chance.randrange(64, 128)}.{chance.randrange(256)}"
        self._hosts = tuple(hosts)
        self.here = f"{self._base}.1"

    @property
    def _router(self) -> str:
        return f"{self._name}-router"

    def _space(self, host: str) -> str:
        return f"{self._name}-{host}"

    def address(self, host: str) -> str:
        """Return the address of a host."""
        return f"{self._base}.{_LEG * (self._hosts.index(host) + 1) + 2}"

    def words(self, host: str) -> list[str]:
        """Return what stands before a command line that is to run on a host; it becomes that very process."""
        return ["ip", "netns", "exec", self._space(host)]

    def start(self) -> None:
        """Make everything."""
        _ip("netns", "add", self._router)
        inside = ["ip", "netns", "exec", self._router, "sh", "-c"]
        subprocess.run([*inside, "echo 1 > /proc/sys/net/ipv4/ip_forward"], check=True)
        _ip("link", "add", self._name, "type", "veth", "peer", "name", "outer", "netns", self._router)
        _ip("addr", "add", f"{self.here}/30", "dev", self._name)
        _ip("link", "set", self._name, "up")
        _ip("-n", self._router, "addr", "add", f"{self._base}.2/30", "dev", "outer")
        _ip("-n", self._router, "link", "set", "outer", "up")
        for number, host in enumerate(self._hosts, start=1):
            self._add(host, _LEG * number)
        _ip("route", "add", f"{self._base}.0/24", "via", f"{self._base}.2")

    def _add(self, host: str, first: int) -> None:
        space, leg = self._space(host), self._leg(host)
        _ip("netns", "add", space)
        _ip("-n", self._router, "link", "add", leg, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("-n", self._router, "addr", "add", f"{self._base}.{first + 1}/30", "dev", leg)
        _ip("-n", self._router, "link", "set", leg, "up")
        _ip("-n", space, "addr", "add", f"{self._base}.{first + 2}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", space, "link", "set", device, "up")
        _ip("-n", space, "route", "add", "default", "via", f"{self._base}.{first + 1}")

    def _leg(self, host: str) -> str:
        return f"leg{self._hosts.index(host)}"

    def cut(self, host: str) -> None:
        """Pull a host's cable."""
        _ip("-n", self._router, "link", "set", self._leg(host), "down")

    def mend(self, host: str) -> None:
        """Put the cable back."""
        _ip("-n", self._router, "link", "set", self._leg(host), "up")

    def swallow(self, host: str) -> None:
        """Drop, and say nothing, what goes to a host and what comes from it."""
        for way in ("from", "to"):
            _ip("-n", self._router, "rule", "add", way, self.address(host), "blackhole")

    def let_pass(self, host: str) -> None:
        """Bring its packets on again."""
        for way in ("from", "to"):
            _ip("-n", self._router, "rule", "del", way, self.address(host), "blackhole")

    def stop(self) -> None:
        """Take everything away, as far as it was made."""
        for words in (("link", "del", self._name), ("netns", "del", self._router)):
            subprocess.run(["ip", *words], check=False, capture_output=True)
        for host in self._hosts:
            subprocess.run(["ip", "netns", "del", self._space(host)], check=False, capture_output=True)


@contextmanager
def network_of(*hosts: str) -> Iterator[Network]:
    """Make a network with these hosts for as long as the block lasts."""
    network = Network(hosts)
    try:
        network.start()
        yield network
    finally:
        network.stop()

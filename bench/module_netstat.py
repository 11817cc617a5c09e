"""The cases of the module netstat: 10,000 sockets more than the machine has."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cases import Case, Figure, Made, Measured, Tool

CONNECTIONS = 5000


@contextmanager
def connections() -> Iterator[None]:
    """Hold both ends of connections over the loopback until the body is over."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        for _ in range(CONNECTIONS):
            held.enter_context(socket.create_connection(listener.getsockname()))
            held.enter_context(listener.accept()[0])
        yield


def _make(params: Mapping[str, Any], tools: Mapping[str, Tool]) -> Any:
    @contextmanager
    def make(_directory: Path) -> Iterator[Made]:
        with connections():
            yield Made(params, tools)

    return make


def _within(limit_s: float) -> Any:
    def figure(measured: Measured) -> Figure:
        wall_s, cpu_s = measured.statistics["duration_s"], measured.statistics["cpu_s"]
        seen = measured.statistics["sockets_seen"]
        return Figure(
            f"{1000 * cpu_s:.0f} ms CPU, {1000 * wall_s:.0f} ms, {seen:.0f} sockets", is_met=cpu_s <= limit_s
        )

    return figure


CASES = {
    "netstat-connected": Case(
        "who talks to a network",
        "netstat",
        "≤ 0.25 s of CPU",
        _make({"connectedips": ["192.0.2.0/24"]}, {"ss": Tool("ss -ntup dst 192.0.2.0/24", "ss")}),
        _within(0.25),
    ),
    "netstat-listening": Case(
        "all that listens, with processes",
        "netstat",
        "≤ 0.25 s of CPU",
        _make({"listeningports": ["1-65535"]}, {"ss": Tool("ss -lntup", "ss")}),
        _within(0.25),
    ),
    "netstat-process": Case(
        "all sockets of a program",
        "netstat",
        "≤ 0.5 s of CPU",
        _make({"processes": ["^no-such-thing$"]}, {"ss": Tool("ss -nautp | grep no-such-thing || :", "ss")}),
        _within(0.5),
    ),
}

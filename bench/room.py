"""What a machine must allow for a swarm: open files, and local ports.

The broker has a file open for each agent's connection, often one for its queue, and one for each question
that it asks the server about agents. Only the first two are counted by RabbitMQ 3.10, up to `ulimit -n`; so
at that many agents its questions fail with EMFILE, agents that publish are thrown out, and all return at
once. Where files are scarce the broker is told to count up to less, and closes queues' files sooner.
"""

import resource
from pathlib import Path

from server.brokerctl import BrokerControl
from tests.support.platform import Platform

_PLENTY = 3  # files for each agent
_PORTS_BESIDE = 4000  # for the broker's questions
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def require_room(agents: int, processes: int) -> None:
    """End with what to set, unless this machine has room for so many agents, in so many processes."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max(_counted(agents) + agents // 2, -(-agents // processes) + 200)
    if files < needed:
        raise SystemExit(f"{agents} agents need {needed} open files in a process, and ulimit -Hn is {files}")
    low, high = map(int, _PORTS.read_text().split())
    if high - low < agents + _PORTS_BESIDE:
        raise SystemExit(f"{agents} agents need as many local ports: widen net.ipv4.ip_local_port_range")


def _counted(agents: int) -> int:
    """Return up to how many files the broker may count; nine tenths of them may be connections."""
    return agents * 5 // 4 + 500


def spare_files(platform: Platform, agents: int) -> None:
    """Have the broker, which runs, leave files for its questions."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < _PLENTY * agents:
        limit = f"file_handle_cache:set_limit({_counted(agents)})."
        BrokerControl(platform.broker.rabbitmqctl).run("eval", limit)

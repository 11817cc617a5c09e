"""Which container a process runs in, told by its control groups alone: no runtime is asked or needed.

Rules:

* Runtimes name the control group of a container after its 64-digit id: Docker and nerdctl (`docker-ID.scope`,
  `/docker/ID`), Podman (`libpod-ID.scope`, `libpod-payload-ID`), CRI-O (`crio-ID.scope`), containerd under
  Kubernetes (`cri-containerd-ID.scope`, `...:cri-containerd:ID`, `/kubepods/.../ID`), Amazon ECS. LXC, LXD,
  Incus and systemd-nspawn name it after the container. The innermost one counts.
* What watches a container from outside (`conmon`, `lxc.monitor`), or looks after its health (`ID.service`),
  is not in it. Virtual machines are no containers.
* Whoever may make control groups may call them anything: a name here is what it says, and not proven. Names
  are bounded, and of plain characters only.

A container whose runtime was told to make no control group, or runs in another control group namespace than
we do, is not seen here.

Source: cgroups(7), /proc/PID/cgroup; the documentation of the runtimes named above.
"""

import re
from functools import lru_cache
from typing import Optional

# The longest a path in a control group's hierarchy may reasonably be; what is longer is cut.
_MAX_BYTES = 64 << 10
_BY_ID = re.compile(r"(?:(?P<prefix>[a-z][a-z0-9_.]*(?:-[a-z0-9_.]+)*)-)?(?P<id>[0-9a-f]{64})(?:\.scope)?\Z")
_BY_NAME = re.compile(
    r"(?:lxc\.payload\.|machine-(?!qemu\b)|systemd-nspawn@)(?P<name>[A-Za-z0-9][A-Za-z0-9_.\\-]{0,127})\Z"
)
_LXC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
# systemd.unit(5): what a name may not hold is written as \x and two digits.
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def container_of(pid: int, proc: str = "/proc") -> Optional[str]:
    """Return the id, or the name, of the container that a process runs in; None where it runs in none.

    None also where the process is gone or may not be looked at. `proc` stands for /proc.
    """
    try:
        with open(f"{proc}/{pid}/cgroup", "rb") as table:  # noqa: PTH123  (asked of thousands of processes)
            text = table.read(_MAX_BYTES)
    except OSError:
        return None
    return container_in_cgroup(text.decode("utf-8", "replace"))


@lru_cache(maxsize=1024)
def container_in_cgroup(text: str) -> Optional[str]:
    """Return the container that the lines of a /proc/PID/cgroup tell of; most processes share few of them."""
    for line in text.splitlines():
        fields = line.split(":", 2)
        found = _in_path(fields[2]) if len(fields) == 3 else None  # noqa: PLR2004  (number, controllers, path)
        if found is not None:
            return found
    return None


def _in_path(path: str) -> Optional[str]:
    # `slice:cri-containerd:ID` is what containerd makes of systemd's names where it was not told of it.
    components = path.replace(":", "/").split("/")
    for at in range(len(components) - 1, -1, -1):
        component = components[at]
        by_id = _BY_ID.match(component)
        if by_id is not None:
            is_watcher = (by_id["prefix"] or "").endswith("conmon")
            return None if is_watcher else by_id["id"]
        if component.startswith("lxc.monitor"):
            return None
        if at and components[at - 1] in ("lxc", "lxc.payload") and _LXC_NAME.match(component):
            return component
        name = _name_of(component)
        if name is not None:
            return name
    return None


def _name_of(component: str) -> Optional[str]:
    by_name = _BY_NAME.match(component)
    if by_name is None:
        return None
    name = by_name["name"]
    if component.startswith("lxc."):
        return name
    stem, _, kind = name.rpartition(".")
    if kind != ("service" if component.startswith("systemd-nspawn@") else "scope"):
        return None
    plain = _ESCAPED.sub(lambda digits: chr(int(digits[1], 16)), stem)
    return plain if _LXC_NAME.match(plain) else None

"""What an endpoint is: the facts that heartbeats report and that targets are matched against.

Standard library only: the resident agent imports this module. Where a fact is tied to one operating system,
its source lives in `agent/platform/`.
"""

import os
import platform
import sys
from typing import Any, Dict, List, Mapping, Sequence

_ARCHITECTURES = {
    "x86_64": "amd64",
    "AMD64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
    "ARM64": "arm64",
    "i386": "386",
    "i686": "386",
}
_SYSTEMS = {"linux": "linux", "darwin": "darwin", "win32": "windows"}


def system_name() -> str:
    """Return the operating system as targets name it: linux, darwin, windows, or Python's own word."""
    return _SYSTEMS.get(sys.platform, sys.platform)


def architecture() -> str:
    """Return the processor architecture as targets name it: amd64, arm64, 386, or the kernel's own word."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _addresses() -> List[str]:
    if sys.platform == "linux":
        from agent.platform import linux  # noqa: PLC0415  (only where it works)

        return linux.list_addresses()
    # Elsewhere psutil is worth its memory in the resident; on Linux netlink answers for nothing.
    import psutil  # noqa: PLC0415

    return sorted(
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (2, 10, 30)
    )


def _ident() -> str:
    if sys.platform == "linux":
        from agent.platform import linux  # noqa: PLC0415

        return linux.describe_system()
    return platform.platform(terse=True)


def _init() -> str:
    if sys.platform == "linux":
        from agent.platform import linux  # noqa: PLC0415

        return linux.find_init()
    return {"darwin": "launchd", "win32": "windows"}.get(sys.platform, "unknown")


def machine_id() -> str:
    """Return what tells this machine from a clone of it, or an empty string where nothing does."""
    if sys.platform == "linux":
        from agent.platform import linux  # noqa: PLC0415

        return linux.read_machine_id()
    return ""


def collect_facts(
    *, agent_id: str, version: str, tags: Mapping[str, str], modules: Sequence[str]
) -> Dict[str, Any]:
    """Return the endpoint's facts; every value under `environment` and `tags` is a string.

    Sources: uname(2), os-release(5), rtnetlink(7). A fact that cannot be read is an empty string: a target
    that asks for it does not match.
    """
    try:
        addresses = ",".join(_addresses())
    except OSError:  # no netlink in this sandbox
        addresses = ""
    return {
        "id": agent_id,
        "name": platform.node() or "localhost",
        "os": system_name(),
        "arch": architecture(),
        "ident": _ident(),
        "version": version,
        "tags": dict(tags),
        "modules": list(modules),
        "environment": {
            "init": _init(),
            "kernel": platform.release(),
            "addresses": addresses,
            "python": platform.python_version(),
            "uid": str(os.getuid()) if hasattr(os, "getuid") else "",
        },
    }

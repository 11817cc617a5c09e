"""All that starts by itself on a system, by kind."""

from typing import Callable, Dict, Iterator, Tuple

from agent.platform.autostart import Start
from agent.platform.autostart_hooks import (
    read_containers,
    read_dbus,
    read_initramfs,
    read_kernel_modules,
    read_motd,
    read_network,
    read_package_hooks,
    read_pam,
    read_preload,
    read_ssh,
    read_udev,
)
from agent.platform.autostart_jobs import read_cron, read_desktop, read_rc, read_shell
from agent.platform.autostart_systemd import read_systemd
from agent.platform.rooted import Rooted

READERS: Dict[str, Callable[[Rooted], Iterator[Start]]] = {
    "systemd": read_systemd,
    "cron": read_cron,
    "rc": read_rc,
    "shell": read_shell,
    "desktop": read_desktop,
    "kernel-module": read_kernel_modules,
    "preload": read_preload,
    "udev": read_udev,
    "pam": read_pam,
    "ssh": read_ssh,
    "package-hook": read_package_hooks,
    "network": read_network,
    "motd": read_motd,
    "initramfs": read_initramfs,
    "dbus": read_dbus,
    "container": read_containers,
}


def read_starts(files: Rooted, kinds: Tuple[str, ...]) -> Iterator[Start]:
    """Yield what starts by itself, of the kinds wanted; of all where none are named."""
    for kind, read in READERS.items():
        if not kinds or kind in kinds:
            yield from read(files)

"""What something else sets off: devices, logins, packages, networks, containers, buses, the kernel.

Sources: modules-load.d(5), modprobe.d(5), proc(5) (modules); ld.so(8); udev(7); pam_exec(8); sshd(8);
apt.conf(5), dpkg(1); NetworkManager-dispatcher(8), interfaces(5), dhclient-script(8); update-motd(5);
initramfs-tools(7); podman-systemd.unit(5); the D-Bus specification, "Message Bus Starting Services"; the
files in which Docker's daemon keeps its containers.
"""

import json
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

from agent.platform.accounts_local import LocalAccounts
from agent.platform.authorized_keys import AuthorizedKeys
from agent.platform.autostart import (
    MOST_BYTES,
    Program,
    Start,
    exec_program,
    lines_of,
    scripts_in,
    settings_of,
    shell_programs,
)
from agent.platform.packages_languages import read_homes
from agent.platform.rooted import Rooted
from agent.scan.roots import join

_LOADED = b"/proc/modules"
_MODULE_LISTS = (
    b"/etc/modules",
    b"/etc/modules-load.d/*.conf",
    b"/run/modules-load.d/*.conf",
    b"/usr/local/lib/modules-load.d/*.conf",
    b"/usr/lib/modules-load.d/*.conf",
)
_MODPROBE = (b"/etc/modprobe.d/*.conf", b"/run/modprobe.d/*.conf", b"/usr/lib/modprobe.d/*.conf")
_UDEV = (
    b"/etc/udev/rules.d/*.rules",
    b"/run/udev/rules.d/*.rules",
    b"/usr/local/lib/udev/rules.d/*.rules",
    b"/usr/lib/udev/rules.d/*.rules",
)
_UDEV_RUNS = re.compile(
    rb'(?:RUN(?:\{program\})?|PROGRAM|IMPORT\{program\})\s*(?:\+=|:=|==|=)\s*e?"((?:[^"\\]|\\.){1,4096})"'
)
_APT_RUNS = re.compile(rb"-Invoke(?:-Success)?(?:::)?\s*(\{[^{}]{0,8192}\}|\"(?:[^\"\\]|\\.){1,4096}\")")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.){1,4096})"')
_NETWORK = (
    b"/etc/NetworkManager/dispatcher.d", b"/etc/NetworkManager/dispatcher.d/pre-up.d",
    b"/etc/NetworkManager/dispatcher.d/pre-down.d", b"/etc/NetworkManager/dispatcher.d/no-wait.d",
    b"/usr/lib/NetworkManager/dispatcher.d", b"/etc/network/if-up.d", b"/etc/network/if-down.d",
    b"/etc/network/if-pre-up.d", b"/etc/network/if-post-down.d", b"/etc/ppp/ip-up.d", b"/etc/ppp/ip-down.d",
    b"/etc/dhcp/dhclient-enter-hooks.d", b"/etc/dhcp/dhclient-exit-hooks.d",
    b"/etc/networkd-dispatcher/routable.d", b"/etc/networkd-dispatcher/configured.d",
    b"/usr/lib/networkd-dispatcher/routable.d",
)  # fmt: skip
_INTERFACE_COMMANDS = (b"up", b"pre-up", b"post-up", b"down", b"pre-down", b"post-down")
_QUADLETS = (b"/etc/containers/systemd", b"/run/containers/systemd", b"/usr/share/containers/systemd")
_OF_HOMES_QUADLETS = b"/.config/containers/systemd"
_BUSES = (
    b"/usr/share/dbus-1/system-services",
    b"/usr/local/share/dbus-1/system-services",
    b"/etc/dbus-1/system-services",
    b"/usr/share/dbus-1/services",
)
_INITRAMFS = (
    b"hooks", b"scripts/init-top", b"scripts/init-premount", b"scripts/init-bottom", b"scripts/local-top",
    b"scripts/local-premount", b"scripts/local-bottom", b"scripts/panic",
)  # fmt: skip


def read_kernel_modules(files: Rooted) -> Iterator[Start]:
    """Yield the modules that are loaded, those that are to be, and commands that loading one runs."""
    for path in (path for pattern in _MODULE_LISTS for path in files.expand(pattern)):
        for number, line in lines_of(files.read(path, MOST_BYTES)):
            yield Start("kernel-module", path, line.split()[0], line=number)
    for path in (path for pattern in _MODPROBE for path in files.expand(pattern)):
        for number, line in lines_of(files.read(path, MOST_BYTES)):
            words = line.split(None, 2)
            if words[0] in (b"install", b"remove") and len(words) > 2:  # noqa: PLR2004  (which, and what to run)
                yield Start("kernel-module", path, words[1], programs=shell_programs(words[2]), line=number)
    places = _module_files(files)
    for _, line in lines_of(files.read(_LOADED, MOST_BYTES)):
        name = line.split()[0]
        # One without a file of its own: from the first disk, or hidden.
        yield Start("kernel-module", places.get(name, _LOADED), name, programs=())


def _module_files(files: Rooted) -> Dict[bytes, bytes]:
    """Return where modules lie, by the name under which the kernel lists them."""
    release = (files.read(b"/proc/sys/kernel/osrelease", 256) or b"").strip()
    home = b"/lib/modules/" + release
    found: Dict[bytes, bytes] = {}
    if release and b"/" not in release:
        for line in (files.read(home + b"/modules.dep", MOST_BYTES << 4) or b"").split(b"\n"):
            path = line.partition(b":")[0]
            name = path.rpartition(b"/")[2].partition(b".")[0].replace(b"-", b"_")
            if name:
                found[name] = path if path.startswith(b"/") else join(home, path)
    return found


def read_preload(files: Rooted) -> Iterator[Start]:
    """Yield the libraries that every program loads."""
    path = b"/etc/ld.so.preload"
    for number, line in lines_of(files.read(path, MOST_BYTES)):
        for word in line.replace(b":", b" ").split():
            yield Start("preload", path, word.rpartition(b"/")[2], programs=(Program(word),), line=number)


def read_udev(files: Rooted) -> Iterator[Start]:
    """Yield the rules that run something when a device comes or goes."""
    for path in (path for pattern in _UDEV for path in files.expand(pattern)):
        programs: List[Program] = []
        data = (files.read(path, MOST_BYTES) or b"").replace(b"\\\n", b" ")
        for _, line in lines_of(data):
            for match in _UDEV_RUNS.finditer(line):
                for program in exec_program(match[1]):
                    whole = program.path if b"/" in program.path else b"/usr/lib/udev/" + program.path
                    programs.append(program._replace(path=whole))
        if programs:
            yield Start("udev", path, path.rpartition(b"/")[2], programs=tuple(dict.fromkeys(programs)))


def read_pam(files: Rooted) -> Iterator[Start]:
    """Yield what logging in runs, and modules that are loaded by a path of their own."""
    for path in [*files.expand(b"/etc/pam.d/*"), b"/etc/pam.conf"]:
        for number, line in lines_of(files.read(path, MOST_BYTES)):
            words = line.split()
            at = next((at for at, word in enumerate(words) if word.endswith(b".so")), None)
            if at is None:
                continue
            programs: Tuple[Program, ...] = ()
            if words[at].startswith(b"/"):
                programs = (Program(words[at]),)
            if words[at].endswith(b"pam_exec.so"):
                called = next(
                    (n for n, word in enumerate(words[at:], at) if n > at and word.startswith(b"/")), None
                )
                if called is not None:
                    programs += (Program(words[called], len(words) - called - 1),)
            if programs:
                yield Start("pam", path, path.rpartition(b"/")[2], programs=programs, line=number)


def read_ssh(files: Rooted) -> Iterator[Start]:
    """Yield commands that are forced on who logs in with a key, and scripts that every login runs."""
    local, keys = LocalAccounts(files), AuthorizedKeys(files)
    for account in local.accounts:
        for path in keys.paths(account):
            for number, line in lines_of(files.read(path, MOST_BYTES)):
                command = _forced_command(line)
                if command:
                    yield Start(
                        "ssh",
                        path,
                        account.name,
                        programs=shell_programs(command),
                        line=number,
                        user=account.name,
                    )
        script = join(account.home or b"/", b".ssh/rc")
        if files.status(script, follow=True) is not None:
            yield Start("ssh", script, account.name, user=account.name)
    if files.status(b"/etc/ssh/sshrc", follow=True) is not None:
        yield Start("ssh", b"/etc/ssh/sshrc", b"sshrc")


_COMMAND = re.compile(rb'(?:^|,)command="((?:[^"\\]|\\.){1,16384})"', re.IGNORECASE)


def _forced_command(line: bytes) -> Optional[bytes]:
    found = _COMMAND.search(line[: 1 << 16])
    return found[1].replace(b'\\"', b'"') if found is not None else None


def read_package_hooks(files: Rooted) -> Iterator[Start]:
    """Yield what apt and dpkg run before and after their work."""
    for path in [b"/etc/apt/apt.conf", *files.expand(b"/etc/apt/apt.conf.d/*")]:
        data = b"\n".join(
            line for _, line in lines_of(files.read(path, MOST_BYTES)) if not line.startswith(b"//")
        )
        programs: List[Program] = []
        for match in _APT_RUNS.finditer(data):
            for command in _QUOTED.findall(match[1]):
                programs += shell_programs(command.replace(b'\\"', b'"'))
        if programs:
            yield Start(
                "package-hook", path, path.rpartition(b"/")[2], programs=tuple(dict.fromkeys(programs))
            )
    for path in [b"/etc/dpkg/dpkg.cfg", *files.expand(b"/etc/dpkg/dpkg.cfg.d/*")]:
        for number, line in lines_of(files.read(path, MOST_BYTES)):
            words = line.lstrip(b"-").replace(b"=", b" ", 1).split(None, 1)
            if len(words) > 1 and words[0] in (b"pre-invoke", b"post-invoke", b"status-logger"):
                ran = shell_programs(words[1].strip(b" =\"'"))
                yield Start("package-hook", path, words[0], programs=ran, line=number)


def read_network(files: Rooted) -> Iterator[Start]:
    """Yield what runs when a network comes or goes."""
    for directory in _NETWORK:
        yield from scripts_in(files, directory, "network")
    for path in [b"/etc/network/interfaces", *files.expand(b"/etc/network/interfaces.d/*")]:
        for number, line in lines_of(files.read(path, MOST_BYTES)):
            word, _, command = line.partition(b" ")
            if word in _INTERFACE_COMMANDS:
                yield Start(
                    "network", path, word, programs=shell_programs(command), line=number, user=b"root"
                )


def read_motd(files: Rooted) -> Iterator[Start]:
    """Yield the scripts that make the greeting at login."""
    yield from scripts_in(files, b"/etc/update-motd.d", "motd")


def read_initramfs(files: Rooted) -> Iterator[Start]:
    """Yield the administrator's scripts that go into, or make, what boots first."""
    for name in _INITRAMFS:
        yield from scripts_in(files, b"/etc/initramfs-tools/" + name, "initramfs")


def read_dbus(files: Rooted) -> Iterator[Start]:
    """Yield the services that are started when somebody asks for them on a bus."""
    for path in (path for place in _BUSES for path in files.expand(b"*.service", below=place)):
        programs: List[Program] = []
        user = None
        for section, name, value in settings_of(files.read(path, MOST_BYTES)):
            if section == b"D-BUS Service" and name == b"Exec":
                programs += exec_program(value)
            elif section == b"D-BUS Service" and name == b"User":
                user = value
        yield Start("dbus", path, path.rpartition(b"/")[2], programs=tuple(programs), user=user)


def read_containers(files: Rooted) -> Iterator[Start]:
    """Yield containers that start again by themselves: Docker's, Podman's units, the node's own pods."""
    for path in files.expand(b"/var/lib/docker/containers/*/hostconfig.json"):
        config = _document(files, path.rpartition(b"/")[0] + b"/config.v2.json")
        policy = _document(files, path).get("RestartPolicy")
        name = policy.get("Name") if isinstance(policy, dict) else ""
        program, arguments = config.get("Path"), config.get("Args")
        programs: Tuple[Program, ...] = ()
        if isinstance(program, str) and program:
            count = len(arguments) if isinstance(arguments, list) else 0
            programs = (Program(b"container:" + program.encode("utf-8", "replace"), count),)
        title = config.get("Name")
        label = (
            title.strip("/").encode("utf-8", "replace") if isinstance(title, str) else path.split(b"/")[-2]
        )
        yield Start("container", path, label[:256], name not in ("", "no", None), programs)
    places = [*_QUADLETS, *(home + _OF_HOMES_QUADLETS for home in read_homes(files))]
    for path in (path for place in places for path in files.expand(b"*.container", below=place)):
        sections = {section for section, _, _ in settings_of(files.read(path, MOST_BYTES))}
        yield Start("container", path, path.rpartition(b"/")[2], b"Install" in sections)
    for path in files.expand(b"/etc/kubernetes/manifests/*"):
        yield Start("container", path, path.rpartition(b"/")[2])


def _document(files: Rooted, path: bytes) -> Dict[str, Any]:
    data = files.read(path, MOST_BYTES)
    try:
        document = json.loads(data.decode("utf-8", "replace")) if data is not None else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        files.lose(path, "is not what Docker writes")
        return {}
    return document

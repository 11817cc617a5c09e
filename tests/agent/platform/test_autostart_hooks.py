"""Tests of what something else sets off."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.platform import autostart_hooks as hooks
from agent.platform.autostart import Start
from agent.platform.autostart_sources import READERS
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import Tree, grow

Told = list[tuple[str, list[str]]]
HOSTILE = [b"\x00\xff\x1b", b'RUN+="' * 2000, b'command="' * 2000, b"-Invoke {" * 2000, b"=\n[\n]"]


def told(root: Path, read: Callable[[Rooted], Iterator[Start]], tree: Tree) -> Told:
    files = Rooted(str(grow(root, tree)))
    found = [
        (start.name.decode(), [program.path.decode() for program in start.programs]) for start in read(files)
    ]
    assert files.errors == 0
    return found


@pytest.mark.parametrize(
    ("read", "tree", "found"),
    [
        (hooks.read_preload, {"etc/ld.so.preload": b"/a.so /b.so:/c.so\n"},
         [("a.so", ["/a.so"]), ("b.so", ["/b.so"]), ("c.so", ["/c.so"])]),
        (hooks.read_kernel_modules, {"etc/modules": b"# x\nloop max_loop=8\n"}, [("loop", [])]),
        (hooks.read_kernel_modules,
         {"etc/modprobe.d/x.conf": b"install usb /bin/sh -c '/evil; true'\nblacklist y\n"},
         [("usb", ["/bin/sh", "/evil", "true"])]),
        (hooks.read_kernel_modules,
         {"proc/modules": b"dm_mod 1 0 - Live 0x0\nhidden 1 0 - Live 0x0\n",
          "proc/sys/kernel/osrelease": b"6.1\n",
          "lib/modules/6.1/modules.dep": b"kernel/md/dm-mod.ko.xz: a\n"},
         [("dm_mod", []), ("hidden", [])]),
        (hooks.read_udev,
         {"etc/udev/rules.d/x.rules": b'ACTION=="add", RUN+="/bin/sh -c \'/x y\'", PROGRAM="tool a"\n',
          "etc/udev/rules.d/y.rules": b'KERNEL=="sda", MODE="0600"\n'},
         [("x.rules", ["/bin/sh", "/x", "/usr/lib/udev/tool"])]),
        (hooks.read_pam,
         {"etc/pam.d/sshd": b"auth required pam_unix.so\nsession optional pam_exec.so seteuid /opt/x secret\n"
          b"auth sufficient /tmp/back.so\n"},
         [("sshd", ["/opt/x"]), ("sshd", ["/tmp/back.so"])]),
        (hooks.read_ssh,
         {"etc/passwd": b"eve:x:1:1::/home/eve:/bin/sh\n",
          "home/eve/.ssh/authorized_keys":
          b'no-pty,command="/opt/run \\"a b\\"; /opt/more" ssh-rsa AAAA\nssh-rsa B\n',
          "home/eve/.ssh/rc": b"", "etc/ssh/sshrc": b""},
         [("eve", ["/opt/run", "/opt/more"]), ("eve", []), ("sshrc", [])]),
        (hooks.read_package_hooks,
         {"etc/apt/apt.conf.d/x": b'// a\nDPkg::Post-Invoke { "if [ -x /a ]; then /a -q; fi"; };\n'
          b'APT::Update::Pre-Invoke:: "/b";\nDPkg::Tools::Options::/c::Version "2";\n',
          "etc/dpkg/dpkg.cfg.d/y": b"post-invoke=/d e\nforce-unsafe-io\n"},
         [("x", ["[", "/a", "fi", "/b"]), ("post-invoke", ["/d"])]),
        (hooks.read_network,
         {"etc/network/interfaces": b"iface eth0 inet dhcp\n  post-up /a b\n", "etc/network/if-up.d/x": b""},
         [("x", ["/etc/network/if-up.d/x"]), ("post-up", ["/a"])]),
        (hooks.read_motd, {"etc/update-motd.d/10-x": b""}, [("10-x", ["/etc/update-motd.d/10-x"])]),
        (hooks.read_initramfs, {"etc/initramfs-tools/hooks/x": b""},
         [("x", ["/etc/initramfs-tools/hooks/x"])]),
        (hooks.read_dbus,
         {"usr/share/dbus-1/system-services/x.service": b"[D-BUS Service]\nName=x\nExec=/a b\nUser=root\n"},
         [("x.service", ["/a"])]),
    ],
)  # fmt: skip
def test_what_is_set_off_is_told_with_its_programs(
    tmp_path: Path, read: Callable[[Rooted], Iterator[Start]], tree: Tree, found: Told
) -> None:
    assert told(tmp_path, read, tree) == found


def test_a_loaded_module_without_a_file_is_told_by_the_kernel_s_list(tmp_path: Path) -> None:
    tree = {
        "proc/modules": b"dm_mod 1 0 - Live 0x0\nhidden 1 0 - Live 0x0\n",
        "proc/sys/kernel/osrelease": b"6.1\n",
        "lib/modules/6.1/modules.dep": b"kernel/md/dm-mod.ko.xz:\n",
    }
    found = hooks.read_kernel_modules(Rooted(str(grow(tmp_path, tree))))
    assert [start.path for start in found] == [b"/lib/modules/6.1/kernel/md/dm-mod.ko.xz", b"/proc/modules"]


def test_containers_are_enabled_by_their_restart_policy(tmp_path: Path) -> None:
    tree: dict[str, bytes] = {}
    for name, policy in (("a", "always"), ("b", "no"), ("c", "")):
        home = f"var/lib/docker/containers/{name * 64}"
        config = {"Name": f"/{name}", "Path": "/bin/run", "Args": ["--token", "secret"]}
        tree[f"{home}/config.v2.json"] = json.dumps(config).encode()
        tree[f"{home}/hostconfig.json"] = json.dumps({"RestartPolicy": {"Name": policy}}).encode()
    tree["etc/containers/systemd/q.container"] = b"[Container]\nImage=x\n[Install]\nWantedBy=default.target\n"
    tree["home/eve/.config/containers/systemd/r.container"] = b"[Container]\nImage=x\n"
    tree["etc/kubernetes/manifests/pod.yaml"] = b""
    found = list(hooks.read_containers(Rooted(str(grow(tmp_path, tree)))))
    assert [(start.name.decode(), start.enabled) for start in found] == [
        ("a", True),
        ("b", False),
        ("c", False),
        ("q.container", True),
        ("r.container", False),
        ("pod.yaml", True),
    ]
    assert [tuple(program) for program in found[0].programs] == [(b"container:/bin/run", 2)]


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"[" * 100_000, b'{"RestartPolicy": 3, "Name": 4, "Path": []}']
)
def test_containers_that_are_none_do_no_harm(tmp_path: Path, document: bytes) -> None:
    home = "var/lib/docker/containers/x"
    grow(tmp_path, {f"{home}/config.v2.json": document, f"{home}/hostconfig.json": document})
    (start,) = hooks.read_containers(Rooted(str(tmp_path)))
    assert (start.name, start.enabled) == (b"x", False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_files_do_no_harm_to_any_reader(tmp_path: Path, kind: str, content: bytes) -> None:
    names = (
        "etc/passwd", "etc/crontab", "etc/ld.so.preload", "etc/modules", "etc/modprobe.d/x.conf",
        "etc/pam.d/x", "etc/udev/rules.d/x.rules", "etc/apt/apt.conf.d/x", "etc/dpkg/dpkg.cfg",
        "etc/network/interfaces",
        "home/e/.ssh/authorized_keys", "etc/systemd/system/x.service", "etc/xdg/autostart/x.desktop",
        "usr/share/dbus-1/services/x.service", "proc/modules", "etc/environment", "etc/anacrontab",
    )  # fmt: skip
    files = Rooted(str(grow(tmp_path, dict.fromkeys(names, content))))
    for start in READERS[kind](files):
        assert start.kind == kind

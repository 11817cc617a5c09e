"""What starts at a time, at boot and at login: cron, anacron, at, rc scripts, shells' files, desktops.

Sources: crontab(5), cron(8) of Debian and of cronie, anacrontab(5), at(1); init.d and LSB; OpenRC's guide;
bash(1), zsh(1), INVOCATION and STARTUP FILES; the Desktop Application Autostart Specification.
"""

from typing import Iterator, List, Set, Tuple

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

_SPOOLS = (b"/var/spool/cron/crontabs", b"/var/spool/cron", b"/etc/crontabs", b"/var/cron/tabs")
_PERIODS = (b"hourly", b"daily", b"weekly", b"monthly", b"yearly")
_ALPINE_PERIODS = (b"15min", b"hourly", b"daily", b"weekly", b"monthly")
_AT = (b"/var/spool/at", b"/var/spool/cron/atjobs", b"/var/spool/atjobs")
_RC_FILES = (
    b"/etc/rc.local",
    b"/etc/rc.d/rc.local",
    b"/etc/rc.d/rc.sysinit",
    b"/etc/inittab",
    b"/etc/rc.conf",
)
_INIT = (b"/etc/init.d", b"/etc/rc.d/init.d")
_LEVELS = (b"/etc/rc?.d", b"/etc/rc.d/rc?.d")
_SHELL_FILES = (
    b"/etc/profile", b"/etc/bash.bashrc", b"/etc/bashrc", b"/etc/bash.bash_logout", b"/etc/csh.login",
    b"/etc/csh.cshrc", b"/etc/zsh/*", b"/etc/zshenv", b"/etc/zprofile", b"/etc/zshrc", b"/etc/profile.d/*",
    b"/etc/fish/config.fish", b"/etc/fish/conf.d/*", b"/etc/environment", b"/etc/environment.d/*",
    b"/etc/X11/Xsession.d/*", b"/etc/X11/xinit/xinitrc.d/*", b"/etc/security/pam_env.conf",
)  # fmt: skip
_OF_HOMES = (
    b".profile", b".bash_profile", b".bash_login", b".bashrc", b".bash_logout", b".zshenv", b".zprofile",
    b".zshrc", b".zlogin", b".zlogout", b".cshrc", b".tcshrc", b".login", b".kshrc", b".xinitrc",
    b".xsession", b".xsessionrc", b".xprofile", b".pam_environment", b".config/fish/config.fish",
    b".config/environment.d/*", b".config/plasma-workspace/env/*",
)  # fmt: skip
_CRON_TIMES = 5


def read_cron(files: Rooted) -> Iterator[Start]:
    """Yield what cron, anacron and at start: each entry, each script, each job."""
    yield from _tables(files)
    for period in _PERIODS:
        yield from scripts_in(files, b"/etc/cron." + period, "cron")
    for period in _ALPINE_PERIODS:
        yield from scripts_in(files, b"/etc/periodic/" + period, "cron")
    yield from _anacron(files)
    for spool in _AT:
        for entry in files.list(spool):
            # A job is a script that sets up its environment first: which program it is for cannot be told.
            if not entry.is_directory and not entry.name.startswith(b"."):
                yield Start("cron", join(spool, entry.name), entry.name)


def _anacron(files: Rooted) -> Iterator[Start]:
    path = b"/etc/anacrontab"
    for number, line in lines_of(files.read(path, MOST_BYTES)):
        words = line.split(None, 3)
        if len(words) == 4 and b"=" not in words[0]:  # noqa: PLR2004  (period, delay, name, command)
            programs = shell_programs(words[3])
            yield Start("cron", path, words[2], programs=programs, line=number, user=b"root")


def _tables(files: Rooted) -> Iterator[Start]:
    yield from _table(files, b"/etc/crontab", has_user=True)
    for entry in files.list(b"/etc/cron.d"):
        if not entry.is_directory:
            yield from _table(files, join(b"/etc/cron.d", entry.name), has_user=True)
    seen = set()
    for spool in _SPOOLS:
        real = files.inside(spool)
        for entry in files.list(spool) if real not in seen else ():
            if not entry.is_directory:
                yield from _table(files, join(spool, entry.name), has_user=False)
        seen.add(real)


def _table(files: Rooted, path: bytes, *, has_user: bool) -> Iterator[Start]:
    name = path.rpartition(b"/")[2]
    # Debian's cron leaves files with a dot in their name out; cronie reads them. All are told.
    for number, line in lines_of(files.read(path, MOST_BYTES)):
        times = 1 if line.startswith(b"@") else _CRON_TIMES
        words = line.split(None, times + has_user)
        if len(words) <= times + has_user or b"=" in words[0]:
            continue
        # A % that no backslash stands before begins what the command reads.
        command = words[-1].replace(b"\\%", b"\0").split(b"%")[0].replace(b"\0", b"%")
        user = words[times] if has_user else name
        yield Start("cron", path, name, programs=shell_programs(command), line=number, user=user)


def read_rc(files: Rooted) -> Iterator[Start]:
    """Yield what init, OpenRC and Upstart start."""
    for path in _RC_FILES:
        status = files.status(path, follow=True)
        if status is not None:
            is_enabled = bool(status.st_mode & 0o111) or path.endswith((b"inittab", b".conf"))
            yield Start("rc", path, path.rpartition(b"/")[2], is_enabled)
    enabled: Set[bytes] = set()
    for level in (place for pattern in _LEVELS for place in files.expand(pattern)):
        enabled.update(entry.name[3:] for entry in files.list(level) if entry.name.startswith(b"S"))
    for level in files.expand(b"/etc/runlevels/*"):
        enabled.update(entry.name for entry in files.list(level))
    seen = set()
    for directory in _INIT:
        if files.inside(directory) not in seen:
            seen.add(files.inside(directory))
            for start in scripts_in(files, directory, "rc"):
                yield start._replace(enabled=start.name in enabled)
    yield from scripts_in(files, b"/etc/local.d", "rc")
    for path in files.expand(b"/etc/init/*.conf"):
        yield Start("rc", path, path.rpartition(b"/")[2], enabled=None)


def read_shell(files: Rooted) -> Iterator[Start]:
    """Yield the files that shells and sessions read when they begin or end."""
    patterns: List[Tuple[bytes, bytes]] = [(b"/", pattern) for pattern in _SHELL_FILES]
    patterns += [(home, pattern) for home in read_homes(files) for pattern in _OF_HOMES]
    for below, pattern in patterns:
        for path in files.expand(pattern, below=below):
            status = files.status(path, follow=True)
            if status is not None:
                yield Start("shell", path, path.rpartition(b"/")[2], programs=_preloaded(files, path))


def _preloaded(files: Rooted, path: bytes) -> Tuple[Program, ...]:
    """Return the libraries that a file of environment variables has everybody load."""
    found: List[Program] = []
    if b"environment" in path:
        for _, line in lines_of(files.read(path, MOST_BYTES)):
            name, _, value = line.partition(b"=")
            if name.replace(b"export ", b"").strip() in (b"LD_PRELOAD", b"LD_AUDIT"):
                found += [Program(word) for word in value.strip(b"\"' ").replace(b":", b" ").split()]
    return tuple(found)


def read_desktop(files: Rooted) -> Iterator[Start]:
    """Yield what desktops start at login."""
    places = [b"/etc/xdg/autostart", *(home + b"/.config/autostart" for home in read_homes(files))]
    for path in (path for place in places for path in files.expand(b"*.desktop", below=place)):
        programs: List[Program] = []
        is_enabled = True
        for section, name, value in settings_of(files.read(path, MOST_BYTES)):
            if section != b"Desktop Entry":
                continue
            if name == b"Exec":
                programs += exec_program(value)
            elif (name, value.lower()) in ((b"Hidden", b"true"), (b"X-GNOME-Autostart-enabled", b"false")):
                is_enabled = False
        yield Start("desktop", path, path.rpartition(b"/")[2], is_enabled, tuple(programs))

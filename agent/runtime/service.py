"""Installs the agent as a service under systemd: what `mig-agent` does when root starts it without a word.

The unit runs the very file that was started, by its absolute path, and restarts it for ever. Nothing in the
unit limits what the agent may read: that is what it is for; each command's child has its own limits.
"""

import subprocess
from pathlib import Path

from agent.runtime.state import environment_failure, sync_directory, write_atomically
from protocol.errors import EnvironmentFailure, InvalidInput

UNIT = Path("/etc/systemd/system/mig-agent.service")
_SYSTEMCTL = ("/usr/bin/systemctl", "/bin/systemctl")
_NEEDS_QUOTES = set(" \t\"'\\$%;")


def is_systemd() -> bool:
    """Tell whether systemd runs this system (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def unit_text(program: Path) -> str:
    """Return the unit file for a program at this absolute path.

    Raises:
        InvalidInput: `unsafe-file` for a path that systemd.unit(5) would read as something else.

    """
    if not program.is_absolute() or _NEEDS_QUOTES & set(str(program)) or not str(program).isprintable():
        raise InvalidInput(
            "unsafe-file", f"the agent's path must be absolute and plain, not {str(program)!r}"
        )
    return f"""[Unit]
Description=Mozilla InvestiGator agent
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={program} run --foreground
Restart=always
RestartSec=5
UMask=0077
KillMode=control-group

[Install]
WantedBy=multi-user.target
"""


def remove_service(program: Path, unit: Path = UNIT) -> bool:
    """Remove the unit, if it is word for word what was installed for this program; tell whether it was.

    The service is not stopped: it is the agent itself that asks, and ends by itself; without its unit nothing
    starts it again.

    Raises:
        EnvironmentFailure: `state-failed`, where the unit cannot be removed.
        InvalidInput: `unsafe-file`.

    """
    try:
        if unit.read_text(encoding="utf-8", errors="replace") != unit_text(program):
            return False
        systemctl = next((path for path in _SYSTEMCTL if Path(path).exists()), None)
        if systemctl is not None:  # what it cannot do is done by the removal of the file
            subprocess.run([systemctl, "disable", unit.name], capture_output=True, check=False)
        unit.unlink(missing_ok=True)
        sync_directory(unit.parent)
        if systemctl is not None:
            subprocess.run([systemctl, "daemon-reload"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise environment_failure(error, unit) from None
    return True


def install_service(program: Path) -> str:
    """Install the unit, enable it and (re)start it; return one line that says what was done.

    Args:
        program: absolute path of the agent's file.

    Raises:
        EnvironmentFailure: `tool-missing` without systemctl, `state-failed` when it fails.
        InvalidInput: `unsafe-file`.

    """
    text = unit_text(program)
    systemctl = next((path for path in _SYSTEMCTL if Path(path).exists()), None)
    if systemctl is None:
        raise EnvironmentFailure("tool-missing", "systemctl is not installed")
    write_atomically(UNIT, text.encode())
    UNIT.chmod(0o644)
    for words in (["daemon-reload"], ["enable", "mig-agent.service"], ["restart", "mig-agent.service"]):
        done = subprocess.run([systemctl, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EnvironmentFailure("state-failed", f"systemctl {' '.join(words)}: {done.stderr.strip()}")
    return f"installed and started the service mig-agent ({UNIT}), which runs {program}"

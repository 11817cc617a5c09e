"""Installs the agent as a service under systemd: what `mig-agent` does when root starts it without a word.

The unit runs the very file that was started, by its absolute path, and restarts it for ever. Nothing in the
unit limits what the agent may read: that is what it is for; each command's child has its own limits.
"""

import subprocess
from pathlib import Path

from agent.runtime.state import write_atomically
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

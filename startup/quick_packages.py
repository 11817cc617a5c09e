"""What `quickstart` installs: Debian packages that are missing, and the Python packages of requirements/.

Standard library only: it runs before anything is installed.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from startup.quick_processes import ROOT, VAR, QuickstartError, run, run_with_progress, say

PYTHON = VAR / "venv" / "bin" / "python"
PACKAGES = {  # what shows that a package is there, below /
    "python3-venv": ("usr/lib/python3*/ensurepip", f"{sys.base_prefix[1:]}/lib/python3*/ensurepip"),
    "gnupg": ("usr/bin/gpg",),
    "rabbitmq-server": ("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server",),
}


def install_system_packages(relay: str | None) -> None:
    """Install the Debian packages that are missing, through apt; no daemon that they bring is started."""
    missing = [
        name
        for name, patterns in PACKAGES.items()
        if not any(any(Path("/").glob(pattern)) for pattern in patterns)
        and not (relay and name == "rabbitmq-server")
    ]
    if not missing:
        return
    names = " ".join(missing)
    sudo = [] if os.getuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get"):
        raise QuickstartError(f"missing: {names}. Install them with this system's package manager")
    if sudo and (
        not shutil.which("sudo")
        or subprocess.run([*sudo, "true"], check=False, capture_output=True).returncode
    ):
        raise QuickstartError(
            f"missing: {names}. Install them: sudo apt-get install --no-install-recommends {names}"
        )
    say(f"installing {names} from the system's packages")
    with daemons_stay_off(sudo):
        run_with_progress([*sudo, "apt-get", "update", "-q"], "reading the package lists", lambda _: None)
        run_with_progress(
            [
                *sudo,
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "install",
                "-yq",
                "--no-install-recommends",
                *missing,
            ],
            f"installing {names}",
            lambda line: (
                line
                if line.startswith(("Setting up rabbit", "Setting up erlang-base", "Setting up gnupg"))
                else None
            ),
        )


@contextlib.contextmanager
def daemons_stay_off(sudo: Sequence[str]) -> Iterator[None]:
    """Keep apt from starting daemons meanwhile (policy-rc.d, Debian policy 9.3.3.1)."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    subprocess.run(
        [*sudo, "tee", policy], input=b"#!/bin/sh\nexit 101\n", stdout=subprocess.DEVNULL, check=True
    )
    subprocess.run([*sudo, "chmod", "755", policy], check=True)
    try:
        yield
    finally:
        subprocess.run([*sudo, "rm", "-f", policy], check=True)


def install_python_packages() -> None:
    """Make the virtual environment, unless the one that is there has what requirements/ pins."""
    files = sorted((ROOT / "requirements").glob("*"))
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = VAR / "venv" / ".requirements"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    say("installing Python packages into var/venv")
    if not PYTHON.exists():
        run([sys.executable, "-m", "venv", VAR / "venv"], "making the virtual environment")
    run_with_progress(
        [
            PYTHON,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            "-r",
            ROOT / "requirements/run.txt",
        ],
        "installing Python packages",
        lambda line: line.split(" (from")[0] if line.startswith("Collecting ") else None,
    )
    stamp.write_text(wanted)

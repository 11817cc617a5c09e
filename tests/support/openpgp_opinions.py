"""What GnuPG and Sequoia say of a signature: the second and third opinion beside our policy.

How their words are mapped:
* gpg accepts where its status lines hold GOODSIG and VALIDSIG, and none of EXPKEYSIG, REVKEYSIG, EXPSIG.
  Its exit code does not count: it is 0 for keys that are revoked or have expired. The certificate is imported
  into an empty home; the clock is the caller's (`--faked-system-time`).
* Sequoia accepts where `pysequoia.verify` returns. It takes the time from the machine's clock, and judges the
  key at the time that the signature states.
* We accept where neither `parse_certificate` nor `require_detached_signature` refuses.
"""

import shutil
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pysequoia

from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate, parse_signature_file, require_detached_signature

_ACCEPTING = {"GOODSIG", "VALIDSIG"}
_SPOILING = {"EXPKEYSIG", "REVKEYSIG", "EXPSIG"}


class Case(NamedTuple):
    """A certificate, a detached signature, and the message; each as its file would be."""

    certificate: bytes
    signature: bytes
    message: bytes


def refusal(case: Case, now: datetime) -> str | None:
    """Return why we refuse the case; None where we accept it."""
    try:
        certificate = parse_certificate(case.certificate)
        signature = parse_signature_file(case.signature)
        require_detached_signature(certificate, signature, case.message, now)
    except InvalidInput as error:
        return str(error)
    return None


def is_accepted_by_sequoia(case: Case) -> bool:
    """Tell what Sequoia says, now."""
    try:
        certificate = pysequoia.Cert.from_bytes(case.certificate)
        signature = pysequoia.Sig.from_bytes(case.signature)
        pysequoia.verify(case.message, signature=signature, store=lambda _: [certificate])
    except Exception:  # noqa: BLE001  (its exceptions have no common base)
        return False
    return True


def is_accepted_by_gpg(case: Case, now: datetime) -> bool:
    """Tell what the gpg that is installed says at `now`."""
    home = Path(tempfile.mkdtemp(prefix="mg", dir="/tmp"))
    try:
        for name, content in zip(case._fields, case, strict=True):
            (home / name).write_bytes(content)
        _gpg(home, now, "--import", str(home / "certificate"))
        status = _gpg(home, now, "--verify", str(home / "signature"), str(home / "message"))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    words = {line.split()[1] for line in status.splitlines() if line.startswith("[GNUPG:] ")}
    return words >= _ACCEPTING and not words & _SPOILING


def _gpg(home: Path, now: datetime, *arguments: str) -> str:
    return subprocess.run(
        [
            *("gpg", "--homedir", str(home), "--batch", "--no-autostart", "--status-fd", "1"),
            *("--faked-system-time", f"{now:%Y%m%dT%H%M%S}!", *arguments),  # "!": the clock stands still
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    ).stdout

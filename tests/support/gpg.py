"""An investigator with a real key in a real GnuPG home of their own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from protocol.envelope import Envelope, Signature, pae


class Investigator:
    """A person with an OpenPGP key made by the gpg that is installed here.

    The home must have a short path: gpg-agent's socket lies in it and may not exceed 107 characters.
    Where there is a clock, gpg takes it for the time.
    """

    def __init__(
        self,
        home: Path,
        *,
        name: str = "Ada Investigator",
        algorithm: str = "ed25519",
        clock: datetime | None = None,
    ) -> None:
        self.clock = clock
        self.home = home
        self.home.chmod(0o700)
        self.name = name
        self.user_id = f"{name} <{name.split(maxsplit=1)[0].lower()}@example.net>"
        self.gpg("--passphrase", "", "--quick-gen-key", self.user_id, algorithm, "default", "0")
        listing = self.gpg("--with-colons", "--list-keys").decode()
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr"))
        self.public_key = self.gpg("--armor", "--export", self.fingerprint)

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run gpg in this home and return what it prints."""
        done = subprocess.run(
            [
                "gpg",
                "--homedir",
                str(self.home),
                "--batch",
                "--quiet",
                "--pinentry-mode",
                "loopback",
                *([f"--faked-system-time={self.clock:%Y%m%dT%H%M%S}!"] if self.clock else []),
                *arguments,
            ],
            input=data,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def add_encryption_key(self, algorithm: str = "cv25519", expires: str = "0") -> None:
        """Add a subkey that answers can be sealed to."""
        self.gpg("--passphrase", "", "--quick-add-key", self.fingerprint, algorithm, "encr", expires)
        self.public_key = self.gpg("--armor", "--export", self.fingerprint)

    def sign_bytes(self, message: bytes, *, by: str = "") -> bytes:
        """Return a binary detached signature over `message`, by the key `by` or the one that gpg chooses.

        The digest is preferred, not forced: gpg refuses SHA-256 with keys on P-384 and P-521.
        """
        return self.gpg(
            *("--personal-digest-preferences", "SHA256 SHA384 SHA512"),
            *("--local-user", by or self.fingerprint, "--detach-sign"),
            data=message,
        )

    def sign(self, kind: str, payload: bytes) -> Envelope:
        """Return the envelope of type `kind` (a media type) with this investigator's signature."""
        return Envelope(kind, payload, (Signature(self.fingerprint, self.sign_bytes(pae(kind, payload))),))


@contextmanager
def temporary_investigator(
    name: str = "Ada Investigator", algorithm: str = "ed25519", clock: datetime | None = None
) -> Iterator[Investigator]:
    """Make an investigator in a short temporary home, and end its gpg-agent afterwards."""
    home = Path(tempfile.mkdtemp(prefix="mg", dir="/tmp"))
    try:
        yield Investigator(home, name=name, algorithm=algorithm, clock=clock)
    finally:
        environment = {**os.environ, "GNUPGHOME": str(home)}
        subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)

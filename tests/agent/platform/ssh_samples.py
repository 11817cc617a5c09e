"""SSH keys that OpenSSH and PuTTY make for tests."""

import subprocess
from pathlib import Path

KINDS = {
    "rsa": ("-t", "rsa", "-b", "2048"),
    "rsa-short": ("-t", "rsa", "-b", "1024"),
    "ecdsa-256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa-384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa-521": ("-t", "ecdsa", "-b", "521"),
    "ed25519": ("-t", "ed25519"),
}
FORMATS = {"openssh": (), "pem": ("-m", "PEM"), "pkcs8": ("-m", "PKCS8")}


def make_key(path: Path, kind: str, *, format: str = "openssh", passphrase: str = "") -> Path:  # noqa: A002
    """Make a key with a comment; its public half lies beside it."""
    command = ["/usr/bin/ssh-keygen", "-q", *KINDS[kind], *FORMATS[format], "-N", passphrase]
    subprocess.run([*command, "-C", f"a {kind}", "-f", str(path)], check=True)
    return path


def said_of(path: Path, digest: str = "sha256") -> tuple[int, str]:
    """Return bits and fingerprint of the first key of a file, as ssh-keygen says."""
    command = ["/usr/bin/ssh-keygen", "-l", "-E", digest, "-f", str(path)]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    bits, fingerprint, *_ = line.split(" ")
    return int(bits), fingerprint

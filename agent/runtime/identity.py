"""The agent's identity on disk: an Ed25519 key made on first start, bound to the machine.

Rules: the file is 0600 and ours, else it is not used; it holds the digest of the machine-id beside the key,
so a cloned image makes a new identity instead of speaking as its original.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.runtime.state import IDENTITY_FILE, require_private, write_atomically
from protocol.errors import EnvironmentFailure
from protocol.identity import agent_id


class Identity(NamedTuple):
    """Who this agent is. `is_new` where the key was made just now, on a first start or on a clone."""

    private_key: Ed25519PrivateKey
    agent_id: str
    is_new: bool


def load_identity(directory: Path, machine: str) -> Identity:
    """Load the identity kept in the state directory, or make one.

    Args:
        directory: the agent's state directory, private to it.
        machine: the machine-id, or an empty string where the system has none.

    Raises:
        EnvironmentFailure: `state-failed` when the file cannot be read or is damaged; `disk-full`.
        InvalidInput: `unsafe-file` when others can read or change it.

    """
    path = directory / IDENTITY_FILE
    bound = hashlib.sha256(b"mig machine " + machine.encode()).hexdigest()
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return _make_identity(path, bound)
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFailure("state-failed", f"{path}: {error}") from None
    require_private(path)
    try:
        kept = json.loads(text)
        private_key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(kept["key"]))
        machine_kept = kept["machine"]
    except (ValueError, KeyError, TypeError):
        # Making a new key here would silently turn a damaged disk into a second agent.
        raise EnvironmentFailure(
            "state-failed", f"{path} is damaged; remove it to enrol as a new agent"
        ) from None
    if machine_kept != bound:
        return _make_identity(path, bound)
    return Identity(private_key, agent_id(private_key.public_key().public_bytes_raw()), is_new=False)


def _make_identity(path: Path, bound: str) -> Identity:
    private_key = Ed25519PrivateKey.generate()
    content = json.dumps({"key": private_key.private_bytes_raw().hex(), "machine": bound})
    write_atomically(path, content.encode("ascii"))
    return Identity(private_key, agent_id(private_key.public_key().public_bytes_raw()), is_new=True)

"""Session tokens: kept in a file that only the investigator can read, for as long as the server allows.

A token is worth an hour of the investigator's rights on one server, never a signature: whoever steals one can
read answers and submit what somebody signed, and command nothing.
"""

import hashlib
import os
import stat
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from client.files import write_file
from protocol.documents import Session
from protocol.errors import InvalidInput
from protocol.login import NONCE_BYTES, Login, encode_login

# A token that ends while it is on its way costs a second login.
_MARGIN = timedelta(seconds=30)
_MAX_FILE_BYTES = 16384
_HEX_DIGITS = frozenset("0123456789abcdef")


def session_path(cache: Path, server: str, fingerprint: str) -> Path:
    """Return the file of one investigator's token for one server."""
    key = hashlib.sha256(f"{server}\n{fingerprint}".encode()).hexdigest()[:32]
    return cache / "sessions" / f"{key}.json"


def load_session(path: Path, fingerprint: str, now: datetime) -> Session | None:
    """Return the token kept in a file, if it is this investigator's, private and not about to end."""
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
                return None
            session = msgspec.json.decode(file.read(_MAX_FILE_BYTES), type=Session)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # made again by logging in
    if session.fingerprint != fingerprint or session.expires.tzinfo is None:
        return None
    return session if now + _MARGIN < session.expires else None


def save_session(path: Path, session: Session) -> None:
    """Keep a token, readable by its owner only.

    Raises:
        EnvironmentFailure: `state-failed`.

    """
    write_file(path, msgspec.json.encode(session), mode=0o600)


def compose_login(*, server: str, fingerprint: str, nonce: str, now: datetime) -> bytes:
    """Compose the login payload that the investigator signs.

    Raises:
        InvalidInput: `bad-document` where the server's nonce is not 32 bytes in hex: nothing else that a
            server chooses is ever signed.

    """
    if len(nonce) != 2 * NONCE_BYTES or set(nonce) - _HEX_DIGITS:
        raise InvalidInput("bad-document", "the server's challenge is not 32 bytes in hex")
    return encode_login(Login(server=server, fingerprint=fingerprint, nonce=nonce, time=now))

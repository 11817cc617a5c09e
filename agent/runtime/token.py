"""Where an enrolment token comes from: a file that is named, the usual file, or the agent's own file.

A token lets this machine ask to take part, and is of use only until it does. One in a file of root's is known
to that machine alone; one that is baked in is known to everybody who has the agent's file.
"""

import logging
import os
from pathlib import Path
from typing import Optional

from agent.runtime.state import require_private
from protocol.enrolment import EnrolmentToken, decode_token
from protocol.errors import InvalidInput

USUAL_FILE = Path("/etc/mig-agent.token")
_MAX_BYTES = 1024
_LOG = logging.getLogger("mig.agent")


def find_token(named: Optional[Path], baked: str, usual: Path = USUAL_FILE) -> Optional[EnrolmentToken]:
    """Return the token to show at the broker, or None.

    A file that is named must be good. The usual one may have been forgotten there: a bad one is told in the
    log, and an agent that is enrolled long since goes on.

    Raises:
        InvalidInput: `not-found`, `unsafe-file` or `bad-token`.

    """
    if named is not None:
        return read_token(named)
    if os.geteuid() == 0 and usual.exists():
        try:
            return read_token(usual)
        except InvalidInput as error:
            _LOG.warning("no enrolment token is taken from %s: %s", usual, error)
    return decode_token(baked) if baked else None


def read_token(path: Path) -> EnrolmentToken:
    """Read a token from a file that belongs to us and that nobody else can read.

    Raises:
        InvalidInput: `not-found`, `unsafe-file` or `bad-token`.

    """
    try:
        require_private(path)
        with path.open("rb") as stream:
            text = stream.read(_MAX_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise InvalidInput("not-found", f"{path}: {error.strerror}") from None
    return decode_token(text.strip())

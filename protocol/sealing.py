"""Sealed answers: how large they are, and the padding that hides how much an agent found.

What is sealed is the agent's complete signed envelope of type `result`, followed by spaces up to the next of
`SIZE_CLASSES_BYTES`; JSON ends where its value ends, so that whoever decrypts it has the envelope. The
platform sees the class and nothing finer: who found nothing and who found a few files answer alike.

Standard library only: the resident agent imports this module.
"""

from typing import Tuple

from protocol.envelope import max_envelope_bytes
from protocol.errors import InvalidInput

MAX_RECIPIENTS = 16  # of an action; as many again may be forced by the build
MAX_READERS = 2 * MAX_RECIPIENTS
# The last holds a result of 1 MiB, a third more in base64, and the envelope around it.
SIZE_CLASSES_BYTES: Tuple[int, ...] = (1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1368 << 10)
_MAX_SESSION_KEY_BYTES = 1100  # one recipient's packet for RSA-8192, the largest key that is allowed
MAX_SEALED_BYTES = SIZE_CLASSES_BYTES[-1] + MAX_READERS * _MAX_SESSION_KEY_BYTES + 256
# In base64, with the ids and the readers' fingerprints.
MAX_SEALED_RESULT_BYTES = 4 * MAX_SEALED_BYTES // 3 + 4096
MAX_SEALED_ENVELOPE_BYTES = max_envelope_bytes(MAX_SEALED_RESULT_BYTES)


def pad(envelope: bytes) -> bytes:
    """Return an encoded envelope with spaces behind it up to the next size class.

    Raises:
        InvalidInput: `too-large`.

    """
    for size in SIZE_CLASSES_BYTES:
        if len(envelope) <= size:
            return envelope.ljust(size)
    raise InvalidInput("too-large", f"{len(envelope)} bytes, at most {SIZE_CLASSES_BYTES[-1]} can be sealed")

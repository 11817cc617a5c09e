"""Every refusal and failure that a person can meet, under a stable code.

Three families: `InvalidInput` (hostile or wrong input), `EnvironmentFailure` (something outside is missing
or away) and programming errors, which are never caught. `CODES` is the one table that maps a code to its
HTTP status, its exit code and what it means; a code that is not in the table cannot be raised.

Standard library only: the resident agent imports this module.
"""

from typing import Dict, NamedTuple

EXIT_FOUND = 0
EXIT_NOTHING_FOUND = 1
EXIT_USAGE = 2
EXIT_MISSING_ANSWERS = 3
EXIT_REFUSED = 4
EXIT_OUT_OF_REACH = 5


class CodeInfo(NamedTuple):
    """What a code means outside: HTTP status, exit code of the command line, one line of text."""

    http: int
    exit: int
    text: str


CODES: Dict[str, CodeInfo] = {
    # Envelope and strict decoding (gate steps 1, 2 and 4)
    "too-large": CodeInfo(413, EXIT_REFUSED, "the document is larger than allowed"),
    "bad-json": CodeInfo(400, EXIT_REFUSED, "the document is not strict JSON"),
    "bad-envelope": CodeInfo(400, EXIT_REFUSED, "the document is not a signed envelope"),
    "wrong-type": CodeInfo(400, EXIT_REFUSED, "the envelope holds another type of document"),
    "bad-action": CodeInfo(400, EXIT_REFUSED, "the action does not have the shape of an action"),
    "bad-document": CodeInfo(400, EXIT_REFUSED, "the document does not have the shape that it should"),
    # Signatures (gate step 3)
    "unsigned": CodeInfo(403, EXIT_REFUSED, "no signature of a trusted investigator verifies"),
    "bad-signature": CodeInfo(403, EXIT_REFUSED, "a signature does not verify"),
    # Trust bundles, and what gate step 3 says where none is in force
    "bad-trust": CodeInfo(400, EXIT_REFUSED, "the trust bundle cannot be used"),
    "stale-trust": CodeInfo(409, EXIT_REFUSED, "a trust bundle as new or newer is known"),
    "trust-gap": CodeInfo(409, EXIT_REFUSED, "the trust bundle's version is far above the one before"),
    "trust-expired": CodeInfo(403, EXIT_REFUSED, "the trusted keys have expired; a newer bundle is needed"),
    "trust-missing": CodeInfo(403, EXIT_REFUSED, "there is no trust bundle; the agent waits for one"),
    # Validity, replay, target (gate steps 5, 6 and 7)
    "not-yet-valid": CodeInfo(403, EXIT_REFUSED, "the action is not valid yet"),
    "expired": CodeInfo(403, EXIT_REFUSED, "the action has expired"),
    "validity-too-long": CodeInfo(403, EXIT_REFUSED, "the action is valid for longer than allowed"),
    "not-due": CodeInfo(403, EXIT_REFUSED, "no occurrence of the action's schedule is due"),
    "cancelled": CodeInfo(409, EXIT_REFUSED, "the action was cancelled by one of its signers"),
    "replayed": CodeInfo(409, EXIT_REFUSED, "the action was run before"),
    "journal-closed": CodeInfo(409, EXIT_REFUSED, "the journal can no longer tell whether it was run before"),
    "not-targeted": CodeInfo(403, EXIT_REFUSED, "the signed target does not match this endpoint"),
    "bad-target": CodeInfo(400, EXIT_USAGE, "the target is not a valid condition"),
    # Modules and parameters (gate step 8)
    "unknown-module": CodeInfo(400, EXIT_USAGE, "there is no such module"),
    "unsupported": CodeInfo(400, EXIT_REFUSED, "the module cannot do this on this platform"),
    "bad-parameters": CodeInfo(400, EXIT_USAGE, "the module does not accept these parameters"),
    # ACL and limits (gate steps 9 and 10)
    "acl-refused": CodeInfo(403, EXIT_REFUSED, "the signers may not run this"),
    "cannot-seal": CodeInfo(403, EXIT_REFUSED, "the answer cannot be sealed to those who are to read it"),
    "over-limit": CodeInfo(403, EXIT_REFUSED, "the action asks for more than this agent allows"),
    # How a run on the endpoint can end without its answer
    "interrupted": CodeInfo(
        500, EXIT_MISSING_ANSWERS, "the agent was stopped while it ran; it is not run again"
    ),
    "timed-out": CodeInfo(504, EXIT_MISSING_ANSWERS, "it ran longer than allowed and was killed"),
    "child-failed": CodeInfo(500, EXIT_MISSING_ANSWERS, "the process that ran it ended without an answer"),
    # Configuration and usage
    "bad-config": CodeInfo(500, EXIT_USAGE, "the configuration cannot be used"),
    "bad-key": CodeInfo(400, EXIT_USAGE, "the key cannot be used"),
    "usage": CodeInfo(400, EXIT_USAGE, "the command was not understood"),
    "unsafe-file": CodeInfo(500, EXIT_REFUSED, "a file or directory can be changed by others"),
    # Enrolment of agents
    "bad-token": CodeInfo(403, EXIT_REFUSED, "the enrolment token does not count"),
    # API
    "bad-method": CodeInfo(405, EXIT_USAGE, "this cannot be asked in this way"),
    "internal": CodeInfo(500, EXIT_OUT_OF_REACH, "the server failed; its log says why"),
    "unauthenticated": CodeInfo(401, EXIT_REFUSED, "log in first"),
    "forbidden": CodeInfo(403, EXIT_REFUSED, "this investigator may not do this"),
    "not-found": CodeInfo(404, EXIT_USAGE, "there is no such thing"),
    "conflict": CodeInfo(409, EXIT_REFUSED, "it is there already, and different"),
    "gone": CodeInfo(410, EXIT_MISSING_ANSWERS, "it was deleted because of its age"),
    "no-agents": CodeInfo(404, EXIT_NOTHING_FOUND, "no agent matches the target"),
    "too-many-agents": CodeInfo(
        403, EXIT_REFUSED, "it would reach more agents than it may unless it says so"
    ),
    "rate-limited": CodeInfo(429, EXIT_OUT_OF_REACH, "asked too often; ask again later"),
    "broken-chain": CodeInfo(500, EXIT_REFUSED, "the audit log is not as it was written"),
    "hostile-answer": CodeInfo(502, EXIT_REFUSED, "an answer does not verify"),
    # Environment
    "server-away": CodeInfo(503, EXIT_OUT_OF_REACH, "the server cannot be reached"),
    "broker-away": CodeInfo(503, EXIT_OUT_OF_REACH, "the broker cannot be reached"),
    "broker-full": CodeInfo(
        503, EXIT_OUT_OF_REACH, "the broker takes no messages: its memory or disk is short"
    ),
    "database-away": CodeInfo(503, EXIT_OUT_OF_REACH, "the database cannot be used"),
    "port-in-use": CodeInfo(503, EXIT_USAGE, "the port is taken by another process"),
    "state-in-use": CodeInfo(503, EXIT_USAGE, "another process uses this state directory"),
    "disk-full": CodeInfo(507, EXIT_OUT_OF_REACH, "there is no room on the disk"),
    "gpg-missing": CodeInfo(500, EXIT_USAGE, "gpg is not installed"),
    "key-missing": CodeInfo(500, EXIT_USAGE, "gpg has no such secret key"),
    "gpg-failed": CodeInfo(500, EXIT_REFUSED, "gpg did not sign"),
    "state-failed": CodeInfo(500, EXIT_OUT_OF_REACH, "a state file cannot be read or written"),
    "tool-missing": CodeInfo(500, EXIT_USAGE, "a program that is needed is not installed"),
}


MAX_DETAIL = 1000  # characters; details quote hostile input, such as the name of an unknown member


def one_line(text: str) -> str:
    """Return text that fits into one line of a log or terminal: bounded, what cannot be printed escaped."""
    if len(text) > MAX_DETAIL:
        text = text[: MAX_DETAIL - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )[: 2 * MAX_DETAIL]


class MigError(Exception):
    """A refusal or failure with a code of `CODES`, and one line that says what and where."""

    def __init__(self, code: str, detail: str = "") -> None:
        self.info = CODES[code]
        self.code = code
        self.detail = one_line(detail) if detail else self.info.text
        super().__init__(f"{code}: {self.detail}")


class InvalidInput(MigError):
    """Invalid or hostile input: asking again with the same input gives the same answer."""


class EnvironmentFailure(MigError):
    """Something that this process needs is missing or away; `retryable` says whether waiting may help."""

    def __init__(self, code: str, detail: str = "", *, retryable: bool = False) -> None:
        super().__init__(code, detail)
        self.retryable = retryable

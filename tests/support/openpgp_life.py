"""The life of a key as people lead it with gpg, told in moments: user ids, subkeys, expiry, revocations."""

import re
from datetime import datetime, timedelta

from tests.support.gpg import Investigator
from tests.support.openpgp_opinions import Case

MESSAGE = b'{"name": "an action"}'
NEVER_AGAIN = "key revoked"
# Of every moment, whether our policy accepts the signature.
MOMENTS = {
    "new": True,
    "several user ids": True,
    "user id revoked": True,
    "key over": False,
    "key prolonged": True,
    "signing subkey": True,
    "subkey over": False,
    "subkey prolonged": True,
    "primary beside subkey": True,
    "subkey revoked": False,
    "primary beside revoked subkey": True,
    NEVER_AGAIN: False,
}
STEP = timedelta(minutes=1)
TWO_DAYS = timedelta(days=2)
Moment = tuple[Case, datetime]


def live(person: Investigator, algorithm: str) -> dict[str, Moment]:
    """Lead the life of the key of `algorithm` that `person` has just made, and tell each moment of it."""
    born = person.clock
    assert born is not None
    own = person.fingerprint
    moments: dict[str, Moment] = {}

    def remember(moment: str, signature: bytes, *, after: timedelta = timedelta()) -> None:
        certificate = person.gpg("--armor", "--export", own)
        moments[moment] = Case(certificate, signature, MESSAGE), born + (len(moments) * STEP) + after
        # What two signatures of one second say both holds for us, so people take their time.
        person.clock = born + len(moments) * STEP

    def sign(by: str = "") -> bytes:
        return person.sign_bytes(MESSAGE, by=by)

    signature = sign()
    remember("new", signature)
    person.gpg("--quick-add-uid", own, "Second Name <second@example.net>")
    remember("several user ids", signature)
    person.gpg("--quick-revoke-uid", own, person.user_id)
    remember("user id revoked", signature)
    person.gpg("--quick-set-expire", own, "1d")
    remember("key over", signature, after=TWO_DAYS)
    person.gpg("--quick-set-expire", own, "9d")
    remember("key prolonged", signature, after=TWO_DAYS)

    kind = f"{algorithm}/ecdsa" if algorithm.startswith("nistp") else algorithm
    person.gpg("--passphrase", "", "--quick-add-key", own, kind, "sign", "1d")
    by_subkey = sign()
    remember("signing subkey", by_subkey)
    remember("subkey over", by_subkey, after=TWO_DAYS)
    person.gpg("--quick-set-expire", own, "9d", "*")
    remember("subkey prolonged", by_subkey, after=TWO_DAYS)
    remember("primary beside subkey", sign(f"{own}!"))
    # There is no --quick form of it in gpg 2.2: the answers are subkey, sure, no reason, no text, sure.
    person.gpg("--command-fd", "0", "--edit-key", own, data=_REVOKE_NEWEST_SUBKEY % _count_subkeys(person))
    remember("subkey revoked", by_subkey)
    remember("primary beside revoked subkey", sign(f"{own}!"))

    # gpg puts a colon before the block, so that nobody imports it by accident.
    revocation = (person.home / "openpgp-revocs.d" / f"{own}.rev").read_bytes()
    person.gpg("--import", data=revocation.replace(b"\n:---", b"\n---"))
    remember(NEVER_AGAIN, signature)
    return moments


_REVOKE_NEWEST_SUBKEY = b"key %d\nrevkey\ny\n0\n\ny\nsave\n"


def _count_subkeys(person: Investigator) -> int:
    return len(
        re.findall(rb"^sub:", person.gpg("--with-colons", "--list-keys", person.fingerprint), re.MULTILINE)
    )

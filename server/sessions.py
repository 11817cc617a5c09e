"""Logins and sessions of investigators.

Rules:
1. The investigator signs a login that names this server, their own key, our challenge and their clock;
   nothing of it is chosen by us but the challenge.
2. A challenge is 32 random bytes, good for one login within two minutes; it is burnt before anything is
   answered. At most `MAX_CHALLENGES` are kept: the oldest go first.
3. The token is 32 random bytes and kept only as its SHA-256; it is good for an hour, and only in a header.
4. Challenges and logins are limited by address, failing logins by fingerprint too (`server.throttle`).
5. Rights and standing are those of the moment of each request, not of the login.
"""

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

from protocol.envelope import LOGIN, Envelope, decode_envelope
from protocol.errors import InvalidInput
from protocol.login import MAX_LOGIN_BYTES, NONCE_BYTES, Login, decode_login
from server.database import Database
from server.rows import InvestigatorRow, NewSession, SessionRow
from server.signers import require_signers
from server.store import Store
from server.throttle import Throttle, address_key

CHALLENGE_LIFE = timedelta(minutes=2)
MAX_CHALLENGES = 65536  # about 10 MiB
SESSION_LIFE = timedelta(hours=1)
CLOCK_TOLERANCE = timedelta(hours=24)  # a wrong clock must be seen, not shut out
MAX_LOGIN_BODY_BYTES = 16384  # base64 of payload and signature; small enough to be decoded at once
_TOKEN_BYTES = 32
_MAX_TOKEN = 128


class Challenges:
    """The challenges that were given out and not used yet; in memory, since a restart may burn them all."""

    def __init__(self, *, max_challenges: int = MAX_CHALLENGES) -> None:
        self._max = max_challenges
        self._expiries: OrderedDict[str, datetime] = OrderedDict()

    def __len__(self) -> int:
        return len(self._expiries)

    def make(self, now: datetime) -> str:
        """Return a new challenge, 64 hex digits."""
        while self._expiries and (
            len(self._expiries) >= self._max or next(iter(self._expiries.values())) <= now
        ):
            self._expiries.popitem(last=False)
        nonce = secrets.token_hex(NONCE_BYTES)
        self._expiries[nonce] = now + CHALLENGE_LIFE
        return nonce

    def burn(self, nonce: str, now: datetime) -> bool:
        """Use a challenge up; tell whether it was good."""
        expiry = self._expiries.pop(nonce, None)
        return expiry is not None and now < expiry


class Sessions:
    """Turns signed logins into session tokens, and tokens into who is asking."""

    def __init__(self, *, database: Database, store: Store, url: str, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._store = store
        self._url = url.rstrip("/")
        self._clock = clock
        self._challenges = Challenges()
        # A clock that only rises, and in seconds: the other one may be set.
        self._by_address = Throttle(clock=time.monotonic)
        self._by_fingerprint = Throttle(clock=time.monotonic)

    def challenge(self, address: str) -> str:
        """Return a new challenge to be signed.

        Raises:
            RateLimited: for this address.

        """
        self._count_request(address)
        return self._challenges.make(self._clock())

    def _count_request(self, address: str) -> None:
        key = address_key(address)
        self._by_address.require_room(key)
        self._by_address.count(key)

    async def login(self, body: bytes, address: str) -> NewSession:
        """Open a session for the investigator who signed the login envelope in `body`.

        Args:
            body: as it came.
            address: where it came from.

        Raises:
            RateLimited: for this address, or for this investigator.
            InvalidInput: `unauthenticated`, `unsigned`, `bad-signature`, or what is wrong with the document.

        """
        self._count_request(address)
        envelope = decode_envelope(body, LOGIN, max_payload_bytes=MAX_LOGIN_BYTES)
        if len(envelope.signatures) != 1:
            raise InvalidInput("unauthenticated", "a login carries exactly one signature")
        fingerprint = envelope.signatures[0].keyid
        investigator = await self._database.read(self._store.get_investigator, fingerprint[:_MAX_TOKEN])
        if investigator is None or investigator.status != "active":
            raise InvalidInput(
                "unauthenticated", "the key is not that of an active investigator of this server"
            )
        self._by_fingerprint.require_room(fingerprint)
        now = self._clock()
        try:
            login = await asyncio.to_thread(_verified_login, envelope, investigator, now)
            self._require_meant(login, now)
        except InvalidInput:
            self._by_fingerprint.count(fingerprint)
            raise
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        expires = now + SESSION_LIFE
        await self._database.run(
            self._store.create_session, _hash(token), fingerprint, expires, now, address=address
        )
        return NewSession(token=token, expires=expires, fingerprint=fingerprint, rights=investigator.rights)

    async def find(self, token: str) -> SessionRow | None:
        """Return the session of a token, with the investigator's rights of this moment, or None."""
        if not token or len(token) > _MAX_TOKEN:
            return None
        return await self._database.read(self._store.get_session, _hash(token), self._clock())

    def _require_meant(self, login: Login, now: datetime) -> None:
        is_ours = self._challenges.burn(login.nonce, now)
        if login.server.rstrip("/") != self._url:
            raise InvalidInput(
                "unauthenticated",
                f"the login is for another server than {self._url}, as this one is configured",
            )
        skew = login.time - now
        if abs(skew) > CLOCK_TOLERANCE:
            raise InvalidInput(
                "unauthenticated", f"your clock differs from the server's by {int(skew.total_seconds())} s"
            )
        if not is_ours:
            raise InvalidInput(
                "unauthenticated", "the challenge is not ours, used, or older than two minutes"
            )


def _verified_login(envelope: Envelope, investigator: InvestigatorRow, now: datetime) -> Login:
    signers = require_signers(envelope, [investigator], now)
    login = decode_login(envelope.payload)
    if {login.fingerprint} != signers:
        raise InvalidInput("unauthenticated", "the login names another key than it is signed with")
    return login


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()

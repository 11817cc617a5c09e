"""Who may ask: challenge, session, the guard of every other route, and the list of investigators."""

from typing import Any

from litestar import Request, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers.base import BaseRouteHandler
from litestar.params import RawBody
from litestar.types import Guard

from protocol.documents import Challenge, InvestigatorList, Right, Session
from protocol.errors import InvalidInput
from server.api.described import SECURED, EnvelopeOperation, refusals
from server.api.documents import investigator_document
from server.rows import SessionRow
from server.services import Services
from server.sessions import MAX_LOGIN_BODY_BYTES, Sessions

Connection = ASGIConnection[Any, Any, Any, Any]


def needs(right: Right) -> Guard:
    """Return the guard of a route: a session whose investigator has this right now."""

    async def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
        session = await require_right(connection.app.state.sessions, bearer_token(connection), right)
        connection.state.session = session

    return guard


async def require_right(sessions: Sessions, token: str, right: Right) -> SessionRow:
    """Return the session of a token.

    Raises:
        InvalidInput: `unauthenticated` or `forbidden`.

    """
    session = await sessions.find(token)
    if session is None:
        raise InvalidInput("unauthenticated")
    if right not in session.rights:
        raise InvalidInput("forbidden", f"the right {right!r} is needed")
    return session


def bearer_token(connection: Connection) -> str:
    """Return the token of the header `Authorization`, or an empty string."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


@post("/challenge", summary="Ask for a challenge to sign", tags=["access"], responses=refusals(429))
async def make_challenge(sessions: NamedDependency[Sessions], request: Request[Any, Any, Any]) -> Challenge:
    """Return 32 random bytes that the login must repeat; they are good once, for two minutes."""
    return Challenge(nonce=sessions.challenge(_address(request)))


@post(
    "/session",
    summary="Log in with a signed login",
    tags=["access"],
    operation_class=EnvelopeOperation,
    request_max_body_size=MAX_LOGIN_BODY_BYTES,
    responses=refusals(400, 401, 403, 413, 429, 503),
)
async def open_session(
    body: RawBody, sessions: NamedDependency[Sessions], request: Request[Any, Any, Any]
) -> Session:
    """Open a session for whoever signed an envelope of type `application/vnd.mig.login+json`."""
    opened = await sessions.login(body, _address(request))
    return Session(
        token=opened.token, expires=opened.expires, fingerprint=opened.fingerprint, rights=opened.rights
    )


@get(
    "/investigators",
    summary="List the investigators",
    tags=["access"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(401, 403, 503),
)
async def list_investigators(services: NamedDependency[Services]) -> InvestigatorList:
    """Return everyone who may use this server, and those who may no longer."""
    rows = await services.database.read(services.store.list_investigators)
    return InvestigatorList(investigators=tuple(map(investigator_document, rows)))


def _address(request: Request[Any, Any, Any]) -> str:
    return request.client.host if request.client else ""


def session_of(request: Request[Any, Any, Any]) -> SessionRow:
    """Return the session that the guard found."""
    session: SessionRow = request.state.session
    return session

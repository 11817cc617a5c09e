"""Trust bundles: publish one, fetch the newest."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import RawBody

from protocol.documents import PublishedTrust, StoredTrust
from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.errors import InvalidInput
from server.api.access import needs, session_of
from server.api.described import SECURED, EnvelopeOperation, refusals
from server.api.documents import stored_trust_document
from server.services import Services
from server.trust import publish_bundle

_CREATED = 202
_THERE_ALREADY = 200


@post(
    "/trust",
    summary="Publish a trust bundle",
    tags=["trust"],
    status_code=_CREATED,
    guards=[needs("manage")],
    security=SECURED,
    operation_class=EnvelopeOperation,
    request_max_body_size=MAX_ENVELOPE_BYTES,
    responses=refusals(400, 401, 403, 409, 413, 503),
)
async def publish(
    body: RawBody, services: NamedDependency[Services], request: Request[Any, Any, State]
) -> Response[PublishedTrust]:
    """Bring an envelope of type `application/vnd.mig.trust+json` to every agent.

    Its version must be greater than all before. This server does not know the roots: each agent judges
    whether enough of them signed. 202 for a new bundle; the newest one again answers 200.
    """
    bundle, is_new = await publish_bundle(services, body, session_of(request).fingerprint)
    return Response(
        PublishedTrust(version=bundle.version, new=is_new),
        status_code=_CREATED if is_new else _THERE_ALREADY,
    )


@get(
    "/trust",
    summary="Fetch the newest trust bundle",
    tags=["trust"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(401, 403, 404, 503),
)
async def show(services: NamedDependency[Services]) -> StoredTrust:
    """Return the newest bundle as it was signed; check its signatures yourself."""
    row = await services.database.read(services.store.newest_trust)
    if row is None:
        raise InvalidInput("not-found", "no trust bundle is published: agents obey what was baked into them")
    return stored_trust_document(row)

"""What the OpenAPI description says of several routes: refusals, the token, and bodies read as raw bytes.

An envelope's body is decoded by our strict decoder from the very bytes that came, so Litestar sees only bytes
and has to be told what they are.
"""

from dataclasses import dataclass

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    Operation,
    Reference,
    RequestBody,
    SecurityScheme,
)

from protocol.documents import ErrorDocument

SECURED: list[dict[str, list[str]]] = [{"session": []}]
COMPONENTS = Components(
    security_schemes={
        "session": SecurityScheme(
            type="http", scheme="bearer", description="the token of POST /api/v1/session, good for an hour"
        )
    }
)


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe the refusals that a route is known for; each has the same shape."""
    return {
        status: ResponseSpec(ErrorDocument, description=_WHY[status], generate_examples=False)
        for status in statuses
    }


_WHY = {
    400: "not understood, or not well formed",
    401: "no session, or it has expired",
    403: "the investigator has not this right, or a signature or validity was refused",
    404: "there is no such thing",
    409: "it is there already, and different",
    410: "it was deleted because of its age",
    413: "larger than allowed",
    429: "asked too often; the header Retry-After says when to ask again",
    503: "the database is away",
}


@dataclass
class EnvelopeOperation(Operation):
    """An operation whose body is a signed envelope."""

    def __post_init__(self) -> None:
        """Describe the body; the component is declared by the routes that answer with envelopes."""
        self.request_body = RequestBody(
            content={
                "application/json": OpenAPIMediaType(
                    schema=Reference(ref="#/components/schemas/SignedEnvelope")
                )
            },
            description="a signed envelope (DSSE)",
            required=True,
        )

"""Headers that every answer carries: a browser that is led here runs, frames and keeps nothing of it."""

from litestar.types import Message, Scope

# Where a route says something else, that stands.
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


async def add_security_headers(message: Message, _scope: Scope) -> None:
    """Add what is missing to the beginning of an answer."""
    if message["type"] == "http.response.start":
        given = {name.lower() for name, _ in message["headers"]}
        message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in given)]

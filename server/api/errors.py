"""Every refusal of the API: `{"error": {"code", "detail"}}` with the status of `protocol.errors.CODES`.

A programming error answers with the code `internal` and nothing of its insides; those go to the log.
"""

import logging
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from protocol.documents import ErrorDocument, ErrorText
from protocol.errors import CODES, MigError
from server.throttle import RateLimited

_log = logging.getLogger(__name__)

AnyRequest = Request[Any, Any, Any]

_CODE_OF_STATUS = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "bad-method",
    413: "too-large",
}
_FIRST_SERVER_ERROR = 500


def refusal(code: str, detail: str) -> Response[ErrorDocument]:
    """Return the answer for one code of the table."""
    headers = {"WWW-Authenticate": "Bearer"} if code == "unauthenticated" else None
    return Response(
        ErrorDocument(error=ErrorText(code=code, detail=detail)),
        status_code=CODES[code].http,
        headers=headers,
    )


def _answer_ours(_request: AnyRequest, error: MigError) -> Response[ErrorDocument]:
    return refusal(error.code, error.detail)


def _answer_limited(_request: AnyRequest, error: RateLimited) -> Response[ErrorDocument]:
    answer = refusal(error.code, error.detail)
    answer.set_header("Retry-After", str(error.retry_after_s))
    return answer


def _answer_http(request: AnyRequest, error: HTTPException) -> Response[ErrorDocument]:
    if error.status_code >= _FIRST_SERVER_ERROR:
        return _answer_failure(request, error)
    code = _CODE_OF_STATUS.get(error.status_code, "usage")
    detail = CODES[code].text
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        detail = "; ".join(f"{item.get('key', '?')}: {item.get('message', '')}" for item in error.extra)
    return refusal(code, detail)


def _answer_failure(request: AnyRequest, error: Exception) -> Response[ErrorDocument]:
    asked = {"method": request.method, "path": request.url.path}
    _log.error("a request failed", extra=asked, exc_info=error)
    return refusal("internal", CODES["internal"].text)


HANDLERS: ExceptionHandlersMap = {
    MigError: _answer_ours,
    RateLimited: _answer_limited,
    HTTPException: _answer_http,
    Exception: _answer_failure,
}

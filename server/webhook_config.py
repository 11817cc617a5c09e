"""The tables `[[server.webhook]]`: where alerts are brought to, and which."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from protocol.alert import SEVERITIES, ModuleName, Severity
from protocol.errors import InvalidInput
from server.rows import AlertFilter

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_PLAIN = re.compile(r"[\x21-\x7e]+\Z")


class WebhookConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One webhook.

    `name` is under what its place is remembered; `url` is where alerts are POSTed, https except on loopback.
    With `secret` each delivery carries an HMAC; `modules` (empty: all) and `min_severity` say what is sent.
    `ca` is a file of the only authorities that may vouch for it, in PEM; empty for the system's.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
    url: Annotated[str, Meta(max_length=2048)]
    secret: Annotated[str, Meta(max_length=256)] = ""
    modules: Annotated[tuple[ModuleName, ...], Meta(max_length=64)] = ()
    min_severity: Severity = "low"
    ca: str = ""

    @property
    def wanted(self) -> AlertFilter:
        """Which alerts are sent."""
        severities = SEVERITIES[SEVERITIES.index(self.min_severity) :]
        return AlertFilter(modules=self.modules, severities=() if self.min_severity == "low" else severities)


def require_webhooks(webhooks: Sequence[WebhookConfig]) -> None:
    """Refuse what would send alerts in the clear, or to somewhere else than it seems.

    Raises:
        InvalidInput: `bad-config`.

    """
    if len({hook.name for hook in webhooks}) != len(webhooks):
        raise InvalidInput("bad-config", "[[server.webhook]]: two have the same name")
    for hook in webhooks:
        problem = _problem(hook)
        if problem:
            raise InvalidInput("bad-config", f"[[server.webhook]] {hook.name}: {problem}")


def _problem(hook: WebhookConfig) -> str:
    try:
        parts = urlsplit(hook.url)
        _ = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not _PLAIN.match(hook.url):
        return "url is no https URL"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "url holds credentials or a fragment; use secret"
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        return "url must be https, except on loopback"
    if hook.ca and not Path(hook.ca).is_absolute():
        return f"{hook.ca!r} is not an absolute path"
    return ""

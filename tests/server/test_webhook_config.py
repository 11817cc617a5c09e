"""What a webhook's table may say."""

from typing import Any

import pytest

from protocol.errors import InvalidInput
from server.config import decode_config

HOOK = {"name": "siem", "url": "https://siem.example.net/mig"}


def decode(*hooks: dict[str, Any]) -> Any:
    server = {
        "name": "mig",
        "url": "http://127.0.0.1:1664",
        "listen": "127.0.0.1:1664",
        "broker_auth_listen": "127.0.0.1:1665",
        "database": "sqlite:///x",
        "relay": "amqp://x",
        "state_dir": "/x",
        "agents_dir": "/x",
        "webhook": list(hooks),
    }
    return decode_config({"server": server}).webhook


def test_a_webhook_wants_everything_unless_it_says_what() -> None:
    [hook] = decode(HOOK)
    assert (hook.wanted.modules, hook.wanted.severities, hook.wanted.agents) == ((), (), None)
    [hook] = decode({**HOOK, "min_severity": "high", "modules": ["fswatch"]})
    assert (hook.wanted.modules, hook.wanted.severities) == (("fswatch",), ("high", "critical"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "http://[::1]/x", "http://localhost/x"])
def test_on_loopback_a_webhook_may_go_without_tls(url: str) -> None:
    assert decode({**HOOK, "url": url})[0].url == url


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"url": "http://siem.example.net/"}, "must be https"),
        ({"url": "http://127.0.0.1.example.net/"}, "must be https"),
        ({"url": "ftp://siem.example.net/"}, "no https URL"),
        ({"url": "https:///x"}, "no https URL"),
        ({"url": "https://siem.example.net/a b"}, "no https URL"),
        ({"url": "https://siem.example.net/\r\nHost: x"}, "no https URL"),
        ({"url": "https://user:pass@siem.example.net/"}, "credentials"),
        ({"url": "https://siem.example.net:99999/"}, "Port"),
        ({"ca": "ca.pem"}, "not an absolute path"),
        ({"name": "a b"}, "name"),
        ({"min_severity": "worst"}, "min_severity"),
        ({"more": 1}, "more"),
    ],
)
def test_a_webhook_that_would_send_alerts_in_the_clear_or_astray_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        decode({**HOOK, **changes})


def test_two_webhooks_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="same name"):
        decode(HOOK, HOOK)

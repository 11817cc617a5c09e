"""The ancestor's spellings in targets, as its published actions have them."""

import pytest

from protocol.errors import InvalidInput
from protocol.target import parse_target, upgrade_target
from tests.support.targets import WEB


@pytest.mark.parametrize(
    ("ancestral", "upgraded"),
    [
        ("environment->>'os'='linux'", "os = 'linux'"),
        ("agents.environment->>'os' = 'windows'", "os = 'windows'"),
        ("environment->>'ident' ilike 'ubuntu 12.04%'", "ident ILIKE 'ubuntu 12.04%'"),
        ("agents.os = 'linux' AND agents.environment->>'arch' = 'amd64'", "os = 'linux' AND arch = 'amd64'"),
        ("queueloc like 'linux.%'", "os = 'linux'"),
        (
            "queueloc LIKE 'linux.%' AND environment->>'ident' ILIKE '%ubuntu%'",
            "os = 'linux' AND ident ILIKE '%ubuntu%'",
        ),
        (
            "environment->>'os' IN ('linux','darwin') AND mode='daemon'",
            "os IN ('linux', 'darwin') AND TRUE",
        ),
        ("environment->>'init' = 'systemd' OR TRUE", "environment->>'init' = 'systemd' OR TRUE"),
        ("heartbeattime < NOW() AND status = 'online'", "heartbeattime < NOW() AND status = 'online'"),
        ("environment->>'os' IS NULL", "os IS NULL"),
    ],
)
def test_the_ancestors_published_targets_are_upgraded(ancestral: str, upgraded: str) -> None:
    assert str(upgrade_target(ancestral)) == upgraded


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("os = 'x' AND mode = 'checkin'", "only mode = 'daemon' has a meaning today, at character 14"),
        ("NOT mode LIKE 'daemon'", "only mode = 'daemon' has a meaning today, at character 5"),
        ("queueloc = 'linux.web1'", "only queueloc LIKE 'system.%' has a meaning today, at character 1"),
        ("queueloc NOT LIKE 'linux.%'", "only queueloc LIKE 'system.%' has a meaning today, at character 1"),
        ("queueloc LIKE 'linux.web%'", "only queueloc LIKE 'system.%' has a meaning today, at character 1"),
        ("starttime < NOW()", "not 'starttime', at character 1"),
    ],
)
def test_what_has_no_words_today_is_not_guessed(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        upgrade_target(text)


def test_who_receives_an_action_knows_none_of_the_ancestors_words() -> None:
    assert not parse_target("environment->>'os' = 'linux'").matches(WEB)
    with pytest.raises(InvalidInput, match="not 'mode'"):
        parse_target("mode = 'daemon'")

"""Tests of the tables that say what is watched: strict, and off unless they are there."""

from typing import Any

import pytest

from agent.config import AgentConfig, decode_config
from agent.watch_config import AlertsConfig, AuditRule, FswatchConfig
from protocol.errors import InvalidInput

RULE = {"name": "shells", "executable": "/tmp/.*"}


def decode(**tables: Any) -> AgentConfig:
    return decode_config(
        {
            "relay": "amqp://127.0.0.1/mig",
            "broker": "mig",
            "acl": {"default": {"minimum_weight": 1, "investigators": {"A" * 40: 1}}},
            **tables,
        }
    )


def test_nothing_is_watched_unless_a_table_says_so() -> None:
    config = decode()
    assert (config.fswatch, config.audit, config.alerts) == (None, None, AlertsConfig())
    assert config.watched() == {}


def test_an_empty_table_watches_what_the_ancestor_watched() -> None:
    assert decode(fswatch={}).fswatch == FswatchConfig()
    assert "/usr/bin" in FswatchConfig().paths


def test_who_names_places_watches_these_alone() -> None:
    config = decode(fswatch={"paths": ["/opt"]}).fswatch
    assert config is not None
    assert (config.paths, config.recursive) == (("/opt",), ())


def test_a_watcher_is_told_its_whole_table() -> None:
    told = decode(audit={"rules": [RULE]}).watched()["audit"]
    assert told["rules"] == [AuditRule(name="shells", executable="/tmp/.*")._asdict()]
    assert told["process_starts"] is True


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"fswatch": []}, "must be a table"),
        ({"fswatch": {"path": ["/etc"]}}, "unknown member 'path'"),
        ({"fswatch": {"paths": ["etc"]}}, "does not begin with /"),
        ({"fswatch": {"paths": []}}, "names nothing to watch"),
        ({"fswatch": {"paths": [""]}}, "something else than texts"),
        ({"fswatch": {"paths": ["/a\0b"]}}, "something else than texts"),
        ({"fswatch": {"paths": ["/x"] * 300}}, "at most 256"),
        ({"fswatch": {"settle_s": 0}}, "from 1 to 300"),
        ({"fswatch": {"rescan_s": True}}, "from 60"),
        ({"alerts": {"per_minute": 0}}, "from 1 to 6000"),
        ({"audit": {}}, "without a rule nothing is told"),
        ({"audit": {"rules": [{"name": "all"}]}}, "it would tell everything"),
        ({"audit": {"rules": [{"executable": "/x"}]}}, "name: is missing"),
        ({"audit": {"rules": [RULE, RULE]}}, "names a rule twice"),
        ({"audit": {"rules": [{**RULE, "severity": "worst"}]}}, "must be one of"),
        ({"audit": {"rules": [{**RULE, "argument": "x"}]}}, "unknown member"),
        ({"audit": {"rules": [RULE], "process_starts": False, "kernel_audit": False}}, "listens to nothing"),
    ],
)
def test_what_is_wrong_in_a_table_refuses_and_is_named(tables: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        decode(**tables)

"""The agent's configuration: strict, and taken only from what is baked."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import AgentConfig, AgentLimits, ScanConfig, decode_config
from protocol.errors import InvalidInput

ROOT = Path(__file__).resolve().parents[2]
GOOD: dict[str, Any] = {
    "relay": "amqps://broker.example.net:5671/mig",
    "broker": "mig",
    "acl": {"default": {"minimum_weight": 1, "investigators": {"A" * 40: 1}}},
}


def test_what_is_left_out_takes_its_documented_default() -> None:
    config = decode_config(GOOD)
    assert config.limits == AgentLimits()
    assert (config.heartbeat_s, config.warm_child, config.max_validity_s) == (60, True, 604800)
    assert config.native == ("memfd", "directory")
    assert config.scan == ScanConfig(digest_cache=False, cpu_percent=0, read_bytes_per_s=0, workers=0)


def test_a_relay_is_one_url_or_those_of_a_clusters_nodes() -> None:
    nodes = ["amqps://one.example.net:5671/mig", "amqps://two.example.net:5671/mig"]
    assert decode_config(GOOD).relay == ("amqps://broker.example.net:5671/mig",)
    assert decode_config({**GOOD, "relay": nodes}).relay == tuple(nodes)


def test_the_projects_own_configuration_decodes() -> None:
    document = tomllib.loads((ROOT / "config.toml").read_text())
    assert isinstance(decode_config(document["agent"]), AgentConfig)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("relay", None, r"relay: must be a text"),
        ("relay", [], r"relay: must be a URL, or a list of 1 to 8"),
        ("relay", ["amqp://a/mig", 1], r"relay: must be a URL, or a list of 1 to 8"),
        (
            "relay",
            [f"amqp://{number}.example/mig" for number in range(9)],
            r"relay: must be a URL, or a list",
        ),
        ("relay", ["amqp://a/mig", "http://b/mig"], r"relay: must be amqp://"),
        ("relay", ["amqps://a/mig", "amqp://b/mig"], r"relay: must be nodes of one cluster, each once"),
        ("relay", ["amqp://a/mig", "amqp://b/gim"], r"relay: must be nodes of one cluster, each once"),
        ("relay", ["amqp://a/mig", "amqp://a/mig"], r"relay: must be nodes of one cluster, each once"),
        ("relay", ["amqp://a/mig", "amqp://x:y@b/mig"], r"relay: holds credentials"),
        ("relay", "http://broker/mig", r"relay: must be amqp://"),
        ("relay", "amqp:///mig", r"relay: must be amqp://"),
        ("relay", "amqp://broker:99999/mig", r"relay: "),
        ("relay", "amqp://user:secret@broker/mig", r"relay: holds credentials"),
        ("broker", "", r"broker: must be a text"),
        ("acl", {}, r"acl: is missing or empty"),
        ("acl", None, r"acl: is missing or empty"),
        ("tags", {"operator": 1}, r"tags.operator: must be a text"),
        ("tags", [], r"tags: must be a table"),
        ("heartbeat_s", 0, r"heartbeat_s: must be a whole number"),
        ("heartbeat_s", True, r"heartbeat_s: must be a whole number"),
        ("heartbeat_s", 1.5, r"heartbeat_s: must be a whole number"),
        ("warm_child", 1, r"warm_child: must be true or false"),
        ("max_validity_s", 10**9, r"max_validity_s: must be a whole number"),
        ("seal_to", "A" * 40, r"seal_to: must be a list"),
        ("seal_to", ["a" * 40], r"seal_to: must be a list of fingerprints"),
        ("seal_to", ["A" * 40] * 2, r"seal_to: must name at most 16 investigators, each once"),
        ("require_sealed", "yes", r"require_sealed: must be true or false"),
        ("scan", {"digest_cache": 1}, r"digest_cache: must be true or false"),
        ("scan", {"cpu_percent": -1}, r"cpu_percent: must be a whole number"),
        ("scan", {"read_bytes_per_s": 1000}, r"read_bytes_per_s: must be 0 for no bound, or at least 65536"),
        ("scan", {"workers": 65}, r"workers: must be a whole number"),
        ("scan", {"cache": True}, r"\[agent.scan\]: unknown member 'cache'"),
        ("native", [], r"native: must be a list"),
        ("native", ["download"], r"native: must be a list"),
        ("limits", {"wall_s": -1}, r"wall_s: must be a whole number"),
        ("limits", {"wall": 1}, r"\[agent.limits\]: unknown member 'wall'"),
        ("trust", {"root": []}, r"\[agent.trust\]: unknown member 'root'"),
        ("trust", {"roots": ["a" * 40]}, r"trust.roots: must be a list of fingerprints"),
        ("trust", {"roots": ["A" * 40] * 2}, r"trust.roots: names a key twice"),
        ("trust", {"roots": ["A" * 40], "threshold": 2}, r"trust.threshold: is 2, and there are 1 roots"),
        ("trust", {"threshold": 0}, r"threshold: must be a whole number"),
        ("trust", {"expires": "tomorrow"}, r"trust.expires: must be a time in UTC"),
        ("trust", {"expires": "2027-13-01T00:00:00Z"}, r"trust.expires: month must be"),
        ("trust", {"manage": "A" * 40}, r"trust.manage: must be a list"),
        ("surprise", 1, r"\[agent\]: unknown member 'surprise'"),
    ],
)
def test_a_member_that_cannot_be_used_is_named(name: str, value: Any, said: str) -> None:
    table = copy.deepcopy(GOOD)
    table[name] = value
    with pytest.raises(InvalidInput, match=r"^bad-config: " + said):
        decode_config(table)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(AgentConfig._fields), inner),
    )
)
def test_any_value_decodes_or_is_refused(value: Any) -> None:
    try:
        decode_config(value)
    except InvalidInput as error:
        assert error.code == "bad-config"  # noqa: PT017  (both outcomes are right)

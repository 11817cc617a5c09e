"""The server's configuration: strict, and clear about what is wrong."""

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from server.config import decode_config, load_config, parse_listen

ROOT = Path(__file__).parents[2]


def table(**changed: Any) -> dict[str, Any]:
    """Return a good configuration with the settings that a test names; None leaves one out."""
    settings = {
        "name": "mig",
        "url": "http://127.0.0.1:1664",
        "listen": "127.0.0.1:1664",
        "broker_auth_listen": "127.0.0.1:1665",
        "database": "sqlite:////var/lib/mig-server/mig.sqlite",
        "relay": "amqp://server:secret@127.0.0.1:5672/mig",
        "enrolment": "approval",
        "state_dir": "/var/lib/mig-server",
        "agents_dir": "/var/lib/mig-server/agents",
        **changed,
    }
    return {"server": {name: value for name, value in settings.items() if value is not None}}


def test_several_urls_are_those_of_a_cluster_and_so_is_one_that_is_said_to_lead_to_it() -> None:
    nodes = ["amqp://server:secret@one.example.net/mig", "amqp://server:secret@two.example.net/mig"]
    config = decode_config(table(relay=nodes))
    assert (config.relays, config.is_cluster) == (tuple(nodes), True)
    alone = decode_config(table())
    assert (alone.relays, alone.is_cluster) == (("amqp://server:secret@127.0.0.1:5672/mig",), False)
    assert decode_config(table(relay_cluster=True)).is_cluster


@pytest.mark.parametrize("relay", [[], [""], "", ["amqp://a/mig"] * 9, ["amqp://a/mig", 5]])
def test_a_relay_that_names_no_node_or_too_many_is_refused(relay: Any) -> None:
    with pytest.raises(InvalidInput, match=r"relay"):
        decode_config(table(relay=relay))


def test_the_configuration_that_we_ship_is_good() -> None:
    config = load_config(ROOT / "config.toml")
    assert decode_config(tomllib.loads((ROOT / "config.toml").read_text())) == config
    assert (config.api_address.host, config.api_address.port) == ("127.0.0.1", 1664)
    assert config.broker_auth_address.port == 1665


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"datebase": "x"}, r"\[server\]: Object contains unknown field `datebase`"),
        ({"database": None}, r"\[server\]: Object missing required field `database`"),
        ({"listen": 1664}, r"\[server\]: Expected `str`, got `int`"),
        ({"enrolment": "all"}, r"\[server\]: Invalid enum value"),
        ({"name": "mig\n"}, r"\[server\]: Expected `str` matching regex"),
        ({"url": "ftp://x"}, "url 'ftp://x' is not an http or https URL"),
        ({"url": "127.0.0.1:1664"}, "is not an http or https URL"),
        ({"state_dir": "var"}, "'var' is not an absolute path"),
        (
            {"broker_auth_listen": "127.0.0.1:1664"},
            "two of listen, broker_auth_listen and metrics_listen are the same",
        ),
        ({"metrics_listen": "127.0.0.1:1664"}, "metrics_listen are the same"),
        ({"keep_answers_days": -1}, r"Expected `int` >= 0"),
        ({"keep_actions_days": 30}, "keep_answers_days must be from 1 to keep_actions_days"),
        ({"keep_actions_days": 30, "keep_answers_days": 31}, "answers go with their action"),
        ({"max_agents": 0}, r"Expected `int` >= 1"),
        ({"metrics_listen": "nowhere"}, "is not host:port"),
        ({"listen": "127.0.0.1"}, "'127.0.0.1' is not host:port"),
        ({"listen": "127.0.0.1:0"}, "is not host:port"),
        ({"listen": "[::1:1664"}, "is not host:port"),
        ({"broker_auth_listen": "[localhost]:1664"}, "holds no IPv6 address"),
    ],
)
def test_a_wrong_setting_is_named(changed: dict[str, Any], refusal: str) -> None:
    with pytest.raises(InvalidInput, match=f"^bad-config: .*{refusal}"):
        decode_config(table(**changed))


def test_tables_of_the_other_programs_are_left_alone_and_others_refused() -> None:
    decode_config({**table(), "agent": {"anything": 1}, "client": {}})
    with pytest.raises(InvalidInput, match=r"unknown table \[sever\]"):
        decode_config({**table(), "sever": {}})
    with pytest.raises(InvalidInput, match=r"no table \[server\]"):
        decode_config({"agent": {}})


@pytest.mark.parametrize(
    ("content", "refusal"),
    [(b"[server", "Expected"), (b"\xff", "not UTF-8 at byte 0"), (b"", r"no table \[server\]")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, refusal: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"^bad-config: {path}: .*{refusal}"):
        load_config(path)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="bad-config: .*none.toml: No such file"):
        load_config(tmp_path / "none.toml")


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert (parse_listen("[::1]:1664").host, parse_listen("[::1]:1664").port) == ("::1", 1664)


@given(st.text(max_size=40) | st.from_regex("[][:.a-f\\d]{0,12}:\\d{0,6}"))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        listen = parse_listen(text)
        assert listen.host
        assert 0 < listen.port < 65536

"""Tests of the ancestor's spellings."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.module import decode_params
from agent.modules.file import Params, upgrade
from tests.agent.scan.runs import grow, paths, run

HEX = {length: "ab" * (length // 2) for length in (32, 40, 56, 64, 96, 128)}


def upgraded(search: dict[str, Any]) -> Any:
    """Return one search upgraded, having been decoded by the declaration."""
    parameters = upgrade({"searches": {"s1": {"path": "/", **search}}})
    decode_params(Params, parameters)
    made = parameters["searches"]["s1"]
    del made["paths"]
    return made


@pytest.mark.parametrize(
    ("ancestor", "canonical"),
    [
        ({"name": ["a"]}, {"names": ["a"]}),
        ({"name": "a", "names": ["b", "a"]}, {"names": ["a", "b"]}),
        ({"Content": ["a"], "SIZE": ["<1K"]}, {"contents": ["a"], "sizes": ["<1k"]}),
        ({"mode": ["^u"], "mtime": ["<1D"]}, {"modes": ["^u"], "mtimes": ["<1d"]}),
        ({"sha2": [HEX[64].upper(), HEX[96]]}, {"sha256": [HEX[64]], "sha384": [HEX[96]]}),
        ({"sha2": [HEX[128]]}, {"sha512": [HEX[128]]}),
        (
            {"sha3": [HEX[56], HEX[64], HEX[96], HEX[128]]},
            {"sha3_224": [HEX[56]], "sha3_256": [HEX[64]], "sha3_384": [HEX[96]], "sha3_512": [HEX[128]]},
        ),
        (
            {"owner": "root", "Exclude": "cache", "ctime": ["<1D"], "type": "File"},
            {"owners": ["root"], "excludes": ["cache"], "ctimes": ["<1d"], "types": ["file"]},
        ),
        (
            {"names": ["a"], "options": {"remotefs": True, "mismatch": ["names"]}},
            {"names": ["a"], "options": {"remotefs": True, "mismatch": ["name"]}},
        ),
        ({"md5": [HEX[32], HEX[32].upper()]}, {"md5": [HEX[32]]}),
        ({"names": ["a"], "md5": None, "options": {}}, {"names": ["a"]}),
        (
            {
                "names": ["a"],
                "options": {"maxdepth": 5.0, "mismatch": None, "decompress": False, "debug": "print"},
            },
            {"names": ["a"], "options": {"maxdepth": 5}},
        ),
        (
            {"names": ["a"], "sha2": [HEX[64]], "options": {"mismatch": ["names", "sha2"], "MatchAll": True}},
            {
                "names": ["a"],
                "sha256": [HEX[64]],
                "options": {"mismatch": ["name", "sha256"], "matchall": True},
            },
        ),
    ],
)
def test_the_ancestors_keys_and_values_become_canonical(
    ancestor: dict[str, Any], canonical: dict[str, Any]
) -> None:
    assert upgraded(ancestor) == canonical


def test_labels_lose_the_characters_that_are_no_longer_allowed_and_stay_apart() -> None:
    search = {"paths": ["/"], "names": ["a"]}
    made = upgrade({"searches": {"backdoored/bin/ls": search, "backdoored bin ls": search, "x" * 70: search}})
    assert list(made["searches"]) == ["backdoored_bin_ls", "backdoored_bin_ls-2", "x" * 64]
    decode_params(Params, made)


def test_the_first_shape_of_all_becomes_searches() -> None:
    made = upgrade(
        {
            "/etc/shadow": {"regex": {"root password": [r"root:\$(2a|5|6)\$"]}},
            "/bin": {"sha1": {"b26": [HEX[40].upper()]}, "filename": {"b26": ["^b26$"]}},
        }
    )
    assert made == {
        "searches": {
            "root_password": {"paths": ["/etc/shadow"], "contents": [r"root:\$(2a|5|6)\$"]},
            "b26": {"paths": ["/bin"], "sha1": [HEX[40]]},
            "b26-2": {"paths": ["/bin"], "names": ["^b26$"]},
        }
    }
    decode_params(Params, made)


def test_the_published_backdoor_action_hashes_what_its_globs_name_also_through_links(tmp_path: Path) -> None:
    published = Path(__file__).parents[3] / "actions/linux-backdoor.json"
    search = json.loads(published.read_text())["operations"][0]["parameters"]["searches"]["backdoors"]
    assert len(search["sha256"]) == 21
    backdoor = b"planted"
    grow(
        tmp_path,
        {"usr/bin/ls": b"", "usr/sbin/sshd": backdoor, "opt/deep/down/x": backdoor, "tmp/.y": backdoor},
    )
    for link in ("bin", "sbin"):
        (tmp_path / link).symlink_to(f"usr/{link}")
    search["paths"] = [f"{tmp_path}{path}" for path in search["paths"]]
    search["sha256"].append(hashlib.sha256(backdoor).hexdigest().upper())
    upgraded_search = upgrade({"searches": {"backdoors": search}})["searches"]["backdoors"]
    assert len(upgraded_search["sha256"]) == 21
    result = run(None, backdoors=upgraded_search)
    assert paths(result, tmp_path, "backdoors") == ["opt/deep/down/x", "tmp/.y", "usr/sbin/sshd"]
    assert result.statistics["files_read"] == 4


@pytest.mark.parametrize("parameters", [None, [], "x", {}, {"searches": []}, {"a": 1}, {"/a": {"regex": []}}])
def test_what_is_no_search_is_left_for_the_decoder_to_refuse(parameters: Any) -> None:
    assert upgrade(parameters) == parameters


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["searches", "s1", "/a", "sha2", "name", "options", "mismatch", "regex", "path"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_is_upgraded_gives_a_value_and_upgrading_again_changes_nothing(parameters: Any) -> None:
    once = upgrade(parameters)
    assert repr(upgrade(once)) == repr(once)

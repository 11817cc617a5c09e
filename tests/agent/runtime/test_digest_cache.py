"""Tests of the digest cache among the agent's state: there only where the build wants it."""

import logging
import os
import sys
from pathlib import Path

import pytest

from agent.runtime.digest_cache import CACHE_FILE, open_digest_cache
from agent.scan.cache import TRUSTED_TYPES
from agent.scan.mounts import Mounts
from tests.support.endpoint import make_baked, sign_action
from tests.support.gpg import Investigator
from tests.support.resident import MakeAgent


def test_a_build_that_does_not_ask_for_it_has_none_and_removes_what_another_left(tmp_path: Path) -> None:
    (tmp_path / CACHE_FILE).write_bytes(b"left")
    assert open_digest_cache(make_baked([]), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_asks_for_it_has_one_across_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    baked = make_baked([], scan={"digest_cache": True})
    inodes = set()
    for _ in range(2):
        descriptor = open_digest_cache(baked, tmp_path)
        assert descriptor is not None
        inodes.add(os.fstat(descriptor).st_ino)
        os.close(descriptor)
    assert len(inodes) == 1
    assert caplog.records == []


def test_a_damaged_one_begins_anew_and_that_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / CACHE_FILE).write_bytes(b"foreign")
    (tmp_path / CACHE_FILE).chmod(0o600)
    descriptor = open_digest_cache(make_baked([], scan={"digest_cache": True}), tmp_path)
    assert descriptor is not None
    os.close(descriptor)
    assert [record.getMessage() for record in caplog.records] == [
        f"the digest cache begins anew, since {tmp_path / CACHE_FILE} is not whole"
    ]


def test_where_none_can_be_made_the_agent_does_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    missing = tmp_path / "missing"
    assert open_digest_cache(make_baked([], scan={"digest_cache": True}), missing) is None
    assert "there is no digest cache" in caplog.text


@pytest.mark.system
@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_later_action_is_told_what_an_earlier_one_has_read(
    make_agent: MakeAgent, ada: Investigator, *, is_wanted: bool
) -> None:
    # A file that nobody has changed within a minute: the interpreter. In a container it lies on an overlay.
    file = Path(sys.executable).resolve()
    is_trusted = Mounts().stated_type(file.stat().st_dev) in TRUSTED_TYPES
    search = {"paths": [str(file)], "names": ["."], "options": {"returnsha256": True}}
    operations = [{"module": "file", "parameters": {"searches": {"s1": search}}}]
    agent = make_agent(scan={"digest_cache": is_wanted})
    results = [agent.ask(sign_action(ada, operations=operations)).results[0] for _ in range(2)]
    first, second = (result.records[0] for result in results)
    assert first["hashes"] == second["hashes"]
    assert "cached" not in first
    assert second.get("cached", False) is (is_wanted and is_trusted)

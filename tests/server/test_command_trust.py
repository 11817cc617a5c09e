"""`mig-server trust`: the operator sees what agents are sent, and takes out what none takes."""

import json
from pathlib import Path

import pytest

from protocol.trust import decode_bundle
from server.parts import utc_now
from server.store import Store
from tests.support.endpoint import make_bundle, sign_bundle
from tests.support.fleet import FleetAgent
from tests.support.gpg import Investigator
from tests.support.installation import Installation


@pytest.fixture
def write(tmp_path: Path, ada: Investigator) -> "Writer":
    return Writer(tmp_path, ada)


class Writer:
    """Writes signed bundles to files."""

    def __init__(self, directory: Path, ada: Investigator) -> None:
        self._directory = directory
        self._ada = ada

    def __call__(self, version: int) -> str:
        path = self._directory / f"trust-{version}.json"
        path.write_bytes(sign_bundle(make_bundle(version, self._ada), self._ada) + b"\n")
        return str(path)


def kinds(store: Store) -> list[str]:
    return [json.loads(line)["kind"] for _, line in store.list_audit(0, 100)[0]]


def test_a_bundle_that_stands_in_the_way_is_withdrawn_and_the_one_before_is_sent_again(
    prepared: Installation, write: Writer, ada: Investigator
) -> None:
    store = prepared.store
    agent = FleetAgent(store, now=utc_now())
    store.save_heartbeat(agent.heartbeat(utc_now(), trust_version=1), utc_now())
    for version in (1, 2):
        bundle = decode_bundle(json.dumps(make_bundle(version, ada)).encode())
        store.publish_trust(bundle, b"{}", f"{version}" * 64, ada.fingerprint, utc_now())
    assert store.agents_behind([agent.id]) == [agent.id]
    lines = prepared("trust", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1"]
    assert lines[0].endswith(f"by {ada.fingerprint}  held by 0 agents")
    assert lines[1].endswith("held by 1 agents")
    assert prepared("trust", "withdraw", "2").out == "bundle 2 is withdrawn\n"
    assert store.agents_behind([agent.id]) == []
    done = prepared("trust", "withdraw", "1")
    assert (done.code, done.err) == (
        4,
        "mig-server: conflict: 1 agents say that they hold bundle 1: see --force\n",
    )
    assert prepared("trust", "withdraw", "1", "--force").code == 0
    assert (
        prepared("trust", "withdraw", "1", "--force").err
        == "mig-server: not-found: bundle 1 is not published\n"
    )
    assert kinds(store).count("trust-withdrawn") == 2


def test_the_operator_may_force_a_version_that_looks_like_a_mistake(
    prepared: Installation, write: Writer
) -> None:
    done = prepared("trust", "publish", write(5000))
    assert (done.code, done.err.startswith("mig-server: trust-gap: version 5000; none is published")) == (
        4,
        True,
    )
    assert prepared("trust", "publish", "--force", write(5000)).out == "bundle 5000 is published\n"
    assert prepared("trust", "publish", write(5001)).out == "bundle 5001 is published\n"
    assert prepared("trust", "publish", write(5000)).err.startswith("mig-server: stale-trust: ")
    assert json.loads(prepared.store.list_audit(0, 100)[0][-1][1])["who"] == ["operator"]


def test_what_is_no_bundle_is_refused_in_one_line(prepared: Installation, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content, code in ((b"", "bad-json"), (b"{}", "bad-envelope"), (b" " * (3 << 20), "bad-json")):
        path.write_bytes(content)
        done = prepared("trust", "publish", str(path))
        assert (done.code, done.err.split(": ")[1], done.err.count("\n")) == (4, code, 1)


def test_the_doctor_says_when_the_roots_cannot_be_read(prepared: Installation) -> None:
    with prepared.config.open("a") as stream:
        stream.write(f'trust_roots = "{prepared.state}/roots"\n')
    assert "FAIL  trust bundle: bad-config: trust_roots: " in prepared("doctor").out

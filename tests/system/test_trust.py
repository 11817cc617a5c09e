"""Trust bundles on real parts: composed and signed by people, published, and obeyed by agents."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.forked import run_program
from tests.support.gpg import Investigator, temporary_investigator
from tests.support.platform import Platform, running_platform, wait_until

pytestmark = pytest.mark.system


@pytest.fixture
def rita() -> Iterator[Investigator]:
    with temporary_investigator("Rita Root") as investigator:
        yield investigator


@pytest.fixture
def platform(tmp_path: Path, ada: Investigator, rita: Investigator) -> Iterator[Platform]:
    with running_platform(tmp_path, ada, "one", roots=[rita]) as running:
        yield running


def mig_as(platform: Platform, person: Investigator, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `mig` with another person's configuration."""
    config = platform.directory / f"{person.fingerprint}.toml"
    config.write_text(
        f'[client]\nserver = "{platform.url}"\nfingerprint = "{person.fingerprint}"\n'
        f'gpg_home = "{person.home}"\n'
    )
    environment = {**platform.environment(), "MIG_CONFIG": str(config)}
    done = run_program("client.main", *words, env=environment, timeout=60)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done


def wait_for_version(platform: Platform, version: int) -> None:
    def is_there() -> bool:
        agents = [json.loads(line) for line in platform.mig("agents", "--json").stdout.splitlines()]
        return [agent["trust_version"] for agent in agents] == [version]

    wait_until(is_there, f"bundle {version} at the agent")


def test_an_investigator_is_revoked_and_trusted_again_without_a_new_build(
    platform: Platform, ada: Investigator, bob: Investigator, rita: Investigator
) -> None:
    wait_for_version(platform, 0)
    assert platform.mig_json("agentinfo")[1]["exit"] == 0
    directory = platform.directory
    (directory / "people").mkdir()
    (directory / "roots").mkdir()
    (directory / "roots" / "rita.asc").write_bytes(rita.public_key)
    for person in (ada, bob):
        (directory / "people" / f"{person.name.split()[0]}.asc").write_bytes(person.public_key)
    rights = directory / "rights.toml"
    weights = f'"{ada.fingerprint}" = 1, "{bob.fingerprint}" = 1'
    rights.write_text(f"[agent.acl.default]\nminimum_weight = 1\ninvestigators = {{ {weights} }}\n")
    both, bob_only, again = (str(directory / f"trust-{number}.json") for number in (1, 2, 3))
    platform.mig("trust", "new", "--config", str(rights), "--keys", str(directory / "people"), "-o", both)
    revoke = ("--revoke", ada.fingerprint)
    platform.mig("trust", "new", "--from", both, *revoke, "-o", bob_only)
    platform.mig("trust", "new", "--from", both, "--version", "3", "-o", again)

    # Not signed by a root: the server stores no more than what it can judge, and the agent refuses.
    assert platform.mig("trust", "publish", bob_only, "--yes", check=False).returncode == 4
    for bundle in (both, bob_only, again):
        mig_as(platform, rita, "trust", "sign", bundle, "--yes")
    shown = platform.mig("trust", "show", bob_only, "--roots", str(directory / "roots")).stdout
    assert ada.fingerprint not in shown
    assert f"signed by {rita.fingerprint}" in shown

    platform.mig("trust", "publish", bob_only, "--yes")
    wait_for_version(platform, 2)
    assert platform.mig("agentinfo", "--yes", "--expire", "3s", check=False).returncode == 3
    # A rollback to the bundle in which she was trusted.
    assert platform.mig("trust", "publish", both, "--yes", check=False).returncode == 4

    # It outlives the process, and the agent says by which bundle it judges.
    platform.kill("one")
    platform.start_agent("one")
    wait_until(lambda: platform.is_online("one"), "the agent")
    assert platform.mig("agentinfo", "--yes", "--expire", "3s", check=False).returncode == 3
    status = subprocess.run(
        platform.agent_command("one", "status", "--state-dir", str(directory / "state-one")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bundle 2" in status.stdout

    # While the agent is away another bundle is published; it gets it when it is back.
    platform.kill("one")
    platform.mig("trust", "publish", again, "--yes")
    platform.start_agent("one")
    wait_for_version(platform, 3)
    assert platform.mig_json("agentinfo")[1]["exit"] == 0

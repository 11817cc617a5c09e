"""Tests of the container module, with real processes in namespaces of their own."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.execute import run_operation
from agent.module import Context, decode_params
from agent.modules import container
from agent.modules.container import Params
from agent.platform.container_facts import ContainerFacts, MountFacts
from agent.registry import load_module
from client.flags import flag_parameters, module_flags
from protocol.errors import InvalidInput
from protocol.result import OperationResult
from tests.support.containers import WEB, unshared

FACTS = ContainerFacts(
    id=WEB,
    runtime="docker",
    source="engine",
    name="web1",
    image="nginx:1.25",
    digest="sha256:" + "12" * 32,
    state="running",
    pid=20,
    pids=(20, 21),
    is_privileged=False,
    capabilities_added=("cap_sys_ptrace",),
    mounts=(MountFacts("/sock", "/var/run/docker.sock", "bind", is_read_only=False),),
)


def run(**parameters: Any) -> OperationResult:
    return run_operation("container", parameters, Context())


def wants(**parameters: Any) -> bool:
    return container._Choice(decode_params(Params, parameters)).wants(FACTS)


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces take root")
def test_a_process_in_namespaces_of_its_own_is_told_and_found_by_its_number() -> None:
    with unshared() as pid:
        result = run(pids=[pid])
        [record] = result.records
        assert (record["runtime"], record["source"], record["state"]) == ("unknown", "namespaces", "running")
        assert record["container"] == str(Path(f"/proc/{pid}/ns/pid").readlink())
        assert record["namespace"] == str(Path(f"/proc/{pid}/ns/net").readlink())
        assert record["pids"] == (pid,)
        assert result.statistics["containers_seen"] >= 1
        assert run(containers=[record["container"]], privileged="yes").found
        assert not run(containers=[record["container"]], runtimes=["docker"]).found
    assert not run(pids=[pid]).found


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"containers": [WEB]},
        {"containers": ["x", WEB[:12]]},
        {"containers": ["web1"]},
        {"names": ["^web"], "images": ["nginx"]},
        {"images": ["^sha256:1212"]},
        {"images": ["!apache"]},
        {"mounts": [r"docker\.sock$"]},
        {"runtimes": ["docker", "podman"], "states": ["running"]},
        {"capabilities": ["cap_sys_admin", "cap_sys_ptrace"]},
        {"privileged": "no", "pids": [7, 21]},
    ],
)
def test_a_container_is_told_where_all_filters_hold(parameters: dict[str, Any]) -> None:
    assert wants(**parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"containers": [WEB[:11]]},
        {"containers": ["web"]},
        {"names": ["^db"]},
        {"names": ["web"], "images": ["!nginx"]},
        {"mounts": ["^/$"]},
        {"runtimes": ["podman"]},
        {"states": ["exited"]},
        {"capabilities": ["cap_sys_admin"]},
        {"privileged": "yes"},
        {"pids": [7]},
    ],
)
def test_a_container_is_not_told_where_one_filter_does_not_hold(parameters: dict[str, Any]) -> None:
    assert not wants(**parameters)


def test_hostile_names_break_nothing() -> None:
    record = container._record(FACTS._replace(name='\x1b[2J"\n\u202e', image="\0" * 5))
    encoded = msgspec.json.encode(record)
    assert b"\x1b" not in encoded
    assert msgspec.json.decode(encoded)["name"] == '\x1b[2J"\n\u202e'


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"names": ["("]}, "not a regular expression"),
        ({"runtimes": ["lxd"]}, "runtimes"),
        ({"capabilities": ["SYS_ADMIN"]}, "capabilities"),
        ({"privileged": "maybe"}, "privileged"),
        ({"pids": [0]}, "pids"),
    ],
)
def test_what_cannot_be_meant_is_refused(parameters: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        decode_params(Params, parameters)


def test_flags_follow_from_the_parameters() -> None:
    module = load_module("container")
    assert {"container", "privileged", "pid"} <= {flag.name for flag in module_flags(module)}
    given = {"container": ("web1",), "privileged": "yes", "pid": (7,)}
    parameters = {"containers": ("web1",), "privileged": "yes", "pids": (7,)}
    assert flag_parameters(module, given) == parameters

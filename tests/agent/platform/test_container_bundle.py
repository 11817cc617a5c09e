"""Tests of reading the configuration that a container is started with."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.container_bundle import BadBundle, read_bundle
from agent.platform.container_facts import ContainerFacts, MountFacts
from agent.scan.capabilities import NAMES
from tests.support.containers import WEB, bundle


def read(runtime: str = "podman", **changes: Any) -> ContainerFacts:
    return read_bundle(json.dumps(bundle(**changes)).encode(), WEB, runtime)


def test_a_configuration_tells_of_its_container_and_of_no_value() -> None:
    found = read()
    assert found == ContainerFacts(
        id=WEB,
        runtime="podman",
        source="bundle",
        created="2026-01-02T03:04:05Z",
        user="0:0",
        is_privileged=False,
        capabilities_added=("cap_sys_ptrace",),
        network="own",
        is_read_only=True,
        mounts=(MountFacts("/data", "/srv", "bind", is_read_only=True),),
        environment=("HOSTNAME", "PATH", "SECRET"),
    )
    assert "planted-secret" not in repr(found)


def test_annotations_of_kubernetes_name_it() -> None:
    notes = {
        "io.kubernetes.cri.container-name": "web",
        "io.kubernetes.cri.image-name": "docker.io/library/nginx:1",
    }
    found = read("containerd", annotations=notes)
    assert (found.runtime, found.name, found.image) == ("containerd", "web", "docker.io/library/nginx:1")
    notes = {"io.kubernetes.cri-o.ContainerID": WEB, "io.kubernetes.cri-o.Name": "k8s_web"}
    found = read(annotations=notes)
    assert (found.runtime, found.name) == ("cri-o", "k8s_web")


def test_who_has_all_and_is_held_by_nothing_is_privileged() -> None:
    process = {"capabilities": {"bounding": [name.upper() for name in NAMES]}, "user": {"username": "x"}}
    assert read(process=process, linux={}).is_privileged
    assert not read(process=process).is_privileged
    assert not read(linux={}).is_privileged
    assert read(process=process, linux={}).user == "x"


@pytest.mark.parametrize(
    ("namespaces", "expected"),
    [
        ([{"type": "pid"}], "host"),
        ([{"type": "network"}], "own"),
        ([{"type": "network", "path": "/proc/7/ns/net"}], "/proc/7/ns/net"),
        (None, None),
    ],
)
def test_the_network_is_told_by_its_namespace(namespaces: Any, expected: str | None) -> None:
    assert read(linux={"namespaces": namespaces}).network == expected


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"process": 7}', b"[" * 100_000, b'{"a":"\xff"'])
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(BadBundle, match="."):
        read_bundle(data, WEB, "podman")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.slow
@given(st.sampled_from(["process", "root", "mounts", "linux", "annotations"]), _JSON)
def test_any_member_gives_facts_or_a_refusal(member: str, value: Any) -> None:
    try:
        read(**{member: value})
    except BadBundle:
        return


def test_without_members_little_is_known() -> None:
    assert read_bundle(b"{}", "x", "podman") == ContainerFacts(
        "x", "podman", "bundle", is_privileged=False, is_read_only=False
    )

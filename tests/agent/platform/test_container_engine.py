"""Tests of asking an engine over its socket, with recorded answers, and with an engine that is hostile."""

from pathlib import Path
from typing import Any

import pytest

from agent.platform.container_engine import Engine, EngineFailure, sockets
from agent.platform.container_facts import ContainerFacts, MountFacts
from tests.support.containers import ANSWERS, DB, IMAGE, WEB, engine


def ask(path: Path) -> tuple[list[ContainerFacts], list[str]]:
    lost: list[str] = []
    return list(Engine("docker", str(path), lambda: None).containers(lost.append)), lost


def test_containers_are_told_with_what_the_engine_says_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with engine(path) as asked:
        found, lost = ask(path)
    assert lost == []
    assert found == [
        ContainerFacts(
            id=WEB,
            runtime="docker",
            source="engine",
            name="web1",
            image="nginx:1.25",
            digest="sha256:" + "12" * 32,
            state="running",
            created="2026-01-02T03:04:05.678901234Z",
            started="2026-01-02T03:04:06Z",
            user="www",
            is_privileged=False,
            capabilities_added=("cap_sys_ptrace",),
            network="bridge",
            restart="unless-stopped",
            is_read_only=True,
            mounts=(
                MountFacts("/sock", "/var/run/docker.sock", "bind", is_read_only=False),
                MountFacts("/data", "data", "volume", is_read_only=True),
            ),
            environment=("API_KEY", "PATH"),
        ),
        ContainerFacts(
            id=DB,
            runtime="docker",
            source="engine",
            name="db",
            image="postgres",
            # Its image is gone: what it was made of stands.
            digest="sha256:" + "cd" * 32,
            state="exited",
            is_privileged=True,
            network="host",
            restart="always",
            is_read_only=False,
        ),
    ]
    assert "planted-secret" not in repr(found)
    assert all(path.endswith(("json", "json?all=1")) for path in asked)


def test_a_container_that_vanishes_costs_no_other_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    answers = {name: value for name, value in ANSWERS.items() if WEB not in name}
    with engine(path, answers):
        found, lost = ask(path)
    assert [one.id for one in found] == [DB]
    assert lost == [f"{WEB}: {path}: answers 404"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(b"nonsense\r\n\r\n", "BadStatusLine", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n[{", "an answer that is none", id="not JSON"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000, "an answer that is none", id="nested"),
        pytest.param(b'HTTP/1.1 200 OK\r\n\r\n{"Id": 7}', "an answer that is none", id="another type"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (17 << 20), "more than 16 MiB", id="too much"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "LineTooLong", id="a long header"),
        pytest.param(b"", "RemoteDisconnected", id="nothing"),
        pytest.param(None, "answers 404", id="refused"),
    ],
)
def test_an_engine_that_answers_nonsense_is_a_failure(answer: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with engine(path, {"/containers/json?all=1": answer}), pytest.raises(EngineFailure, match=reason):
        ask(path)


def test_a_hostile_id_leads_to_no_other_path(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    listed = [{"Id": "../../images/x?y=1\r\nHost: z"}]
    with engine(path, {"/containers/json?all=1": listed}) as asked:
        found, lost = ask(path)
    assert found == []
    assert len(lost) == 1
    assert asked[1] == "/containers/..%2F..%2Fimages%2Fx%3Fy%3D1%0D%0AHost%3A%20z/json"


def test_where_nobody_listens_it_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(EngineFailure, match="FileNotFoundError"):
        ask(tmp_path / "none.sock")


def test_the_image_of_many_containers_is_asked_for_once(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    answers = {**ANSWERS, "/containers/json?all=1": [{"Id": WEB}] * 5}
    with engine(path, answers) as asked:
        ask(path)
    assert sum(IMAGE.replace(":", "%3A") in one for one in asked) == 1


def test_engines_are_looked_for_in_run_only() -> None:
    assert sockets("/x/") == (("docker", "/x/run/docker.sock"), ("podman", "/x/run/podman/podman.sock"))

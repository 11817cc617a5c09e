"""Tests of entering a container's root: what is seen there, what is not, and that nothing of it is loaded."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.scan.container_root import CannotEnter, enter_root
from agent.scan.scan import Place
from tests.support.containers import jailed, unshared

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="entering takes root"),
]


def within(pid: int, look: Callable[[Place, list[str]], Any], space: str | None = None) -> Any:
    """Return what is seen within by a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lost: list[str] = []
            held = space or str(Path(f"/proc/{pid}/ns/mnt").readlink())
            try:
                said = look(enter_root(pid, held, lost.append), lost)
            except CannotEnter as reason:
                said = f"cannot enter: {reason}"
            os.write(writer, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123  (an open file)
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def admitted(place: Place, *paths: str) -> list[bool]:
    found = []
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        found.append(place.fence.admits(descriptor))
        os.close(descriptor)
    return found


def test_links_within_lead_to_what_is_within(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("within")
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "up").symlink_to("../../../../../etc/hostname")
    (root / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")

    def look(place: Place, _lost: list[str]) -> Any:
        texts = [Path(name).read_text() for name in ("/absolute", "/up")]
        return [texts, os.path.exists("/out"), sorted(os.listdir("/")), admitted(place, "/absolute", "/")]  # noqa: PTH110, PTH208

    with jailed(root, "--pid") as pid:
        assert within(pid, look) == [["within"] * 2, False, ["absolute", "etc", "out", "up"], [True, True]]


def test_what_leads_out_through_proc_is_not_admitted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "inside").write_text("inside")
    (tmp_path / "secret").write_text("secret")
    (root / "leak").symlink_to(f"/proc/{os.getpid()}/root{tmp_path}/secret")

    def look(place: Place, lost: list[str]) -> Any:
        # It can be opened, as by any privileged process within; so it is what was opened that counts.
        return [Path("/leak").read_text(), admitted(place, "/leak", "/inside", "/leak"), lost]

    # It shares the endpoint's processes.
    with jailed(root) as pid:
        assert within(pid, look) == [
            "secret",
            [False, True, False],
            ["something leads out of the container, and was not looked at"],
        ]


def test_the_mounts_are_those_of_the_container(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)

    def look(place: Place, _lost: list[str]) -> Any:
        return [place.mounts.pseudo_type(os.stat(path).st_dev) for path in ("/proc", "/")]  # noqa: PTH116

    with jailed(root, "--pid") as pid:
        assert within(pid, look) == ["proc", None]


def test_nothing_is_imported_from_within(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for directory in [*map(Path, os.sys.path), Path("/")]:  # type: ignore[attr-defined]
        planted = root / str(directory).lstrip("/")
        planted.mkdir(parents=True, exist_ok=True)
        (planted / "planted_module.py").write_text("raise SystemError('hostile code')")
        (planted / "wave.py").write_text("raise SystemError('hostile code')")

    def look(_place: Place, _lost: list[str]) -> Any:
        failures = []
        for name in ("planted_module", "wave", "agent.scan.excludes_planted"):
            try:
                __import__(name)
            except BaseException as error:  # noqa: BLE001
                failures.append(type(error).__name__)
        return failures

    with jailed(root, "--pid") as pid:
        assert within(pid, look) == ["ModuleNotFoundError"] * 3


def test_what_is_no_container_is_not_entered() -> None:
    def look(_place: Place, _lost: list[str]) -> Any:
        return "entered"

    assert within(os.getpid(), look) == "cannot enter: its root is the endpoint's own"
    with unshared() as pid:
        assert within(pid, look, space="mnt:[1]") == "cannot enter: its first process has ended"
        assert within(pid, look) == "entered"
    assert within(2**22 + 1, look, space="mnt:[1]").startswith("cannot enter: its root cannot be entered")

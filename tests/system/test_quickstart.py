"""The quick start as a new user meets it: a copy of the project, nothing set up, one command."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from server.broker import PrivateBroker
from tests.support.platform import ROOT, wait_until

pytestmark = pytest.mark.system


class FirstRun(NamedTuple):
    """The copy's first `./quickstart --once`, and what was left running by it."""

    done: "subprocess.CompletedProcess[str]"
    left: list[str]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what git knows of the project, without anything that was built or set up."""
    directory = tmp_path_factory.mktemp("fresh") / "mig"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).exists():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)
    wheels = ROOT / "var" / "wheels"
    if wheels.exists():  # a cache: it spares the download, and each wheel's hash is checked
        shutil.copytree(wheels, directory / "var" / "wheels")
    yield directory
    assert processes_of(directory) == []


@pytest.fixture(scope="module")
def first(copy: Path) -> FirstRun:
    """Run it for the first time."""
    return FirstRun(quickstart(copy, "--once"), processes_of(copy))


def processes_of(directory: Path) -> list[str]:
    """Return the command lines of the processes that run out of a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(directory) in command:
                found.append(command)
    return found


def quickstart(copy: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [copy / "quickstart", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )


def test_one_command_sets_everything_up_asks_and_leaves_nothing_running(copy: Path, first: FirstRun) -> None:
    done = first.done
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installing Python packages" in done.stdout
    assert "/etc/passwd" in done.stdout
    assert "files_read" in done.stdout
    assert first.left == []
    assert {entry.name for entry in copy.iterdir()} <= {entry.name for entry in ROOT.iterdir()}


@pytest.mark.usefixtures("first")
def test_a_second_run_reuses_what_is_there_stays_up_and_ends_with_ctrl_c(copy: Path) -> None:
    key = next((copy / "var/keys").glob("*.asc")).name
    log = copy.parent / "second.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [copy / "quickstart"], stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(
            lambda: "The platform is up" in log.read_text() or running.poll() is not None, "it", seconds=180
        )
        assert running.poll() is None, log.read_text()
        assert "installing" not in log.read_text()
        beside = quickstart(copy, "--once")
        assert (beside.returncode, beside.stdout) == (2, "")
        assert "another quickstart uses ./var" in beside.stderr
        asked = subprocess.run(
            [copy / "var/mig", "file", "--path", "/etc", "--name", "^passwd$", "--yes"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        assert "/etc/passwd" in asked.stdout
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    assert processes_of(copy) == []
    assert next((copy / "var/keys").glob("*.asc")).name == key


@pytest.mark.usefixtures("first")
def test_what_quickstart_started_ends_even_when_it_is_killed(copy: Path) -> None:
    log = copy.parent / "third.log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            [copy / "quickstart"], stdout=output, stderr=output, start_new_session=True
        )
    wait_until(lambda: "starting the server" in log.read_text(), "the server", seconds=180)
    running.kill()
    running.wait()
    # gpg started its own agent, which no parent can end; the next quickstart uses and ends it.
    wait_until(
        lambda: all(command.startswith("gpg-agent") for command in processes_of(copy)),
        "the end of what it started",
        seconds=60,
    )
    subprocess.run(["gpgconf", "--homedir", (copy / "var/gnupg").resolve(), "--kill", "all"], check=True)


@pytest.mark.usefixtures("first")
def test_a_broker_that_is_already_there_can_be_used(copy: Path, tmp_path: Path) -> None:
    _, auth = json.loads((copy / "var/ports.json").read_text())
    broker = PrivateBroker(tmp_path / "broker", auth_listen=f"127.0.0.1:{auth}")
    broker.start()
    try:
        done = quickstart(copy, "--once", "--relay", broker.url)
    finally:
        broker.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "using the broker that is there" in done.stdout
    assert "starting a private RabbitMQ node" not in done.stdout


def test_help_tells_what_it_does(copy: Path) -> None:
    done = quickstart(copy, "--help")
    assert done.returncode == 0
    assert "--once" in done.stdout
    assert "--relay" in done.stdout


@pytest.mark.usefixtures("first")
def test_a_broken_configuration_ends_with_one_line_and_nothing_left_running(copy: Path) -> None:
    config = copy / "config.toml"
    text = config.read_text()
    try:
        config.write_text(text.replace("heartbeat_s = 60", "heartbeat_s = -1"))
        done = quickstart(copy, "--once")
    finally:
        config.write_text(text)
    assert done.returncode == 5
    assert "heartbeat_s" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert processes_of(copy) == []

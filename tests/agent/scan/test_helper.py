"""Tests of the process that may die in place of ours."""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.scan.helper import MAX_MESSAGE_BYTES, Helper, HelperLost


def serve(request: bytes, descriptor: int | None, say: Callable[[], None]) -> bytes:
    word, _, rest = request.partition(b" ")
    if word == b"read":
        assert descriptor is not None
        return os.read(descriptor, 100)
    if word == b"die":
        os.kill(os.getpid(), int(rest))
    if word == b"fail":
        raise RuntimeError
    if word == b"hang":
        signal.pause()
    if word == b"long":
        return b"x" * (MAX_MESSAGE_BYTES + 1)
    if word == b"work":
        for _ in range(int(rest)):
            say()
    return b"%d " % os.getpid() + request


def pid_of(answer: bytes) -> int:
    return int(answer.split()[0])


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_helper_answers_one_request_after_the_other_in_a_process_of_its_own() -> None:
    with closing(Helper(serve, silence_s=60)) as helper:
        first, second = helper.ask(b"one"), helper.ask(b"x" * 300_000)
        assert pid_of(first) == pid_of(second) != os.getpid()
        assert first.endswith(b" one")
        assert second.endswith(b" " + b"x" * 300_000)
    assert not is_there(pid_of(first))


def test_a_descriptor_travels_with_a_request_and_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with closing(Helper(serve, silence_s=60)) as helper:
        pid = pid_of(helper.ask(b"one"))
        held = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        for _ in range(3):
            with (tmp_path / "file").open("rb") as file:
                assert helper.ask(b"read", file.fileno()) == b"content"
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == held


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (b"die 9", r"its process ended by signal 9 \(Killed\)"),
        (b"die 24", r"its process ended by signal 24 "),
        (b"fail", "its process ended with status 70"),
        (b"long", r"its process ended by signal 9 "),
    ],
)
def test_how_a_helper_ended_is_told_and_the_next_request_has_a_new_one(request_: bytes, said: str) -> None:
    with closing(Helper(serve, silence_s=60)) as helper:
        first = pid_of(helper.ask(b"one"))
        with pytest.raises(HelperLost, match=said) as caught:
            helper.ask(request_)
        assert not caught.value.is_silent
        assert pid_of(helper.ask(b"two")) != first
        assert not is_there(first)


@pytest.mark.slow
def test_a_helper_that_says_nothing_for_too_long_is_ended() -> None:
    with closing(Helper(serve, silence_s=0.1)) as helper:
        first = pid_of(helper.ask(b"one"))
        with pytest.raises(HelperLost, match=r"no answer within 0\.1 s") as caught:
            helper.ask(b"hang")
        assert caught.value.is_silent
        assert not is_there(first)


def test_a_helper_that_says_that_it_works_is_waited_for() -> None:
    with closing(Helper(serve, silence_s=60)) as helper:
        assert helper.ask(b"work 50").endswith(b"work 50")


@pytest.mark.slow
def test_whoever_waits_can_be_stopped_and_the_helper_ends_with_it() -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise KeyboardInterrupt

    helper = Helper(serve, silence_s=60, check=check)
    pid = pid_of(helper.ask(b"work 1"))
    with pytest.raises(KeyboardInterrupt, match="^$"):
        helper.ask(b"hang")
    assert not is_there(pid)


def test_a_process_that_was_forked_meanwhile_gets_a_helper_of_its_own() -> None:
    with closing(Helper(serve, silence_s=60)) as helper:
        ours = pid_of(helper.ask(b"one"))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, helper.ask(b"two"))
            os._exit(0)
        os.waitpid(child, 0)
        theirs = pid_of(os.read(reader, 100))
        assert theirs not in (ours, child)
        assert pid_of(helper.ask(b"three")) == ours
        os.close(reader)
        os.close(writer)


def test_a_helper_dies_with_its_parent() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, Helper(serve, silence_s=60).ask(b"one"))
        signal.pause()
    pid = pid_of(os.read(reader, 100))
    assert is_there(pid)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writer)
    # Nobody else holds the pipe: the end of it is the helper's.
    assert os.read(reader, 1) == b""
    os.close(reader)

"""Followers and the scheduler's alarm."""

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest

from protocol.command import CommandState
from protocol.documents import Progress
from server.events import Events, FollowerDropped, Wake
from server.rows import Change


def change(number: int, action: str = "a") -> Change:
    return Change(
        action_id=action,
        command_id=str(number),
        agent_id="agent",
        agent_name="web1",
        state=CommandState.SENT,
    )


def test_a_follower_gets_what_is_published_for_its_action_while_it_follows() -> None:
    async def scenario() -> None:
        events = Events()
        events.publish([change(0)])
        with events.follow("a") as first, events.follow("a") as second:
            events.publish([change(1), change(2, "b"), change(3)])
            events.publish([change(4)])
            expected = [change(1), change(3), change(4)]
            assert await first.changes(1) == expected
            assert await second.changes(1) == expected
            assert await first.changes(0.001) == []
        assert events.count_followers("a") == 0
        events.publish([change(5)])

    asyncio.run(scenario())


def progress(number: int, seen: int) -> Change:
    counted = Progress(operation=0, elapsed_s=1.0, statistics={"files_seen": seen}, told=datetime.now(UTC))
    return msgspec.structs.replace(change(number), progress=counted)


def test_the_last_progress_is_kept_until_the_command_changes_its_state() -> None:
    events = Events()
    assert events.last_progress("1") is None
    events.publish([progress(1, 5), progress(2, 6), progress(1, 7)])
    last = events.last_progress("1")
    assert last is not None
    assert last.progress is not None
    assert last.progress.statistics == {"files_seen": 7}
    events.publish([change(1)])
    assert events.last_progress("1") is None
    assert events.last_progress("2") is not None


def test_progress_without_end_pushes_out_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.events._MAX_RUNNING", 2)
    events = Events()
    events.publish([progress(1, 1), progress(2, 1), progress(1, 2), progress(3, 1)])
    assert [number for number in range(1, 4) if events.last_progress(str(number))] == [1, 3]


def test_a_follower_that_waits_is_woken_at_once() -> None:
    async def scenario() -> None:
        events = Events()
        with events.follow("a") as follower:
            waiting = asyncio.create_task(follower.changes(60))
            await asyncio.sleep(0)
            events.publish([change(1)])
            assert await waiting == [change(1)]

    asyncio.run(scenario())


def test_a_follower_that_is_too_slow_is_dropped_alone() -> None:
    async def scenario() -> None:
        events = Events(max_queued=2)
        with events.follow("a") as slow, events.follow("a") as quick:
            for number in range(3):
                events.publish([change(number)])
                assert await quick.changes(1) == [change(number)]
            with pytest.raises(FollowerDropped, match="^$"):
                await slow.changes(1)
            events.publish([change(9)])
            assert await quick.changes(1) == [change(9)]
            with pytest.raises(FollowerDropped, match="^$"):
                await slow.changes(1)

    asyncio.run(scenario())


def test_closing_ends_followers_of_now_and_of_later() -> None:
    async def scenario() -> None:
        events = Events()
        with events.follow("a") as follower:
            waiting = asyncio.create_task(follower.changes(60))
            await asyncio.sleep(0)
            events.close()
            with pytest.raises(FollowerDropped, match="^$"):
                await waiting
        with events.follow("b") as late, pytest.raises(FollowerDropped, match="^$"):
            await late.changes(60)

    asyncio.run(scenario())


def test_the_alarm_rings_once_for_several_calls_and_is_not_lost_before_the_wait() -> None:
    async def scenario() -> None:
        wake = Wake()
        wake.set()
        wake.set()
        assert await wake.wait(60)
        assert not await wake.wait(0.001)
        waiting = asyncio.create_task(wake.wait())
        await asyncio.sleep(0)
        wake.set()
        assert await waiting

    asyncio.run(scenario())

"""A question that is answered late, or never: one call is under way, whoever asks."""

import asyncio

import pytest

from protocol.errors import EnvironmentFailure
from server.single_flight import SingleFlight


def test_who_asks_meanwhile_waits_for_the_same_answer_and_who_asks_later_asks_anew() -> None:
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return asked

    async def whole() -> None:
        question = SingleFlight(ask)
        assert set(await asyncio.gather(question.answer(), question.answer())) == {1}
        assert await question.answer() == 2

    asyncio.run(whole())


def test_what_is_not_answered_in_time_stands_and_is_not_asked_again() -> None:
    asked = 0

    async def whole() -> None:
        answered = asyncio.Event()

        async def ask() -> str:
            nonlocal asked
            asked += 1
            await answered.wait()
            return "late"

        question = SingleFlight(ask, patience_s=0.01)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await question.answer()
        answered.set()
        assert await question.answer() == "late"
        assert asked == 1

    asyncio.run(whole())


def test_what_fails_is_said_and_asked_again() -> None:
    async def ask() -> None:
        raise EnvironmentFailure("broker-away", retryable=True)

    async def whole() -> None:
        question = SingleFlight(ask)
        for _ in range(2):
            with pytest.raises(EnvironmentFailure, match="broker-away"):
                await question.answer()

    asyncio.run(whole())

"""A question to another program that may never answer: asked once at a time, and waited for within bounds."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
PATIENCE_S = 2.0


class SingleFlight(Generic[_T]):
    """One question; nobody asks again before it is answered or has failed: however many wait, one call does.

    Args:
        ask: asks it.
        patience_s: how long whoever wants the answer waits for it.

    """

    def __init__(self, ask: Callable[[], Awaitable[_T]], patience_s: float = PATIENCE_S) -> None:
        self._ask = ask
        self._patience_s = patience_s
        self._asked: asyncio.Future[_T] | None = None

    async def answer(self) -> _T:
        """Return what is answered.

        Raises:
            TimeoutError: nothing yet; the question stands.

        What `ask` raises, too.

        """
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._ask())
        asked = self._asked
        await asyncio.wait({asked}, timeout=self._patience_s)
        if not asked.done():
            raise TimeoutError
        if self._asked is asked:
            self._asked = None
        return asked.result()

"""One queue's way in: deliveries become batches, which a handler commits, and then they are settled.

Rules:
1. Up to `depth` batches are under way, so that one is checked while the one before it is committed; they are
   settled in the order in which they came.
2. While a batch is under way only a whole one is begun beside it: a commit costs the same for one delivery as
   for many. What has come by the time that nothing is under way is a batch, however small.
3. Where batches may wait and many messages come, nothing is consumed meanwhile: what has gathered in the
   queue then comes at once, and wakes this process and the broker's own once, not for each message.
4. How much stands in memory is bounded by the prefetch: the broker delivers more as batches are settled.
5. A batch that cannot be dealt with now is given again until it can; what makes it fail for good is found out
   and refused alone.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence

from protocol.errors import EnvironmentFailure, InvalidInput
from server.amqp import Channel, ChannelRefused, Delivery
from server.floods import RATE_LIMITED

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
# Answers of the largest size stand in memory so often: two batches under way.
PREFETCH = 400
BATCH = 200
_MANY = 20  # so many in a batch are many
_SCOOP_S = 0.02  # so long what has gathered in the queue may take to come

# Gets a batch; returns, for each delivery, None to acknowledge or the code under which it is refused.
# Raises EnvironmentFailure where the batch cannot be dealt with now: it is given again.
Handler = Callable[[Sequence[Delivery]], Awaitable[Sequence[str | None]]]
_UnderWay = tuple[Sequence[Delivery], "asyncio.Task[Sequence[str | None]]"]


class Inflow:
    """One queue's way in.

    Args:
        queue: its name.
        handler: what is done with a batch.
        dead: counts refused and dropped messages by code.
        depth: how many batches may be under way.
        pause_s: so long after the last batch the next one is begun at the soonest, unless it is whole before.

    """

    def __init__(
        self, queue: str, handler: Handler, dead: Counter[str], *, depth: int, pause_s: float
    ) -> None:
        self.queue = queue
        self._depth = depth
        self._pause_s = pause_s
        self._handler = handler
        self._dead = dead
        self._soonest = 0.0  # when the next batch is begun that is not whole
        self._last_size = 0
        self._channel: Channel | None = None
        self._arrived: deque[Delivery] = deque()
        self._stirred = asyncio.Event()  # something has arrived, or a batch has ended
        self._under_way: deque[_UnderWay] = deque()
        self.ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.idle = asyncio.Event()

    def is_at_rest(self) -> bool:
        """Tell whether all that has come is settled."""
        return not self._arrived and not self._under_way

    async def start(self, channel: Channel) -> None:
        """Begin to consume."""
        self._channel = channel
        await channel.consume(
            self.queue, PREFETCH, self._arrive, lambda: self.end("was deleted, or lost its node")
        )

    def _arrive(self, delivery: Delivery) -> None:
        self._arrived.append(delivery)
        if len(self._arrived) in {1, BATCH}:
            self._stirred.set()

    def end(self, why: str) -> None:
        """Let the work end: this queue cannot be consumed any longer."""
        if not self.ended.done():
            reason = EnvironmentFailure("broker-away", f"{self.queue} {why}", retryable=True)
            self.ended.set_result(reason)

    async def work(self) -> None:
        """Handle batch after batch, until cancelled or until the channel is gone."""
        under_way = self._under_way
        try:
            while True:
                while under_way and under_way[0][1].done():
                    batch, handling = under_way.popleft()
                    self._settle(batch, handling.result())
                if self._may_begin(len(under_way)):
                    await self._let_gather()
                    under_way.append(self._begin())
                    continue
                if not under_way:
                    self.idle.set()
                await self._stirred.wait()
                self._stirred.clear()
        except (EnvironmentFailure, ChannelRefused):
            return  # the channel is gone: the relay connects again and gets the batches again
        finally:
            for _, handling in under_way:
                handling.cancel()

    def _may_begin(self, under_way: int) -> bool:
        if not under_way:
            return bool(self._arrived)
        return under_way < self._depth and len(self._arrived) >= BATCH

    async def _let_gather(self) -> None:
        """Wait for the next batch's time, unless it is whole already."""
        loop = asyncio.get_running_loop()
        left_s = self._soonest - loop.time()
        if left_s > 0 and len(self._arrived) < BATCH:
            if self._last_size < _MANY:
                await asyncio.sleep(left_s)
            else:
                channel = self._require_channel()
                await channel.pause()
                await asyncio.sleep(left_s)
                await channel.resume()
                await asyncio.sleep(_SCOOP_S)
        self._soonest = loop.time() + self._pause_s

    def _begin(self) -> _UnderWay:
        batch = [self._arrived.popleft() for _ in range(min(BATCH, len(self._arrived)))]
        self._last_size = len(batch)
        handling = asyncio.ensure_future(self._handle(batch))
        handling.add_done_callback(lambda _: self._stirred.set())
        return batch, handling

    def _settle(self, batch: Sequence[Delivery], verdicts: Sequence[str | None]) -> None:
        for delivery, code in zip(batch, verdicts, strict=True):
            if code is not None:
                self._dead[code] += 1
            if code is not None and code != RATE_LIMITED:
                _log.warning(
                    "refused a message",
                    extra={"queue": self.queue, "sender": delivery.user_id, "code": code},
                )
                self._require_channel().reject(delivery.tag)
        done = [d.tag for d, code in zip(batch, verdicts, strict=True) if code in {None, RATE_LIMITED}]
        if done:
            self._require_channel().ack(done[-1], multiple=True)

    async def _handle(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        """Ask the handler until it has an answer; what makes it fail is found out and refused."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self._handler(batch)
            except EnvironmentFailure as error:
                _log.warning("messages wait", extra={"queue": self.queue, "reason": error})
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except InvalidInput as error:
                if len(batch) == 1:
                    return [error.code]
                return [code for delivery in batch for code in await self._handle([delivery])]
            except Exception:  # noqa: BLE001  (a process loop: one message must not hold up all agents)
                if len(batch) == 1:
                    _log.exception("a message could not be handled", extra={"queue": self.queue})
                    return ["bad-document"]
                return [code for delivery in batch for code in await self._handle([delivery])]

    def _require_channel(self) -> Channel:
        if self._channel is None:
            raise RuntimeError("not started")
        return self._channel

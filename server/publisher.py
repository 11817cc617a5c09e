"""Persistent, mandatory, confirmed publishing on a channel of `server.amqp`, with which it is one adapter."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import pika
from pika.exceptions import AMQPError

from server.amqp import Channel

_PERSISTENT = 2


class Message(NamedTuple):
    """One message to publish; `ttl_ms` is the time until it is worthless."""

    id: str
    exchange: str
    routing_key: str
    body: bytes
    ttl_ms: int


class _Batch:
    """The messages of one `publish`: which are still open, which the broker took."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.taken: set[str] = set()
        self.finished = asyncio.Event()


class Publisher:
    """Persistent, mandatory, confirmed publishing with a window of messages and bytes under way.

    Of the window: one confirm per message is 13 times slower, and without a bound a thousand bodies of a
    megabyte would stand in memory.
    """

    def __init__(self, channel: Channel, *, window: int, window_bytes: int) -> None:
        self._channel = channel
        self._window = window
        self._window_bytes = window_bytes
        self._next_tag = 1  # the broker counts the messages of a channel in confirm mode from 1
        self._outstanding: dict[int, tuple[Message, _Batch]] = {}
        self._bytes = 0
        self._returned: set[str] = set()
        self._room = asyncio.Event()

    @classmethod
    async def on(cls, channel: Channel, *, window: int = 500, window_bytes: int = 8 << 20) -> "Publisher":
        """Put a channel in confirm mode."""
        publisher = cls(channel, window=window, window_bytes=window_bytes)
        raw = channel._channel  # noqa: SLF001  (the two classes are one adapter)
        raw.add_on_return_callback(publisher._on_return)
        await channel._call(raw.confirm_delivery, ack_nack_callback=publisher._on_confirm)  # noqa: SLF001
        channel.closed.add_done_callback(lambda _reason: publisher._on_close())
        return publisher

    async def publish(self, messages: Sequence[Message]) -> frozenset[str]:
        """Publish and return the ids of those that the broker took into a queue.

        The others were returned (no queue), refused (queue full), or their fate is unknown (connection gone).
        """
        batch = _Batch()
        for message in messages:
            while self._channel.is_open and self._is_full(message):
                self._room.clear()
                await self._room.wait()
            if not self._send(message, batch):
                break
        while batch.open:
            batch.finished.clear()
            await batch.finished.wait()
        return frozenset(batch.taken)

    def _is_full(self, message: Message) -> bool:
        return bool(self._outstanding) and (
            len(self._outstanding) >= self._window or self._bytes + len(message.body) > self._window_bytes
        )

    def _send(self, message: Message, batch: _Batch) -> bool:
        if not self._channel.is_open:
            return False
        try:
            self._channel._channel.basic_publish(  # noqa: SLF001
                exchange=message.exchange,
                routing_key=message.routing_key,
                body=message.body,
                properties=pika.BasicProperties(
                    delivery_mode=_PERSISTENT,
                    message_id=message.id,
                    expiration=str(message.ttl_ms),
                    content_type="application/json",
                ),
                mandatory=True,
            )
        except AMQPError:
            return False
        self._outstanding[self._next_tag] = (message, batch)
        batch.open.add(self._next_tag)
        self._bytes += len(message.body)
        self._next_tag += 1
        return True

    def _on_return(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        # The return of a message comes before its confirm (RabbitMQ, "Publisher confirms").
        self._returned.add(properties.message_id)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        is_taken = method.NAME == "Basic.Ack"
        if method.multiple:
            tags = [tag for tag in self._outstanding if tag <= method.delivery_tag]
        else:
            tags = [method.delivery_tag]
        for tag in tags:
            self._settle(tag, is_taken=is_taken)

    def _settle(self, tag: int, *, is_taken: bool) -> None:
        message, batch = self._outstanding.pop(tag)
        self._bytes -= len(message.body)
        if message.id in self._returned:
            self._returned.discard(message.id)
        elif is_taken:
            batch.taken.add(message.id)
        batch.open.discard(tag)
        if not batch.open:
            batch.finished.set()
        self._room.set()

    def _on_close(self) -> None:
        for tag in list(self._outstanding):
            self._settle(tag, is_taken=False)
        self._room.set()

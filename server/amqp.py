"""pika's callbacks as awaitables: one connection, its channels, and confirmed publishing. No policy.

A connection or channel that goes away fails whatever waits on it; nothing here reconnects. pika's exceptions
end at this file: `ChannelRefused` where the broker closed a channel with a reason, else `broker-away`.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import AMQPError, ChannelClosedByBroker

from protocol.errors import EnvironmentFailure, InvalidInput

NOT_FOUND = 404
PRECONDITION_FAILED = 406
_PERSISTENT = 2
_CLOSE_S = 5.0
_HEARTBEAT_S = 60


class ChannelRefused(Exception):
    """The broker closed the channel; `reply_code` is one of AMQP 0-9-1 section 1.2 (404, 406, ...)."""

    def __init__(self, reply_code: int, reply_text: str) -> None:
        super().__init__(f"{reply_code} {reply_text}")
        self.reply_code = reply_code


class Delivery(NamedTuple):
    """One message as the broker delivered it: routing key and user id are the broker's word."""

    tag: int
    routing_key: str
    user_id: str
    body: bytes
    redelivered: bool = False


class Message(NamedTuple):
    """One message to publish; `ttl_ms` is the time until it is worthless."""

    id: str
    exchange: str
    routing_key: str
    body: bytes
    ttl_ms: int


def parse_url(url: str, ca: str = "") -> pika.URLParameters:
    """Parse an AMQP URL; with `amqps` the broker's certificate and name are always checked.

    Args:
        url: with the account's name and password.
        ca: file of the only authorities that may vouch for the broker, in PEM; empty for the system's.

    Raises:
        InvalidInput: `bad-config`; the URL is not repeated, it may hold a password.

    """
    if not url.startswith(("amqp://", "amqps://")):
        raise InvalidInput("bad-config", "relay: not an amqp:// or amqps:// URL")
    try:
        parameters = pika.URLParameters(url)
        if url.startswith("amqps:"):
            context = ssl.create_default_context(cafile=ca or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            parameters.ssl_options = pika.SSLOptions(context, parameters.host)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInput("bad-config", f"relay_ca: {ca}: {error.strerror or error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput("bad-config", f"relay: {type(error).__name__} in the URL") from None
    return parameters


def _away(reason: BaseException) -> EnvironmentFailure:
    # pika nests the reason in the exceptions of its workflow; the innermost says it in the fewest words.
    while True:
        nested = [*reason.args, *getattr(reason, "exceptions", ()), getattr(reason, "exception", None)]
        inner = [item for item in nested if isinstance(item, BaseException)]
        if not inner:
            break
        reason = inner[-1]
    if isinstance(reason, ssl.SSLCertVerificationError):
        text = f"the broker's certificate is not accepted: {reason.verify_message}"
        return EnvironmentFailure("broker-away", text, retryable=True)
    text = " ".join(str(reason).split()) or type(reason).__name__
    return EnvironmentFailure("broker-away", text, retryable=True)


class Link:
    """One open connection on the running event loop; `closed` resolves, once, to the reason of its end."""

    def __init__(self, connection: AsyncioConnection, closed: "asyncio.Future[Exception]") -> None:
        self._connection = connection
        self.closed = closed

    @classmethod
    async def open(cls, url: str, *, name: str, ca: str = "") -> "Link":
        """Connect and log in; `url` and `ca` as for `parse_url`.

        Raises:
            InvalidInput: `bad-config`.
            EnvironmentFailure: `broker-away`.

        """
        parameters = parse_url(url, ca)
        parameters.client_properties = {"connection_name": name}
        # As often as the broker asks for, but never not at all: a network that swallows packets tells nobody.
        parameters.heartbeat = lambda _link, asked: min(int(asked), _HEARTBEAT_S) or _HEARTBEAT_S
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        closed: asyncio.Future[Exception] = loop.create_future()

        def on_open(_connection: Any) -> None:
            if not opened.done():
                opened.set_result(None)

        def on_failure(_connection: Any, error: BaseException) -> None:
            if not opened.done():
                opened.set_exception(_away(error))

        def on_close(_connection: Any, reason: BaseException) -> None:
            on_failure(_connection, reason)
            if not closed.done():
                closed.set_result(_away(reason))

        connection = AsyncioConnection(
            parameters,
            on_open_callback=on_open,
            on_open_error_callback=on_failure,
            on_close_callback=on_close,
            custom_ioloop=loop,
        )
        try:
            await opened
        except asyncio.CancelledError:
            connection.close()
            raise
        return cls(connection, closed)

    @classmethod
    async def open_any(cls, urls: Sequence[str], *, name: str, ca: str = "") -> "Link":
        """Connect to the first of some nodes that lets us in; raises as `open`, of the last one."""
        for url in urls[:-1]:
            with suppress(EnvironmentFailure):
                return await cls.open(url, name=name, ca=ca)
        return await cls.open(urls[-1], name=name, ca=ca)

    async def channel(self) -> "Channel":
        """Open a channel.

        Raises:
            EnvironmentFailure: `broker-away`.

        """
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def on_open(channel: Any) -> None:
            if not opened.done():
                opened.set_result(channel)

        def on_close(reason: "asyncio.Future[Exception]") -> None:
            if not opened.done():
                opened.set_exception(reason.result())

        self.closed.add_done_callback(on_close)
        try:
            self._connection.channel(on_open_callback=on_open)
            return Channel(await opened)
        except AMQPError as error:
            raise _away(error) from None
        finally:
            self.closed.remove_done_callback(on_close)

    async def close(self) -> None:
        """Close the connection; a broker that does not answer is waited for a few seconds only."""
        if self._connection.is_open:
            self._connection.close()
        await asyncio.wait([self.closed], timeout=_CLOSE_S)


class Channel:
    """One channel; every method but `send`, `ack` and `reject` waits for the broker's word.

    All of them raise `ChannelRefused` or `EnvironmentFailure` (`broker-away`) where the channel is gone;
    `closed` resolves, once, to that reason.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._waiting: set[asyncio.Future[Any]] = set()
        self.closed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        channel.add_on_close_callback(self._on_close)

    @property
    def is_open(self) -> bool:
        """Tell whether the channel can be used."""
        return not self.closed.done() and bool(self._channel.is_open)

    def _on_close(self, _channel: Any, reason: BaseException) -> None:
        if isinstance(reason, ChannelClosedByBroker):
            failure: Exception = ChannelRefused(reason.reply_code, reason.reply_text)
        else:
            failure = _away(reason)
        if not self.closed.done():
            self.closed.set_result(failure)
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(failure)

    async def _call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)

        def on_answer(frame: Any) -> None:
            if not future.done():
                future.set_result(frame)

        try:
            method(callback=on_answer, **arguments)
        except AMQPError as error:
            future.cancel()
            raise self._failure(error) from None
        return await future

    def _failure(self, error: BaseException) -> Exception:
        return self.closed.result() if self.closed.done() else _away(error)

    async def declare_exchange(self, name: str, kind: str) -> None:
        """Declare a durable exchange."""
        await self._call(self._channel.exchange_declare, exchange=name, exchange_type=kind, durable=True)

    async def declare_queue(
        self, name: str, arguments: Mapping[str, str | int], *, durable: bool = True
    ) -> int:
        """Declare a queue; return how many messages are ready in it."""
        frame = await self._call(
            self._channel.queue_declare, queue=name, durable=durable, arguments=dict(arguments)
        )
        return int(frame.method.message_count)

    async def declare_private_queue(self, name: str, arguments: Mapping[str, str | int]) -> None:
        """Declare a queue that only this connection may use, and that goes with it."""
        await self._call(
            self._channel.queue_declare,
            queue=name,
            exclusive=True,
            auto_delete=True,
            arguments=dict(arguments),
        )

    async def queue_depth(self, name: str) -> int:
        """Return how many messages are ready in a queue; `ChannelRefused` 404 where there is none."""
        frame = await self._call(self._channel.queue_declare, queue=name, passive=True)
        return int(frame.method.message_count)

    async def bind_queue(self, queue: str, exchange: str, routing_key: str) -> None:
        """Bind a queue to an exchange."""
        await self._call(self._channel.queue_bind, queue=queue, exchange=exchange, routing_key=routing_key)

    async def unbind_queue(self, queue: str, exchange: str, routing_key: str) -> None:
        """Take a binding away; none there is fine."""
        await self._call(self._channel.queue_unbind, queue=queue, exchange=exchange, routing_key=routing_key)

    async def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> None:
        """Delete a queue with what is in it; its consumers are cancelled. None there is fine.

        With `if_unused` or `if_empty`, `ChannelRefused` 406 where it has consumers or messages.
        """
        await self._call(self._channel.queue_delete, queue=name, if_unused=if_unused, if_empty=if_empty)

    async def consume(
        self,
        queue: str,
        prefetch: int,
        on_delivery: Callable[[Delivery], None],
        on_cancel: Callable[[], None],
    ) -> None:
        """Consume with at most `prefetch` deliveries unacknowledged; `on_cancel`: the broker ended it."""

        def on_message(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            user_id = properties.user_id or ""
            on_delivery(
                Delivery(method.delivery_tag, method.routing_key, user_id, body, bool(method.redelivered))
            )

        await self._call(self._channel.basic_qos, prefetch_count=prefetch)
        self._channel.add_on_cancel_callback(lambda _frame: on_cancel())
        await self._call(self._channel.basic_consume, queue=queue, on_message_callback=on_message)

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge a delivery, or all up to it."""
        try:
            self._channel.basic_ack(tag, multiple=multiple)
        except AMQPError as error:
            raise self._failure(error) from None

    def reject(self, tag: int) -> None:
        """Refuse a delivery for good: it goes to the dead letters."""
        try:
            self._channel.basic_reject(tag, requeue=False)
        except AMQPError as error:
            raise self._failure(error) from None


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

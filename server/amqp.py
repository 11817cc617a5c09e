"""pika's callbacks as awaitables: one connection and its channels. No policy.

A connection or channel that goes away fails whatever waits on it; nothing here reconnects. pika's exceptions
end at this file: `ChannelRefused` where the broker closed a channel with a reason, else `broker-away`.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import AMQPError, ChannelClosedByBroker

from protocol.errors import EnvironmentFailure, InvalidInput

NOT_FOUND = 404
PRECONDITION_FAILED = 406
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
    """One open connection on the running event loop; `closed` resolves, once, to the reason of its end.

    `blocked` is set while the broker takes nothing from it, since memory or disk are short there. It says so
    to who has published something; from then on it reads nothing of the connection, acknowledgements neither.
    """

    def __init__(self, connection: AsyncioConnection, closed: "asyncio.Future[Exception]") -> None:
        self._connection = connection
        self.closed = closed
        self.blocked = asyncio.Event()
        connection.add_on_connection_blocked_callback(lambda *_: self.blocked.set())
        connection.add_on_connection_unblocked_callback(lambda *_: self.blocked.clear())

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


def _nothing_to_consume(**_arguments: object) -> None:
    raise RuntimeError("nothing is consumed")


class Channel:
    """One channel; every method but `ack` and `reject` waits for the broker's word.

    All of them raise `ChannelRefused` or `EnvironmentFailure` (`broker-away`) where the channel is gone;
    `closed` resolves, once, to that reason.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._waiting: set[asyncio.Future[Any]] = set()
        self._consuming: Callable[..., Any] = _nothing_to_consume
        self._tag = ""
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
        """Consume one queue with at most `prefetch` deliveries unacknowledged.

        `on_cancel`: the broker ended it. A channel has one queue.
        """

        def on_message(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            user_id = properties.user_id or ""
            on_delivery(
                Delivery(method.delivery_tag, method.routing_key, user_id, body, bool(method.redelivered))
            )

        await self._call(self._channel.basic_qos, prefetch_count=prefetch)
        self._channel.add_on_cancel_callback(lambda _frame: on_cancel())
        self._consuming = partial(self._channel.basic_consume, queue=queue, on_message_callback=on_message)
        await self.resume()

    async def pause(self) -> None:
        """Consume nothing for now; what comes until the broker has heard of it goes back to the queue."""
        await self._call(self._channel.basic_cancel, consumer_tag=self._tag)

    async def resume(self) -> None:
        """Consume again."""
        frame = await self._call(self._consuming)
        self._tag = frame.method.consumer_tag

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

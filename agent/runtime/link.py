"""The agent's one connection to the broker: outbound, and kept up for ever.

Rules:
1. Each login attempt makes its own password; a refused login is retried like any other failure.
2. The server declares the queue; the agent only consumes it and publishes with its own three routing keys.
3. A delivery is acknowledged when whoever took it says so; if the connection is gone by then, the broker
   delivers again, and the journal knows it.
4. Every publish is mandatory and confirmed, and persistent unless it is made anew at each login, as a
   heartbeat is: a broker that dies ends this connection too. What is returned, refused or unconfirmed when
   the connection ends is still pending: answers stay in the spool, heartbeats are simply made anew.
   A connection on which the broker has refused one kind of message for a minute or two is given up: RabbitMQ
   3.10 refuses for ever what a channel sends to a quorum queue, if it has sent the first while that had no
   leader. Where a queue is full this does not help, so the next time is twice as long, an hour at most.
5. Reconnecting waits 1 s, doubling up to 60 s, each wait drawn at random from its upper half, so that a
   thousand agents that lost their broker together do not return together. After a login that was denied it
   is 4 s at the least: the server may have more of them than it can answer, and each attempt costs it some.
6. Of several nodes each agent begins at one drawn at random, and each attempt after a failure, a refused
   login too, goes to the next: the node, or the server that it asks, may be the one that is away.
7. A network that swallows packets tells nobody: the kernel finds it out within two minutes, by probes that
   wake no process (tcp(7)). AMQP's own heartbeats do, too, as often as the broker's `heartbeat` asks for; it
   cannot switch them off.
"""

import logging
import secrets
import socket
import ssl
import time
from datetime import datetime
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Set, Tuple
from urllib.parse import unquote, urlsplit

from agent.runtime.amqp import Channel, IOLoop, SelectConnection, pika
from agent.runtime.identity import Identity
from protocol.enrolment import EnrolmentToken
from protocol.identity import make_broker_password
from protocol.names import AGENTS_EXCHANGE, agent_queue

_LOG = logging.getLogger("mig.agent.link")
_FIRST_DELAY_S = 1.0
_DENIED_DELAY_S = 4.0
_LONGEST_DELAY_S = 60.0
_PREFETCH = 16  # what waits its turn must leave room for the cancel that comes behind it
_SOCKET_TIMEOUT_S = 15
# After so long a silence the kernel asks whether the other side is there, then again and again; what it sent
# and nobody took for so many milliseconds ends the connection too. Not every platform has all of them.
_PROBES = {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
_TCP_OPTIONS = {name: value for name, value in _PROBES.items() if hasattr(socket, name)}
_AMQP_HEARTBEAT_S = 60  # where the broker asks for none
_LONGEST_AMQP_HEARTBEAT_S = 300 if "TCP_KEEPIDLE" in _TCP_OPTIONS else 60
_TRANSIENT, _PERSISTENT = 1, 2
_UNCONFIRMED = False
_REFUSED_S = 60.0
_LONGEST_REFUSED_S = 3600.0
# What the broker's refusals mean here (AMQP 0-9-1, 403 at login and 530 at the virtual host).
_MEANINGS = {
    pika.exceptions.ProbableAuthenticationError: "the login was denied: this agent is revoked, shows no good"
    " enrolment token, or has a clock that is off by more than a day; or the server is away",
    pika.exceptions.ProbableAccessDeniedError: "this agent waits for approval",
}


class Relay(NamedTuple):
    """Where the broker's nodes are, from the baked configuration; `broker` is the server's name.

    `ca` is PEM text, the only authorities that may vouch for the broker, or empty for the system's; `token`
    is what a new agent shows to be let in.
    """

    urls: Tuple[str, ...]
    broker: str
    ca: str = ""
    token: Optional[EnrolmentToken] = None


class _Publish(NamedTuple):
    message_id: str
    routing_key: str
    done: Callable[[bool], None]


class Link:
    """Keeps a connection, hands deliveries to `on_delivery(body, acknowledge)`, and publishes."""

    def __init__(
        self,
        *,
        ioloop: IOLoop,
        relay: Relay,
        identity: Identity,
        clock: Callable[[], datetime],
        on_delivery: Callable[[bytes, Callable[[], None]], None],
        on_ready: Callable[[], None],
        on_trouble: Callable[[], None],
        random: Callable[[], float],
        facts: Callable[[], Dict[str, Any]],
    ) -> None:
        self._ioloop = ioloop
        self._relay = relay
        self._identity = identity
        self._clock = clock
        self._on_delivery = on_delivery
        self._on_ready = on_ready
        self._on_trouble = on_trouble
        self._random = random
        self._facts = facts
        self._connection: Optional[SelectConnection] = None
        self._channel: Optional[Channel] = None
        self._place = int(random() * len(relay.urls))  # of the node that is tried next
        self._delay_s = _FIRST_DELAY_S
        self._timer: Any = None
        self._closing = False
        self._sequence = 0
        self._unconfirmed: Dict[int, _Publish] = {}
        # By the routing key of what is refused on this connection: when it is given up.
        self._refused: Dict[str, float] = {}
        self._refused_s = _REFUSED_S
        self._given_up_for = ""
        self._returned: Set[str] = set()
        self.is_ready = False
        self.last_problem = ""

    def connect(self) -> None:
        """Start connecting; returns at once."""
        self._timer = None
        if self._closing:
            return
        try:
            parameters = self._parameters()
        except (ValueError, OSError) as error:  # the builder checked URL and CA; the system's may be wrong
            self._retry(str(error))
            return
        self._connection = SelectConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
            custom_ioloop=self._ioloop,
        )

    def close(self) -> None:
        """Close for good; unacknowledged deliveries come again at the next start."""
        self._closing = True
        if self._timer is not None:
            self._ioloop.remove_timeout(self._timer)
        # One that is still being opened is left to `_on_open`, or to the process's end: pika fails an
        # assertion of its own where it is closed in the middle of the login.
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def publish(
        self, routing_key: str, body: bytes, done: Callable[[bool], None], *, lasting: bool = True
    ) -> None:
        """Publish once; `done(confirmed)` is called when the broker has answered or is gone.

        What is not `lasting` a broker may forget that is restarted: it is kept on no disk, which is half of
        what a message costs.
        """
        if self._channel is None or not self.is_ready:
            done(_UNCONFIRMED)
            return
        self._sequence += 1
        message_id = str(self._sequence)
        self._unconfirmed[self._sequence] = _Publish(message_id, routing_key, done)
        self._channel.basic_publish(
            AGENTS_EXCHANGE,
            routing_key,
            body,
            pika.BasicProperties(
                delivery_mode=_PERSISTENT if lasting else _TRANSIENT,
                user_id=self._identity.agent_id,
                message_id=message_id,
                content_type="application/json",
            ),
            mandatory=True,
        )

    def _parameters(self) -> pika.ConnectionParameters:
        parts = urlsplit(self._relay.urls[self._place % len(self._relay.urls)])
        vhost = unquote(parts.path[1:]) or "/"
        facts = self._facts()
        password = make_broker_password(
            self._identity.private_key,
            broker=self._relay.broker,
            vhost=vhost,
            time=int(self._clock().timestamp()),
            nonce=secrets.token_bytes(16),
            token=self._relay.token,
            name=facts["name"],
            addresses=facts["environment"]["addresses"],
        )
        options: Dict[str, Any] = {}
        is_tls = parts.scheme == "amqps"
        if is_tls:
            options["ssl_options"] = pika.SSLOptions(tls_context(self._relay.ca), parts.hostname)
        return pika.ConnectionParameters(
            host=parts.hostname,
            port=parts.port or (5671 if is_tls else 5672),
            virtual_host=vhost,
            credentials=pika.PlainCredentials(self._identity.agent_id, password),
            heartbeat=_agree_on_heartbeat,
            tcp_options=_TCP_OPTIONS,
            socket_timeout=_SOCKET_TIMEOUT_S,
            stack_timeout=2 * _SOCKET_TIMEOUT_S,
            blocked_connection_timeout=300,
            connection_attempts=1,
            **options,
        )

    def _on_open(self, connection: SelectConnection) -> None:
        if self._closing:
            connection.close()
            return
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Channel) -> None:
        self._channel = channel
        self._sequence = 0
        channel.add_on_close_callback(self._on_channel_close)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._consume(channel))

    def _consume(self, channel: Channel) -> None:
        channel.add_on_cancel_callback(lambda _frame: self._drop("the broker ended the subscription"))
        channel.basic_qos(prefetch_count=_PREFETCH)
        channel.basic_consume(
            agent_queue(self._identity.agent_id),
            self._on_message,
            callback=lambda _frame: self._become_ready(),
        )

    def _become_ready(self) -> None:
        self.is_ready = True
        self.last_problem = ""
        self._delay_s = _FIRST_DELAY_S
        _LOG.info("connected to the broker")
        self._on_ready()

    def _on_message(self, channel: Channel, method: Any, _properties: Any, body: bytes) -> None:
        def acknowledge() -> None:
            if channel is self._channel and channel.is_open:
                channel.basic_ack(method.delivery_tag)

        self._on_delivery(body, acknowledge)

    def _on_return(self, _channel: Channel, _method: Any, properties: Any, _body: bytes) -> None:
        # The return comes before the confirm of the same message (AMQP 0-9-1, RabbitMQ's publisher confirms).
        self._returned.add(properties.message_id)

    def _on_confirm(self, frame: Any) -> None:
        confirmed = isinstance(frame.method, pika.spec.Basic.Ack)
        last = frame.method.delivery_tag
        tags = [tag for tag in self._unconfirmed if tag <= last] if frame.method.multiple else [last]
        for tag in tags:
            publish = self._unconfirmed.pop(tag, None)
            if publish is not None:
                was_returned = publish.message_id in self._returned
                self._returned.discard(publish.message_id)
                publish.done(confirmed and not was_returned)
                self._judge(publish.routing_key, is_refused=not confirmed)

    def _judge(self, routing_key: str, *, is_refused: bool) -> None:
        """Give the connection up where the broker has refused one kind of message for long."""
        if not is_refused:
            self._refused.pop(routing_key, None)
            if routing_key == self._given_up_for:
                self._refused_s, self._given_up_for = _REFUSED_S, ""
            return
        now = time.monotonic()
        if now >= self._refused.setdefault(routing_key, now + self._refused_s * (1 + self._random())):
            self._refused_s = min(2 * self._refused_s, _LONGEST_REFUSED_S)
            self._given_up_for = routing_key
            self._drop("the broker refuses what this connection sends")

    def _on_channel_close(self, _channel: Channel, reason: BaseException) -> None:
        self._drop(str(reason))

    def _drop(self, problem: str) -> None:
        """Give up a connection that is of no use; `_on_close` then starts over."""
        self.is_ready = False
        connection = self._connection
        if connection is not None and not (connection.is_closing or connection.is_closed):
            self.last_problem = problem  # not what follows from it: that its channels are closed in order
            connection.close()

    def _on_open_error(self, _connection: SelectConnection, error: BaseException) -> None:
        if _is_denied(error):
            self._delay_s = max(self._delay_s, _DENIED_DELAY_S)
        self._retry(_describe(error))

    def _on_close(self, _connection: SelectConnection, reason: BaseException) -> None:
        self._retry(self.last_problem or _describe(reason))

    def _retry(self, problem: str) -> None:
        self.is_ready = False
        self.last_problem = problem
        self._channel = None
        self._refused.clear()
        pending, self._unconfirmed = self._unconfirmed, {}
        self._returned.clear()
        for publish in pending.values():
            publish.done(_UNCONFIRMED)
        if self._closing:
            return
        self._place += 1
        delay_s = self._delay_s * (0.5 + self._random() / 2)
        self._delay_s = min(2 * self._delay_s, _LONGEST_DELAY_S)
        _LOG.warning("no broker", extra={"reason": problem, "again_in_s": round(delay_s, 1)})
        self._on_trouble()
        self._timer = self._ioloop.call_later(delay_s, self.connect)


def _agree_on_heartbeat(_connection: object, proposed: float) -> int:
    """Return after how many seconds of silence (and five more, pika's allowance) the other side is dead."""
    return min(int(proposed) or _AMQP_HEARTBEAT_S, _LONGEST_AMQP_HEARTBEAT_S)


def tls_context(ca: str) -> ssl.SSLContext:
    """Return what a broker's certificate is checked with: chain and host name, TLS 1.2 or newer.

    With PEM text in `ca` those authorities alone count; else those of the system.
    """
    context = ssl.create_default_context(cadata=ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it nests; the last attempt, innermost, says best what happened."""
    while True:
        yield error
        nested = [*error.args, *getattr(error, "exceptions", ()), getattr(error, "exception", None)]
        inner = [item for item in nested if isinstance(item, BaseException)]
        if not inner:
            return
        error = inner[-1]


def _is_denied(error: BaseException) -> bool:
    """Tell whether the login was denied, for whatever reason."""
    return any(isinstance(cause, pika.exceptions.ProbableAuthenticationError) for cause in _causes(error))


def _describe(error: BaseException) -> str:
    """Return one line for an exception of pika's, whose own text may be empty or nested."""
    for cause in _causes(error):
        for kind, meaning in _MEANINGS.items():
            if isinstance(cause, kind):
                return meaning
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not accepted: {cause.verify_message}"
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__

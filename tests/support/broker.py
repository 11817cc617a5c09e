"""A private RabbitMQ node for the tests, started once per session, and an agent's view of it."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import names
from protocol.enrolment import EnrolmentToken
from protocol.envelope import encode_envelope
from protocol.identity import agent_id, make_broker_password, sign_envelope
from server.broker import PrivateBroker
from server.brokerfiles import VHOST
from tests.support.ports import free_port

SHARED_QUEUES = (names.RESULTS_QUEUE, names.HEARTBEATS_QUEUE, names.DEAD_QUEUE)


@pytest.fixture(scope="session")
def broker() -> Iterator[PrivateBroker]:
    """A node that asks at `broker.auth_listen` about agents; all tests share it, and its queues."""
    with tempfile.TemporaryDirectory(prefix="mig-broker-") as directory:
        node = PrivateBroker(Path(directory) / "rabbitmq", auth_listen=f"127.0.0.1:{free_port()}")
        node.start()
        try:
            yield node
        finally:
            node.stop()


@pytest.fixture
def clean_broker(broker: PrivateBroker) -> PrivateBroker:
    """The same node, running, with none of the server's queues, whatever the tests before have left."""
    if not broker.is_running():
        broker.start()
    with server_connection(broker) as connection:
        for queue in SHARED_QUEUES:
            connection.channel().queue_delete(queue)
    return broker


@contextmanager
def server_connection(broker: PrivateBroker) -> Iterator[Any]:
    """Connect with the server's own account."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    try:
        yield connection
    finally:
        if connection.is_open:
            connection.close()


@contextmanager
def short_of_memory(broker: PrivateBroker) -> Iterator[None]:
    """Raise the node's alarm for memory, and take it back; publishers are blocked meanwhile."""
    alarm = "{resource_limit, memory, node()}"

    def tell(words: str) -> None:
        subprocess.run([str(broker.rabbitmqctl), "eval", words], check=True, capture_output=True)

    tell(f"rabbit_alarm:set_alarm({{{alarm}, []}}).")
    try:
        yield
    finally:
        tell(f"rabbit_alarm:clear_alarm({alarm}).")


class AgentKey:
    """An agent's identity, and what an agent does with it: no code of the real agent is used."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = self.private.public_key().public_bytes_raw()
        self.id = agent_id(self.public)

    def password(
        self,
        *,
        broker: str = "mig",
        vhost: str = VHOST,
        at: float | None = None,
        nonce: bytes | None = None,
        token: EnrolmentToken | None = None,
        name: str = "test.example",
        addresses: str = "",
    ) -> str:
        """Make the password of one login."""
        return make_broker_password(
            self.private,
            broker=broker,
            vhost=vhost,
            time=int(time.time() if at is None else at),
            nonce=os.urandom(16) if nonce is None else nonce,
            token=token,
            name=name,
            addresses=addresses,
        )

    def sign(self, kind: str, payload: bytes) -> bytes:
        """Return a signed envelope as it goes over the wire."""
        return encode_envelope(sign_envelope(self.private, kind, payload))

    def is_let_in(self, broker: PrivateBroker, password: str) -> bool:
        """Tell whether a login succeeds."""
        try:
            with self.connection(broker, password):
                return True
        except pika.exceptions.AMQPConnectionError:
            return False

    @contextmanager
    def connection(self, broker: PrivateBroker, password: str | None = None) -> Iterator[Any]:
        """Log in; raises pika's own exceptions where the broker refuses."""
        parameters = pika.URLParameters(broker.agent_url)
        parameters.credentials = pika.PlainCredentials(self.id, password or self.password())
        connection = pika.BlockingConnection(parameters)
        try:
            yield connection
        finally:
            if connection.is_open:
                connection.close()

"""Listening sockets of ours."""

import socket

import pytest

from protocol.errors import EnvironmentFailure
from server.config import Listen
from server.front import listen_on


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_sent_on_a_connection_waits_for_no_acknowledgement(host: str) -> None:
    with listen_on(Listen(host=host, port=0)) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with listen_on(Listen(host="127.0.0.1", port=0)) as listener:
        port = listener.getsockname()[1]
        with (
            pytest.raises(EnvironmentFailure, match=f"port-in-use: cannot listen on 127.0.0.1:{port}: Addr"),
            listen_on(Listen(host="127.0.0.1", port=port)),
        ):
            pass

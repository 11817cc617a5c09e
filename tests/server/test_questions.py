"""What a broker asks over HTTP is answered in order; what is none of its requests ends the connection."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.questions import MAX_BODY_BYTES, Questions

PATIENCE_S = 30.0
ALLOW = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nallow"
BAD = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


def request(
    path: str = "/auth/user", body: bytes = b"username=a", *, method: str = "POST", more: str = ""
) -> bytes:
    """Return a request as the broker makes it."""
    lines = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:1665\r\nte: \r\nconnection: keep-alive\r\n{more}"
    return f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body


class Desk:
    """Answers `allow` to what it knows, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.port = 0
        self.free = asyncio.Event()
        self.free.set()
        self.is_asked = asyncio.Event()
        self.given_up = asyncio.Event()

    async def answer(self, path: str, body: bytes) -> str | None:
        """Answer when it may."""
        self.asked.append((path, body))
        self.is_asked.set()
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        if body == b"fail":
            raise RuntimeError("for the test")
        return "allow" if path.startswith("/auth/") else None

    async def talk(self, *parts: bytes) -> bytes:
        """Send parts one after the other, end, and return all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            return await asyncio.wait_for(_all_of(reader, len(parts)), PATIENCE_S)
        finally:
            writer.close()


async def _all_of(reader: asyncio.StreamReader, answers: int) -> bytes:
    """Read up to the end of the connection, or of as many answers."""
    found = b""
    while data := await reader.read(65536):
        found += data
        if found.count(b"allow") == answers:
            break
    return found


@asynccontextmanager
async def running_desk() -> AsyncIterator[tuple[Desk, Questions]]:
    """Run a desk on a port of its own."""
    desk = Desk()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        desk.port = listener.getsockname()[1]
        questions = Questions(desk.answer, listener)
        serving = asyncio.ensure_future(questions.run())
        try:
            yield desk, questions
        finally:
            questions.stop()
            await asyncio.wait_for(serving, PATIENCE_S)


def at_desk(scenario: Callable[[Desk], Awaitable[bytes]]) -> tuple[Desk, bytes]:
    """Run a scenario at a desk; return both."""

    async def run() -> tuple[Desk, bytes]:
        async with running_desk() as (desk, _):
            return desk, await scenario(desk)

    return asyncio.run(run())


def test_a_question_is_answered_with_one_word() -> None:
    desk, said = at_desk(lambda desk: desk.talk(request()))
    assert said == ALLOW
    assert desk.asked == [("/auth/user", b"username=a")]


def test_a_question_that_comes_byte_by_byte_is_one_question() -> None:
    whole = request()

    async def scenario(desk: Desk) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        for place in range(len(whole)):
            writer.write(whole[place : place + 1])
            await writer.drain()
            await asyncio.sleep(0)
        said = await asyncio.wait_for(_all_of(reader, 1), PATIENCE_S)
        writer.close()
        return said

    desk, said = at_desk(scenario)
    assert said == ALLOW
    assert desk.asked == [("/auth/user", b"username=a")]


def test_questions_on_one_connection_are_answered_in_their_order() -> None:
    async def scenario(desk: Desk) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        writer.write(b"".join(request(body=b"%d" % number) for number in range(200)))
        said = await asyncio.wait_for(_all_of(reader, 200), PATIENCE_S)
        writer.close()
        return said

    desk, said = at_desk(scenario)
    assert said == ALLOW * 200
    assert [body for _, body in desk.asked] == [b"%d" % number for number in range(200)]


@pytest.mark.parametrize(("path", "method"), [("/auth/user", "GET"), ("/auth/user", "PUT"), ("/", "POST")])
def test_what_is_no_question_is_not_found_and_the_next_one_is_answered(path: str, method: str) -> None:
    _, said = at_desk(lambda desk: desk.talk(request(path, method=method) + request()))
    assert said.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert said.endswith(ALLOW)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /auth/user HTTP/2.0\r\n\r\n",
        b"POST /auth /user HTTP/1.1\r\n\r\n",
        request(more="nonsense\r\n"),
        request(more=": nameless\r\n"),
        request(more="content-length : 4\r\n"),
        request(more=" folded: x\r\n"),
        request(more="content-length: 10\r\n"),
        request(more="transfer-encoding: chunked\r\n"),
        b"POST /auth/user HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /auth/user HTTP/1.1\r\ncontent-length: 0x10\r\n\r\n",
        b"POST /auth/user HTTP/1.1\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /auth/user HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        b"POST /auth/user HTTP/1.1\r\nx: " + b"a" * 20000,
        b"POST /auth/user HTTP/1.1\r\nx: " + b"a" * 20000 + b"\r\n\r\n",
        b"a" * 20000,
    ],
)
def test_what_is_not_understood_is_asked_of_nobody_and_ends_the_connection(sent: bytes) -> None:
    desk, said = at_desk(lambda desk: desk.talk(sent + request()))
    assert said == BAD
    assert desk.asked == []


def test_who_wants_the_connection_closed_gets_an_answer_first() -> None:
    _, said = at_desk(lambda desk: desk.talk(request(more="Connection: close\r\n") + request()))
    assert said == ALLOW.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    _, said = at_desk(lambda desk: desk.talk(request().replace(b"HTTP/1.1", b"HTTP/1.0")))
    assert said.endswith(b"\r\nconnection: close\r\n\r\nallow")


def test_nobody_works_on_an_answer_that_nobody_waits_for() -> None:
    async def run() -> None:
        async with running_desk() as (desk, _):
            desk.free.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", desk.port)
            writer.write(request())
            async with asyncio.timeout(PATIENCE_S):
                await desk.is_asked.wait()
                writer.close()
                await desk.given_up.wait()

    asyncio.run(run())


@pytest.mark.slow
def test_what_is_sent_ahead_is_not_read_without_end() -> None:
    async def run() -> int:
        async with running_desk() as (desk, _):
            desk.free.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", desk.port)
            sent = 0
            try:
                # As much as the kernel's buffers hold goes; then nobody reads, and this side has to wait.
                while sent < 1 << 30:
                    writer.write(request() * 1000)
                    sent += 1
                    await asyncio.wait_for(writer.drain(), 1.0)
            except TimeoutError:
                pass
            writer.transport.abort()
            return sent

    assert asyncio.run(run()) < 1000


def test_a_failure_of_ours_is_said_and_kept_to_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(desk: Desk) -> bytes:
        first = await desk.talk(request(body=b"fail"))
        return first + await desk.talk(request())

    _, said = at_desk(scenario)
    assert said.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert said.endswith(ALLOW)
    assert "for the test" in caplog.text


def test_what_is_under_way_at_the_end_is_answered() -> None:
    async def run() -> bytes:
        async with running_desk() as (desk, questions):
            desk.free.clear()
            talking = asyncio.ensure_future(desk.talk(request()))
            async with asyncio.timeout(PATIENCE_S):
                await desk.is_asked.wait()
            questions.stop()
            asyncio.get_running_loop().call_soon(desk.free.set)
            return await talking

    assert asyncio.run(run()) == ALLOW


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_an_answer_or_nothing(sent: bytes) -> None:
    async def scenario(desk: Desk) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
        writer.write(sent + b"\r\n\r\n")
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        return said

    desk, said = at_desk(scenario)
    assert said == BAD or not said or said.startswith(b"HTTP/1.1 404")
    assert desk.asked == []

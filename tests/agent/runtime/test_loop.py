"""The selector loop: readers, timers and their order."""

import os

from agent.runtime.loop import SelectorLoop


def test_timers_are_called_in_order_and_cancelled_ones_never() -> None:
    loop = SelectorLoop()
    called: list[str] = []
    loop.call_later(0.02, lambda: called.append("second"))
    loop.call_later(0.0, lambda: called.append("first"))
    loop.cancel(loop.call_later(0.01, lambda: called.append("cancelled")))
    loop.run_until(lambda: False)
    assert called == ["first", "second"]
    loop.cancel(12345)
    loop.close()


def test_a_reader_is_called_until_it_is_removed() -> None:
    loop = SelectorLoop()
    reader, writer = os.pipe()
    os.write(writer, b"ab")
    read: list[bytes] = []

    def take() -> None:
        read.append(os.read(reader, 1))
        if len(read) == 2:
            loop.remove_reader(reader)

    loop.add_reader(reader, take)
    loop.run_until(lambda: False)
    assert read == [b"a", b"b"]
    os.close(reader)
    os.close(writer)
    loop.close()


def test_a_reader_removed_by_another_in_the_same_round_is_not_called() -> None:
    loop = SelectorLoop()
    pipes = [os.pipe() for _ in range(2)]
    called: list[int] = []

    def make(own: int, other: int) -> None:
        def take() -> None:
            called.append(own)
            loop.remove_reader(own)
            loop.remove_reader(other)

        loop.add_reader(own, take)

    make(pipes[0][0], pipes[1][0])
    make(pipes[1][0], pipes[0][0])
    for _, writer in pipes:
        os.write(writer, b"x")
    loop.run_until(lambda: False)
    assert len(called) == 1
    for reader, writer in pipes:
        os.close(reader)
        os.close(writer)
    loop.close()

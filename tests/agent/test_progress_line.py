"""The line that says how far a module is, on a real terminal and elsewhere."""

import io
import os
import pty

import pytest

from agent.progress_line import progress_line


def shown_on_a_terminal(*statistics: dict[str, int]) -> str:
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "rb", buffering=0) as seen, os.fdopen(terminal, "w") as stream:
        with progress_line(stream) as line:
            for told in statistics:
                line.show(told)
        stream.write("end")
        stream.flush()
        said = b""
        while not said.endswith(b"end"):
            said += seen.read(4096)
    return said.decode()


def test_the_line_is_replaced_and_in_the_end_gone() -> None:
    assert shown_on_a_terminal({"files_seen": 1}, {"files_seen": 2}) == (
        "\r\x1b[K1 files seen\r\x1b[K2 files seen\r\x1b[Kend"
    )


def test_what_counts_nothing_known_shows_no_line() -> None:
    assert shown_on_a_terminal({"evil": 1}) == "end"


def test_the_line_is_no_longer_than_the_terminal_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "8")
    assert shown_on_a_terminal({"files_seen": 123_456}) == "\r\x1b[K123,456\r\x1b[Kend"


def test_where_nobody_sits_nothing_is_written() -> None:
    stream = io.StringIO()
    with progress_line(stream) as line:
        line.show({"files_seen": 1})
    assert not stream.getvalue()

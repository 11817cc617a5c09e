"""What is shown of those that run: known numbers, whoever says them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from client.progress import Waiting, progress_text
from protocol.documents import Progress


def said(**statistics: Any) -> Progress:
    return Progress(statistics=statistics)


def test_counts_of_all_that_run_are_added_up() -> None:
    told = [said(files_seen=1000, bytes_read=1 << 30), said(files_seen=234, errors=1)]
    assert progress_text(told) == "1,234 files seen, 1.0 GiB read, 1 errors"


@given(
    st.dictionaries(
        st.sampled_from(["files_seen", "bytes_read", "x"]), st.integers() | st.floats() | st.text()
    )
)
def test_whatever_is_said_one_short_printable_line_is_shown(statistics: dict[str, Any]) -> None:
    text = progress_text([Progress(statistics=statistics)] * 3)
    assert len(text) < 200
    assert text.isprintable()


def test_who_has_answered_runs_no_longer() -> None:
    waiting = Waiting(2)
    waiting.hear("a", said(files_seen=1))
    waiting.hear("b", said(files_seen=2))
    waiting.hear("a", said(files_seen=4))
    assert waiting.text == "2 running: 6 files seen"
    waiting.advance("a", 1)
    assert waiting.text == "1 running: 2 files seen"
    waiting.advance("b", 2)
    assert not waiting.text
    waiting.close()

import ast
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.logs import KeyValueFormatter
from tests.support.tree import ROOT


def line(message: str, **extra: object) -> str:
    """Format one record."""
    logger = logging.getLogger("server.test")
    record = logger.makeRecord("server.test", logging.INFO, "file", 1, message, (), None, extra=extra)
    record.created = 1_800_000_000.5
    return KeyValueFormatter().format(record)


def test_a_line_has_time_level_logger_message_and_the_fields() -> None:
    assert line("login denied", agent="0c1f", code="replayed") == (
        "time=2027-01-15T08:00:00.500Z level=info logger=server.test"
        ' msg="login denied" agent=0c1f code=replayed'
    )


@pytest.mark.parametrize(
    "hostile",
    ['a b=c"d', "x\nlevel=error msg=forged", "\x1b[31mred", "", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"],
)
def test_no_value_begins_a_line_or_a_field_of_its_own(hostile: str) -> None:
    written = line("said", agent=hostile)
    value = written.partition(" agent=")[2]
    assert value.isascii()
    assert value.isprintable()
    assert value[0] == value[-1] == '"'
    assert "\n" not in written


def test_a_programming_error_carries_its_traceback() -> None:
    try:
        raise RuntimeError("broken")  # noqa: TRY301  (a traceback is wanted)
    except RuntimeError:
        record = logging.LogRecord("server", logging.ERROR, "file", 1, "failed", (), sys.exc_info())
    written = KeyValueFormatter().format(record)
    assert written.splitlines()[0].endswith("msg=failed")
    assert written.splitlines()[-1] == "RuntimeError: broken"


_IDS = frozenset({"action_id", "agent_id", "command_id", "digest", "id", "fingerprint", "signers"})


def _log_calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in {"_log", "_LOG"}:
                yield node


@pytest.mark.slow
@pytest.mark.parametrize("package", ["agent", "server"])
def test_no_line_of_the_log_has_an_id_in_its_text_rather_than_as_a_field(package: str) -> None:
    calls = [(path, call) for path in sorted((ROOT / package).rglob("*.py")) for call in _log_calls(path)]
    assert len(calls) > 20
    for path, call in calls:
        for argument in call.args:
            named = {node.attr for node in ast.walk(argument) if isinstance(node, ast.Attribute)}
            named |= {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
            assert not named & _IDS, f"{path}:{call.lineno}"

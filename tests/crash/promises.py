"""What holds whatever has happened, seen from outside: in the database, in the marks, and on the disks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.crash.fleet import Fleet, Outcome, describe
from tests.support.platform import wait_until

# Each has exactly one answer: it was done, or its agent says what a crash did to it.
ENDS = frozenset({("done", ""), ("failed", "interrupted"), ("failed", "child-failed")})
_KIB = 1024
_STATE_BYTES = (
    256 * _KIB
)  # of an agent, and 16 KiB for each command: the journal's, the log's, what was signed
_STATE_BYTES_EACH = 16 * _KIB
_LOG_BYTES = 256 * _KIB  # of one process, and 4 KiB for each action
_LOG_BYTES_EACH = 8 * _KIB
_DATABASE_BYTES = (2 << 20, 64 * _KIB)  # the file, and for each command
_WAL_BYTES = 16 << 20  # SQLite's log: it starts over from 4 MB on, when nobody reads


def require_promises(
    fleet: Fleet, outcomes: Sequence[Outcome], said: str, *, ends: frozenset[tuple[str, str]] = ENDS
) -> None:
    """Require that every command has ended with one answer, and that none ran twice."""
    said = f"{said}, {dict(fleet.did)}: {describe(outcomes)}"
    assert len(outcomes) == fleet.asked, said
    assert {(one.state, one.problem) for one in outcomes} <= ends, said
    assert [one for one in outcomes if one.answers != 1 and one.state != "expired"] == [], said
    # What is called done ran once; what was interrupted may have begun, and never began again.
    assert [one for one in outcomes if one.state == "done" and one.runs != 1] == [], said
    assert [one for one in outcomes if one.runs > 1] == [], said


def require_audit(fleet: Fleet) -> None:
    """Require that the server's log is the one that all agents saw grow."""
    verified = fleet.verify_audit()
    assert verified["exit"] == 0, verified["text"]


def require_bounds(fleet: Fleet) -> None:
    """Require that nothing hoards: no file of an agent, of the server, and no log is larger than its work."""
    commands = fleet.asked // len(fleet.names)
    assert commands, "nothing was asked"
    for name in fleet.names:
        directory = fleet.state_directory(name)
        # The broker's word on the last answer may just be coming.
        wait_until(lambda: not list((directory / "spool").iterdir()), f"{name}'s empty spool")  # noqa: B023
        sizes = dict(_sizes(directory))
        assert sum(sizes.values()) < _STATE_BYTES + commands * _STATE_BYTES_EACH, sizes
        # What was being written when it died was written anew, or is gone: at most one of each.
        assert sum(path.name.endswith(".new") for path in sizes) <= 2, sizes
    for path, size in _sizes(fleet.platform.directory / "server"):
        assert size < _WAL_BYTES or path.name == "mig.sqlite", (path, size)
        assert size < _DATABASE_BYTES[0] + _WAL_BYTES + fleet.asked * _DATABASE_BYTES[1], (path, size)
    for path in fleet.platform.directory.glob("*.log"):
        assert path.stat().st_size < _LOG_BYTES + commands * _LOG_BYTES_EACH, (path, path.read_text()[-2000:])


def require_nothing_refused(fleet: Fleet) -> None:
    """Require that no message was put aside as nonsense: whatever dies, nobody sends any."""
    assert "refused a message" not in fleet.platform.log("server")
    assert "Traceback" not in fleet.platform.log("server"), fleet.platform.log("server")[-4000:]
    for name in fleet.names:
        assert "Traceback" not in fleet.platform.log(name), fleet.platform.log(name)[-4000:]


def _sizes(directory: Path) -> Iterator[tuple[Path, int]]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield path, path.stat().st_size

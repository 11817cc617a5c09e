"""The opponent owns the server and wants to have asked nothing, or something else. It writes the log anew.

Promise: agents repeat, under their own keys, the heads of the server's log that they have seen, and clients
remember theirs; so a history that was changed, shortened or exchanged shows with `mig audit verify`, whether
or not its chain is made good again. Not promised: that it can be brought back.

The server runs over a copy of the database, away from the broker: what agents saw, they saw of the true one.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from protocol.audit import NO_HEAD, encode_entry
from protocol.envelope import HEARTBEAT, decode_envelope
from tests.hostile.captured import Captured
from tests.support.broker import AgentKey
from tests.support.platform import wait_until

Row = tuple[int, str, bytes]
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def copy(captured: Captured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    """The server over a copy, made when both agents had signed what they saw of the log."""
    captured.wait_witnessed()
    older = captured.execute("SELECT agent_id, envelope FROM witnesses")
    lengths = [(agent, own_log(envelope)) for agent, envelope in older]
    captured.ask()

    def have_grown() -> bool:
        rows = dict(captured.execute("SELECT agent_id, envelope FROM witnesses"))
        return all(own_log(rows[agent]) > length for agent, length in lengths)

    wait_until(have_grown, "heads of the agents' logs that have grown")
    copy = captured.copy_server(tmp_path_factory.mktemp("copy"))
    copy.older = dict(older)
    yield copy
    copy.platform.stop()


@pytest.fixture
def server(copy: Captured) -> Iterator[Captured]:
    """The server over a copy that is in order; after the story it is again."""
    done = copy.mig("audit", "verify", check=False)
    assert done.returncode == 0, done.stdout
    rows = copy.execute("SELECT seq, sha256, entry FROM audit ORDER BY seq")
    witnesses = copy.execute("SELECT * FROM witnesses")
    yield copy
    copy.execute("DELETE FROM audit")
    for row in rows:
        copy.execute("INSERT INTO audit VALUES (?, ?, ?)", *row)
    copy.execute("DELETE FROM witnesses")
    for row in witnesses:
        copy.execute(f"INSERT INTO witnesses VALUES ({', '.join('?' * len(row))})", *row)  # noqa: S608


def own_log(envelope: bytes) -> int:
    """Return how long an agent says, signed, that its own log is."""
    said = json.loads(decode_envelope(bytes(envelope), HEARTBEAT).payload)
    return int(said["log_head"][0])


def entries(server: Captured) -> list[Entry]:
    """Return the log's entries."""
    return [json.loads(row[0]) for row in server.execute("SELECT entry FROM audit ORDER BY seq")]


def write(server: Captured, history: list[Entry]) -> None:
    """Write the log anew, in a good chain."""
    server.execute("DELETE FROM audit")
    head = NO_HEAD
    for entry in history:
        line, head = encode_entry(
            head, time=entry["time"], kind=entry["kind"], who=tuple(entry["who"]), what=entry["what"]
        )
        server.execute("INSERT INTO audit VALUES (?, ?, ?)", head.seq, head.sha256, line)


def asked(entry: Entry) -> bool:
    return bool(entry["kind"] == "action")


History = Callable[[list[Entry]], list[Entry]]
HISTORIES: dict[str, History] = {
    "somebody else asked": lambda log: [
        {**entry, "who": ["F" * 40]} if asked(entry) else entry for entry in log
    ],
    "nobody asked": lambda log: [entry for entry in log if not asked(entry)],
    "the beginning is gone": lambda log: log[1:],
    "rolled back": lambda log: log[:3],
    "rolled back and gone on differently": lambda log: log[:3] + [log[3]] * len(log),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_that_is_written_anew_shows(server: Captured, history: str) -> None:
    write(server, HISTORIES[history](entries(server)))
    done = server.mig("audit", "verify", check=False)
    assert done.returncode == 4
    assert "history was rewritten" in done.stdout or "history is withheld" in done.stdout


def test_a_log_that_lost_its_newest_entries_shows(server: Captured) -> None:
    """This client saw them; no agent needs to have."""
    server.execute("DELETE FROM audit WHERE seq > (SELECT max(seq) FROM audit) - 3")
    done = server.mig("audit", "verify", check=False)
    assert done.returncode == 4
    assert "this client saw entry" in done.stdout


def test_an_entry_that_is_changed_in_place_breaks_the_chain(server: Captured) -> None:
    server.execute("UPDATE audit SET entry = CAST(replace(entry, 'login', 'logim') AS BLOB)")
    done = server.mig("audit", "verify", check=False)
    assert done.returncode == 4
    assert "the log is broken" in done.stdout


def test_witnesses_that_contradict_cannot_be_made_up_nor_be_exchanged(server: Captured) -> None:
    """The opponent writes the history anew, and the agents' heartbeats with it; their keys it has not."""
    [(first, _), (_, second)] = server.execute("SELECT agent_id, envelope FROM witnesses")
    server.execute("UPDATE witnesses SET envelope = ? WHERE agent_id = ?", second, first)
    done = server.mig("audit", "verify", check=False)
    assert done.returncode == 4
    assert "was not signed by it" in done.stdout
    made_up = AgentKey().sign("application/vnd.mig.heartbeat+json", b"{}")
    server.execute("UPDATE witnesses SET envelope = ? WHERE agent_id = ?", made_up, first)
    assert server.mig("audit", "verify", check=False).returncode == 4


def test_an_older_heartbeat_in_the_place_of_an_agents_newest_shows(server: Captured) -> None:
    """What an agent signed last is what contradicts; this client has seen it."""
    for agent, envelope in server.older.items():
        server.execute(
            "UPDATE witnesses SET envelope = ?, earlier = NULL WHERE agent_id = ?", envelope, agent
        )
    done = server.mig("audit", "verify", check=False)
    assert done.returncode == 4
    assert done.stdout.count("or an older heartbeat is shown") == len(server.older)


def test_witnesses_that_are_withheld_are_missed(server: Captured) -> None:
    """Not promised: that the platform shows what contradicts it. Promised: that its absence is said."""
    server.execute("DELETE FROM witnesses")
    done = server.mig("audit", "verify", check=False)
    assert done.stdout.count("the server shows nothing of it any more") == 2


def test_a_true_log_is_in_order_all_the_while(captured: Captured) -> None:
    captured.require_unharmed()
    wait_until(lambda: captured.mig("audit", "verify", check=False).returncode == 0, "a log in order")

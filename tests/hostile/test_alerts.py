"""The opponent owns the broker and the database, and an endpoint: it wants alerts believed that nobody made.

Promise: an alert is shown only under the key of the agent that it names; one that is withheld leaves a gap,
and none rules the terminal. That alerts are withheld altogether cannot be prevented.
"""

import base64
import json
import time
from functools import partial
from typing import Any

from protocol.envelope import ALERT, HEARTBEAT, RESULT
from protocol.names import AGENTS_EXCHANGE, alert_key
from tests.hostile.captured import NAMES, Captured
from tests.support.broker import AgentKey


def alert(agent: str, **changes: Any) -> bytes:
    """Return an alert's payload."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    members = {
        "agent": agent,
        "seq": 1,
        "time": now,
        "module": "fswatch",
        "kind": "changed",
        "severity": "critical",
        "count": 1,
        "first": now,
        "last": now,
        "record": {"path": "/etc/passwd"},
        **changes,
    }
    return json.dumps(members).encode()


def plant(captured: Captured, agent: str, envelope: bytes) -> None:
    """Put an alert into the database as an agent's."""
    captured.execute(
        "INSERT INTO alerts (digest, agent_id, module, severity, received, envelope)"
        " VALUES (hex(randomblob(32)), ?, 'fswatch', 'critical', datetime('now') || '.000000', ?)",
        agent,
        envelope,
    )


def forget(captured: Captured) -> None:
    captured.execute("DELETE FROM alerts")


def enrol(captured: Captured, name: str = "liar") -> AgentKey:
    """Have the opponent's own endpoint take part, by the database."""
    liar = AgentKey()
    captured.execute(
        "INSERT INTO agents (id, public_key, enrolment, enrolled, name, os, arch, ident, version, tags,"
        " environment, modules) VALUES (?, ?, 'enrolled', datetime('now') || '.000000', ?, '', '', '', '',"
        " '{}', '{}', '[]')",
        liar.id,
        liar.public,
        name,
    )
    return liar


def dismiss(captured: Captured, liar: AgentKey) -> None:
    forget(captured)
    captured.execute("DELETE FROM agents WHERE id = ?", liar.id)


def test_who_owns_the_broker_makes_no_alert_in_an_agents_name(captured: Captured) -> None:
    captured.impersonate()
    one, two = (captured.agent(name) for name in NAMES)
    liar = enrol(captured)
    true = liar.sign(ALERT, alert(liar.id))
    send = partial(captured.publish, exchange=AGENTS_EXCHANGE)
    # Signed by a stranger, for another, as another type, by nobody, not at all.
    send(alert_key(one), liar.sign(ALERT, alert(one)), liar.sign(ALERT, alert(liar.id)), sender=one)
    send(alert_key(one), liar.sign(RESULT, alert(one)), liar.sign(HEARTBEAT, b"{}"), b"{}", b"", sender=one)
    # A true one of the opponent's own, re-aimed: under another's routing key, and another's name.
    send(alert_key(two), true, sender=liar.id)
    send(alert_key(liar.id), true, sender=two)
    # And replayed.
    send(alert_key(liar.id), true, true, true, sender=liar.id)
    captured.require_unharmed()
    captured.wait_until_taken("mig.alerts")
    assert captured.execute("SELECT agent_id FROM alerts") == [(liar.id,)]
    dismiss(captured, liar)


def test_an_alert_that_the_database_invents_changes_or_moves_is_not_shown(captured: Captured) -> None:
    one = captured.agent("one")
    liar = enrol(captured)
    true = json.loads(liar.sign(ALERT, alert(liar.id)))
    payload = base64.b64decode(true["payload"]).replace(b"passwd", b"shadow")
    changed = {**true, "payload": base64.b64encode(payload).decode()}
    wrong = [
        (one, liar.sign(ALERT, alert(one))),
        (one, json.dumps(true).encode()),
        (liar.id, json.dumps(changed).encode()),
        (liar.id, liar.sign(RESULT, alert(liar.id))),
        (liar.id, liar.sign(ALERT, alert(one))),
    ]
    for agent, envelope in wrong:
        plant(captured, agent, envelope)
    done = captured.mig("alerts", check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("not shown") == len(wrong)
    dismiss(captured, liar)


def test_alerts_that_are_shown_again_are_seen_once_and_those_withheld_are_missed(captured: Captured) -> None:
    liar = enrol(captured)
    for number in (1, 1, 5):
        plant(captured, liar.id, liar.sign(ALERT, alert(liar.id, seq=number)))
    done = captured.mig("alerts")
    assert len(done.stdout.splitlines()) == 2
    assert f"3 alerts of agent {liar.id} are missing" in done.stderr
    dismiss(captured, liar)


def test_nothing_that_an_alert_says_is_obeyed(captured: Captured) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\x9b31m"
    liar = enrol(captured, evil)
    plant(
        captured, liar.id, liar.sign(ALERT, alert(liar.id, record={"path": evil, evil: [evil, {"x": evil}]}))
    )
    for words in (["alerts"], ["alerts", "--json"]):
        done = captured.mig(*words)
        assert len(done.stdout.splitlines()) == 1
        assert done.stdout.rstrip("\n").isprintable()
    dismiss(captured, liar)

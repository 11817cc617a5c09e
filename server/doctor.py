"""`mig-server doctor`: what is there, what is not, each in one line, with what to do.

Nothing is changed: what has to be tried is tried with things that exist for a moment only.
"""

import asyncio
import hashlib
import http.client
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from protocol.documents import AgentStatus, Health
from protocol.errors import EnvironmentFailure, InvalidInput, MigError
from protocol.openpgp import parse_certificate, require_usable_certificate
from server.brokerctl import BrokerControl
from server.brokerprobe import BrokerFindings, examine_broker
from server.config import Listen, ServerConfig, load_config
from server.database import Database
from server.front import listen_on
from server.log_oddities import compare_witnesses
from server.migrations import pending_migrations
from server.parts import utc_now
from server.rows import AgentRow
from server.statelock import is_locked
from server.store import Store
from server.trust import load_roots
from server.trust_oddities import SOON, describe_published, find_problems
from server.webhooks import read_standing

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_OPEN_TO_OTHERS = stat.S_IRWXO | stat.S_IWGRP
_LITTLE_BYTES, _TOO_LITTLE_BYTES = 1 << 30, 64 << 20
_SKEW_S = 300
_SOON = timedelta(days=30)
_NAMED = 3
# What is said of what has no room; of all else that is not well, that it is away.
_DATABASE_CODES = {"full": "disk-full"}
_BROKER_CODES = {"full": "broker-full"}
# Each agent's connection, its queue, and half of them in the middle of a question about them.
FILES_PER_AGENT, FILES_BESIDE = 2.5, 500


class Verdict(StrEnum):
    """How a finding is: `warn` needs a person's eye, `FAIL` keeps the platform from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(NamedTuple):
    """One line: what was looked at, and what was seen."""

    subject: str
    text: str
    verdict: Verdict


class _Warning(Exception):
    """What `_finding` turns into a warning."""


def examine(config_path: Path) -> Iterator[Finding]:
    """Look at everything that a server needs; what is wrong is a finding, not an exception."""
    try:
        config = load_config(config_path)
    except MigError as error:
        yield Finding("config", error.detail, Verdict.FAIL)
        return
    yield _finding("config", lambda: _permissions(config_path))
    is_serving = is_locked(Path(config.state_dir))
    yield _finding("state", lambda: _state(config, is_serving=is_serving))
    yield _finding("disk", lambda: _disk(config))
    yield from _stored(config)
    yield from _broker(config, is_serving=is_serving)
    yield _finding("api port", lambda: _port(config.api_address, is_serving=is_serving))
    if is_serving:
        yield _finding("health", lambda: _health(config.api_address))
    yield _finding("broker-auth port", lambda: _port(config.broker_auth_address, is_serving=is_serving))
    yield _finding("downloads", lambda: _downloads(config))


def _finding(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, look(), Verdict.OK)
    except _Warning as warning:
        return Finding(subject, str(warning), Verdict.WARN)
    except MigError as error:
        return Finding(subject, f"{error.code}: {error.detail}", Verdict.FAIL)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Finding(subject, f"{where}{error.strerror or error}", Verdict.FAIL)


def _permissions(path: Path) -> str:
    if path.stat().st_mode & _OPEN_TO_OTHERS:
        raise EnvironmentFailure("unsafe-file", f"{path} holds a password and is open to others: chmod 600")
    return str(path)


def _state(config: ServerConfig, *, is_serving: bool) -> str:
    mode = Path(config.state_dir).stat().st_mode
    if mode & _WRITABLE_BY_OTHERS:
        raise EnvironmentFailure(
            "unsafe-file", f"{config.state_dir} can be written by others: chmod 700 {config.state_dir}"
        )
    return f"{config.state_dir}, {'a server is running' if is_serving else 'no server is running'}"


def _disk(config: ServerConfig) -> str:
    free = shutil.disk_usage(config.state_dir).free
    text = f"{free >> 20:,} MiB free under {config.state_dir}"
    if free < _TOO_LITTLE_BYTES:
        raise EnvironmentFailure("disk-full", f"{text}: make room")
    if free < _LITTLE_BYTES:
        raise _Warning(f"{text}: make room soon")
    return text


# -- what is in the database


def _stored(config: ServerConfig) -> Iterator[Finding]:
    database: Database | None = None

    def look() -> str:
        nonlocal database
        database = Database(config.database)
        return _database(database)

    finding = _finding("database", look)
    yield finding
    if database is not None:
        if finding.verdict is Verdict.OK:
            store = Store(database)
            agents = store.find_agents(None, utc_now(), 1_000_000, 0)[1]
            yield _finding("agents", lambda: _agents(agents))
            yield _finding("clocks", lambda: _clocks(agents))
            yield _finding("investigators", lambda: _investigators(store))
            yield _finding("trust bundle", lambda: _trust_bundle(config, store))
            yield _finding("agents' trust", lambda: _agents_trust(store, agents))
            yield _finding("audit log", lambda: _audit_log(store))
            yield _finding("enrolment", lambda: _enrolment(config, store))
            yield _finding("webhooks", lambda: _webhooks(config, store))
        database.close()


def _webhooks(config: ServerConfig, store: Store) -> str:
    if not config.webhook:
        return "none is configured"
    standing = read_standing(store, config.webhook)
    said = [f"{name}: {hook.waiting:,} alerts wait" for name, hook in standing.items()]
    failing = [f"{name} fails: {hook.problem}" for name, hook in standing.items() if hook.attempts]
    new = [
        f"{hook.name}: no server has served it yet" for hook in config.webhook if hook.name not in standing
    ]
    if failing:
        raise _Warning("; ".join(failing + said))
    return "; ".join(said + new)


def _database(database: Database) -> str:
    with database.reading() as connection:
        missing = pending_migrations(connection)
    if missing:
        raise EnvironmentFailure(
            "database-away", f"is older than this version ({', '.join(missing)}); run: mig-server migrate"
        )
    with database.writing() as connection:  # one statement that changes nothing shows that it may be written
        connection.execute(sa.text("DELETE FROM sessions WHERE 1 = 0"))
    size, free = Store(database).size_bytes()
    text = f"{size >> 20:,} MiB" + (f" of which {free >> 20:,} are free for what comes" if free >> 20 else "")
    return f"{database.dialect}, at this version, can be written; {text}"


def _agents(agents: list[AgentRow]) -> str:
    now = utc_now()
    by_status = dict.fromkeys(map(str, AgentStatus), 0)
    for agent in agents:
        by_status[agent.status(now)] += 1
    text = ", ".join(f"{count} {status}" for status, count in by_status.items() if count) or "none yet"
    doubles = [agent.id for agent in agents if agent.is_duplicate(now)]
    if doubles:
        raise _Warning(f"{text}; two processes under one id: {_some(doubles)}; see mig-server agent list")
    floods = [agent.id for agent in agents if agent.is_flooding(now)]
    if floods:
        raise _Warning(f"{text}; cut off for flooding: {_some(floods)}; look at them, or revoke them")
    if by_status["pending"]:
        raise _Warning(f"{text}; mig-server agent list --pending, then approve or revoke them")
    return text


def _clocks(agents: list[AgentRow]) -> str:
    wrong = [agent.id for agent in agents if abs(agent.clock_skew_s or 0) > _SKEW_S]
    if wrong:
        raise _Warning(
            f"{len(wrong)} agents are off by more than 5 minutes: {_some(wrong)}; set their clocks"
        )
    return "no agent's clock is off by more than 5 minutes"


def _investigators(store: Store) -> str:
    active = [row for row in store.list_investigators() if row.status == "active"]
    if not active:
        raise _Warning("nobody may use the API: mig-server investigator add KEY")
    now = utc_now()
    for row in active:
        certificate = parse_certificate(row.public_key)
        for moment, when in ((now, "now"), (now + _SOON, "within 30 days")):
            try:
                require_usable_certificate(certificate, moment)
            except MigError as error:
                raise _Warning(f"the key {row.fingerprint} cannot be used {when}: {error.detail}") from None
    return f"{len(active)} active, keys good for 30 days"


def _trust_bundle(config: ServerConfig, store: Store) -> str:
    load_roots(config)
    newest = next(iter(store.list_trust(1)), None)
    if newest is None:
        return "none is published: agents obey what was baked into them"
    now = utc_now()
    text = describe_published(newest, now)
    if now >= newest.expires:
        raise InvalidInput("trust-expired", f"{text}: mig trust new --from, sign, publish")
    if newest.expires - now < SOON:
        raise _Warning(f"{text}: publish a newer one before that")
    return text


def _agents_trust(store: Store, agents: list[AgentRow]) -> str:
    newest = next(iter(store.list_trust(1)), None)
    found = find_problems(agents, newest, utc_now())
    said = (
        (found.nobody, "agents obey nobody: their trust has expired or is lost"),
        (found.soon, f"agents' trust expires within {SOON.days} days"),
        (found.behind, "agents were heard and do not hold the newest bundle (those without roots take none)"),
    )
    wrong = [f"{len(ids)} {text}: {_some(ids)}" for ids, text in said if ids]
    if wrong:
        raise _Warning("; ".join(wrong))
    return "every agent that was heard obeys somebody" + (", and holds the newest bundle" if newest else "")


def _audit_log(store: Store) -> str:
    found = compare_witnesses(store)
    said = (
        (
            found.rewritten,
            "agents have signed heads that do not stand in it (written anew, or a backup)",
        ),
        (found.contradicted, "agents' own logs were written anew or went back"),
    )
    wrong = [f"{len(ids)} {text}: {_some(ids)}" for ids, text in said if ids]
    if wrong:
        raise _Warning("; ".join(wrong) + "; see mig audit verify")
    entries = store.audit_head().seq
    return f"{entries} entries; the newest heads that {found.agents} agents have signed stand in it"


def _enrolment(config: ServerConfig, store: Store) -> str:
    now = utc_now()
    good = [row for row in store.list_tokens() if row.state(now) == "good"]
    if config.enrolment == "token" and not good:
        raise _Warning("by token, and there is no good one for new agents: mig-server agent token new")
    if config.enrolment == "open":
        raise _Warning("open: whoever reaches the broker can enrol an agent; for trying things out only")
    return f"by {config.enrolment}" + (f", {len(good)} good tokens" if config.enrolment == "token" else "")


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")


# -- the broker, ports, files


def _broker(config: ServerConfig, *, is_serving: bool) -> Iterator[Finding]:
    findings: BrokerFindings | None = None

    def look() -> str:
        nonlocal findings
        findings = asyncio.run(examine_broker(config, is_serving=is_serving))
        return "reached, and let in"

    yield _finding("broker", look)
    if findings is not None:
        for subject, problem, well in findings:
            yield _finding(subject, lambda problem=problem, well=well: _say(problem, well))  # type: ignore[misc]
        if config.rabbitmqctl:
            yield _finding("broker files", lambda: _broker_files(config))


def _broker_files(config: ServerConfig) -> str:
    """Compare what the broker may open with what its agents need: a connection and a queue each."""
    status = BrokerControl(Path(config.rabbitmqctl)).ask("status")
    most = int(status.get("file_descriptors", {}).get("total_limit", 0))
    database = Database(config.database)
    try:
        agents = len(Store(database).find_agents(None, utc_now(), 1_000_000, 0)[1])
    finally:
        database.close()
    needed = int(FILES_PER_AGENT * agents) + FILES_BESIDE
    if most < needed:
        raise _Warning(
            f"the broker may open {most:,} files, {agents:,} agents need {needed:,}: raise its LimitNOFILE"
        )
    return (
        f"the broker may open {most:,} files, enough for {(most - FILES_BESIDE) // FILES_PER_AGENT:,} agents"
    )


def _say(problem: Exception | None, well: str) -> str:
    if isinstance(problem, MigError):
        raise problem
    if problem is not None:
        raise _Warning(str(problem))
    return well


def _port(address: Listen, *, is_serving: bool) -> str:
    if is_serving:
        with socket.create_connection((address.host, address.port), timeout=5):
            return f"{address.host}:{address.port}, served"
    with listen_on(address):
        return f"{address.host}:{address.port}, free"


def _health(address: Listen) -> str:
    """Return what the server that runs says of itself: it may see less than this process does."""
    link = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        link.request("GET", "/api/v1/health")
        health = msgspec.json.decode(link.getresponse().read(), type=Health)
    except (http.client.HTTPException, msgspec.DecodeError) as error:
        raise EnvironmentFailure("state-failed", f"what listens there is no mig-server: {error}") from None
    finally:
        link.close()
    text = f"the server says: database {health.database}, broker {health.broker}"
    if health.database != "ok":
        raise EnvironmentFailure(_DATABASE_CODES.get(health.database, "database-away"), text)
    if health.broker != "ok":
        raise EnvironmentFailure(_BROKER_CODES.get(health.broker, "broker-away"), text)
    return text


def _downloads(config: ServerConfig) -> str:
    directory = Path(config.agents_dir)
    if directory.stat().st_mode & _WRITABLE_BY_OTHERS:
        raise EnvironmentFailure(
            "unsafe-file", f"{directory} can be written by others: chmod 755 {directory}"
        )
    files = [path for path in sorted(directory.glob("mig-agent-*")) if path.is_file() and not path.suffix]
    sums = directory / "SHA256SUMS"
    if not files:
        raise _Warning(f"no mig-agent-* in {directory}: copy there what build_zipapp.py built")
    if not sums.exists():
        return f"{directory}: {', '.join(path.name for path in files)} (no SHA256SUMS to compare with)"
    lines = [line.split() for line in sums.read_text("ascii", "replace").splitlines()]
    listed = {words[1]: words[0] for words in lines if len(words) > 1}
    for path in files:
        with path.open("rb") as stream:
            if listed.get(path.name) != hashlib.file_digest(stream, "sha256").hexdigest():
                raise EnvironmentFailure(
                    "unsafe-file", f"{path} is not what {sums} says: build or copy it again"
                )
    return f"{directory}: {', '.join(path.name for path in files)}, as in SHA256SUMS"

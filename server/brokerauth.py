"""The broker's question "may they?", answered for agents: the HTTP side of rabbitmq_auth_backend_http.

Rules:
1. Whatever is not allowed here in words is denied, and so is what cannot be decided now: agents try again.
2. A user is an agent: its name is its id, its password was signed for this broker and virtual host by the key
   of that id, at most 24 hours away by our clock, and was never used before.
3. `enrolment`: `token` enrols whoever shows an enrolment token, `approval` lets them wait, `open` enrols
   whoever proves an id. An agent that waits proves who it is and is then denied the virtual host: so it can
   be told from one that is denied, and the broker says where it comes from. It reaches nothing.
4. Before an agent is let in its queue stands, bound, so that it has nothing to declare. It may read that
   queue, and write `mig.agents` under its own three routing keys. An agent that could declare a queue could
   forward through a dead-letter exchange.
5. A revoked agent is denied every login; so is one that has removed itself, until it is enrolled anew. What
   it may on a connection that is still open the broker keeps (`server.brokerfiles.PERMISSIONS_S`), so
   revoking closes connections (`server.shutout`).
6. One that was cut off for a flood (`server.floods`) is denied for a while.
7. An agent may log in `MAX_LOGINS` times in `LOGIN_PERIOD`: a login costs a row and a queue's declaration.
8. `MOST_AT_ONCE` logins are under way, and `MOST_WAITING` at most wait for their turn, in order. What comes
   beyond is denied at once, and what has waited for `LONGEST_WAIT_S` at its turn is denied unread: the
   broker gives a login only so long (`handshake_timeout`: ten seconds, where `HANDSHAKE_MS` is not set),
   after which work would be in vain, and a fleet that returns together would never get in. Who was denied
   comes again after the agent's own pause. To deny costs the broker half of what it costs to let in
   (`docs/performance.md`), so waiting in line is better than coming again.
9. A broker that keeps permissions but no logins asks about each login twice: to let the agent in, and to
   learn what it may in general. It says so by the path that it asks (`server.brokerfiles.TWICE`).

Source: https://github.com/rabbitmq/rabbitmq-server/tree/v3.10.8/deps/rabbitmq_auth_backend_http
"""

import asyncio
import ipaddress
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import parse_qsl

from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.identity import BrokerLogin, decode_broker_password
from protocol.names import AGENTS_EXCHANGE, agent_queue, alert_key, heartbeat_key, is_agent_id, result_key
from server.brokerfiles import TWICE, VHOST
from server.config import ServerConfig
from server.database import Database
from server.floods import PAUSE, RATE_LIMITED
from server.lookups import Enrolments, Together
from server.rows import AgentRow, Said
from server.store import Store
from server.store_logins import LOGIN_TOLERANCE, NewLogin

_log = logging.getLogger(__name__)

_MAX_FIELDS = 64
# An agent may come before we are connected again, after a restart of the broker; its time-out is 15 s.
_BROKER_WAIT_S = 5.0
# Enough for full batches at every step, few enough to be done with in a second.
MOST_AT_ONCE = 64
MOST_WAITING = 1024
LONGEST_WAIT_S = 5.0
MAX_LOGINS = 20  # the agent's own pauses make it six in the first minute, then one
LOGIN_PERIOD = timedelta(minutes=1)
_MAX_COUNTED = 100_000
_LATEST = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())

_OWN_KEYS = (heartbeat_key, result_key, alert_key)

Form = Mapping[str, str]


class BrokerAuth:
    """Answers the broker; `denied` counts denied logins by code, `asked` questions by the end of their path.

    `wait_connected` waits so many seconds for the relay; `welcome` makes an agent's queue.
    """

    def __init__(
        self,
        *,
        config: ServerConfig,
        database: Database,
        store: Store,
        wait_connected: Callable[[float], Awaitable[bool]],
        welcome: Callable[[str], Awaitable[None]],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._database = database
        self._store = store
        self._wait_connected = wait_connected
        self._enrolments = Enrolments(database, store)
        self._known: Together[str, AgentRow | None] = Together(self._read_known)
        self._recorded: Together[NewLogin, int] = Together(self._record)
        self._welcome = welcome
        self._clock = clock
        self._monotonic = monotonic
        self.denied: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._waiting = 0
        self._logins: OrderedDict[str, tuple[datetime, int]] = OrderedDict()
        self._heard: deque[str] = deque(maxlen=16)
        self._questions: Mapping[str, Callable[[Form], Awaitable[bool]]] = {
            "/auth/user": self.is_login_allowed,
            f"/auth/{TWICE}": partial(self.is_login_allowed, questions=2),
            "/auth/vhost": self.is_vhost_allowed,
            "/auth/resource": self.is_resource_allowed,
            "/auth/topic": self.is_topic_allowed,
            "/auth/heard": self.was_heard,
        }

    async def answer(self, path: str, body: bytes) -> str | None:
        """Answer one question: `allow` or `deny`, or None where there is no such question."""
        question = self._questions.get(path)
        if question is None:
            return None
        self.asked[path.rpartition("/")[2]] += 1
        form = _read_form(body)
        is_allowed = form is not None and await self._ask(question, form)
        return "allow" if is_allowed else "deny"

    async def _ask(self, question: Callable[[Form], Awaitable[bool]], form: Form) -> bool:
        try:
            return await question(form)
        except EnvironmentFailure as error:
            _log.warning("denied for now", extra={"agent": form.get("username", "")[:32], "reason": error})
            return False

    async def is_login_allowed(self, form: Form, *, questions: int = 1) -> bool:
        """Decide on a login, by `username` and `password`, about which the broker asks so often."""
        if self._waiting >= MOST_WAITING:
            self.denied[RATE_LIMITED] += 1
            return False
        came = self._monotonic()
        self._waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        try:
            if self._monotonic() - came > LONGEST_WAIT_S:
                self.denied[RATE_LIMITED] += 1
                return False
            return await self._judge_login(form, questions)
        finally:
            self._room.release()

    async def _judge_login(self, form: Form, questions: int) -> bool:
        agent_id = form.get("username", "")
        try:
            login = self._require_signed(agent_id, form.get("password", ""))
            row, number = await self._admit(agent_id, login, questions)
        except InvalidInput as error:
            self.denied[error.code] += 1
            self._heard.append(agent_id[:32])
            _log.warning(
                "login denied",
                extra={"agent": agent_id[:32], "code": error.code, "reason": error.detail},
            )
            return False
        if number > 1:
            return True
        if row.enrolment == "pending":
            self.denied["forbidden"] += 1
            _log.info("waits for approval", extra={"agent": agent_id})
            return True
        if not await self._wait_connected(_BROKER_WAIT_S):
            raise EnvironmentFailure("broker-away", "an agent's queue cannot be declared", retryable=True)
        await self._welcome(agent_id)
        _log.info("login", extra={"agent": agent_id})
        return True

    async def was_heard(self, form: Form) -> bool:
        """Tell whether a login of this user was denied lately: `mig-server doctor` looks for its own."""
        return form.get("username") in self._heard

    def _require_signed(self, agent_id: str, password: str) -> BrokerLogin:
        if not is_agent_id(agent_id):
            raise InvalidInput("unauthenticated", "the user name is no agent's id")
        login = decode_broker_password(password)
        login.require_valid(agent_id, self._config.name, VHOST)
        return login

    async def _admit(self, agent_id: str, login: BrokerLogin, questions: int) -> tuple[AgentRow, int]:
        """Return the agent, and which question about this login it is; what is denied is raised."""
        now = self._clock()
        if abs(login.time - now.timestamp()) > LOGIN_TOLERANCE.total_seconds() or login.time > _LATEST:
            raise InvalidInput("unauthenticated", f"the agent's clock is off by {_distance(login.time, now)}")
        self._require_seldom(agent_id, now, MAX_LOGINS * questions)
        row = await self._require_agent(agent_id, login, now)
        if row.enrolment in {"revoked", "removed"}:
            raise InvalidInput("forbidden", f"the agent is {row.enrolment}")
        if row.flooded is not None and abs(now - row.flooded) < PAUSE:
            raise InvalidInput(RATE_LIMITED, "the agent floods and was cut off for a while")
        said = datetime.fromtimestamp(login.time, UTC)
        number = await self._recorded.ask(NewLogin(agent_id, login.nonce, said, questions))
        if not number:
            raise InvalidInput("replayed", "this very login was used before")
        return row, number

    async def _read_known(self, agent_ids: Sequence[str]) -> Sequence[AgentRow | None]:
        known = await self._database.read(self._store.get_agents, agent_ids)
        return [known.get(agent_id) for agent_id in agent_ids]

    async def _record(self, logins: Sequence[NewLogin]) -> Sequence[int]:
        return await self._database.run(self._store.record_logins, logins, self._clock())

    def _require_seldom(self, agent_id: str, now: datetime, most: int) -> None:
        since, count = self._logins.pop(agent_id, (now, 0))
        if abs(now - since) >= LOGIN_PERIOD:  # a clock that was set back denies nobody for long
            since, count = now, 0
        self._logins[agent_id] = (since, count + 1)
        if len(self._logins) > _MAX_COUNTED:
            self._logins.popitem(last=False)
        if count >= most:
            raise InvalidInput("rate-limited", f"more than {MAX_LOGINS} logins within a minute")

    async def _require_agent(self, agent_id: str, login: BrokerLogin, now: datetime) -> AgentRow:
        row = await self._known.ask(agent_id)
        policy = self._config.enrolment
        is_new = row is None or (row.enrolment == "pending" and policy != "approval")
        # One that has removed itself is enrolled anew by a token, or by an approval.
        is_back = row is not None and row.enrolment == "removed" and policy == "token"
        if row is not None and not is_new and not is_back:
            return row
        said = Said(name=login.name, addresses=login.addresses)
        key = login.public_key
        if policy == "token":
            token = await self._require_token(login)
            row = await self._database.run(self._store.enrol_by_token, agent_id, key, token, now, said)
        else:
            row = await self._database.run(self._store.enrol_agent, agent_id, key, policy, now, said)
        _log.info("new agent", extra={"agent": agent_id, "enrolment": row.enrolment, "by": row.enrolled_by})
        return row

    async def _require_token(self, login: BrokerLogin) -> str:
        if not login.token:
            raise InvalidInput("bad-token", "the agent is new here and shows no enrolment token")
        known = await self._database.read(self._store.get_token, login.token)
        if known is None:
            raise InvalidInput("bad-token", f"enrolment token {login.token} is unknown")
        login.require_token(known.public_key, self._config.name, VHOST)
        return known.id

    async def is_vhost_allowed(self, form: Form) -> bool:
        """Decide whether an agent may use a virtual host; keep where one comes from that waits."""
        if form.get("vhost") != VHOST:
            return False
        if await self._is_enrolled(form):
            return True
        row = await self._find_agent(form)
        if row is not None and row.enrolment == "pending":
            await self._note_peer(row, form.get("ip", ""))
        return False

    async def _note_peer(self, row: AgentRow, address: str) -> None:
        try:
            peer = str(ipaddress.ip_address(address))
        except ValueError:
            return
        if peer != row.peer:
            await self._database.run(self._store.note_peer, row.id, peer)

    async def is_resource_allowed(self, form: Form) -> bool:
        """Decide on a queue or an exchange: configure nothing, read the own queue, write `mig.agents`."""
        asked = (form.get("vhost"), form.get("resource"), form.get("name"), form.get("permission"))
        allowed = {
            (VHOST, "queue", agent_queue(form.get("username", "")), "read"),
            (VHOST, "exchange", AGENTS_EXCHANGE, "write"),
        }
        return asked in allowed and await self._is_enrolled(form)

    async def is_topic_allowed(self, form: Form) -> bool:
        """Decide on a routing key of `mig.agents`: an agent's own three."""
        agent_id = form.get("username", "")
        asked = (form.get("vhost"), form.get("resource"), form.get("name"), form.get("permission"))
        return (
            asked == (VHOST, "topic", AGENTS_EXCHANGE, "write")
            and form.get("routing_key") in {key(agent_id) for key in _OWN_KEYS}
            and await self._is_enrolled(form)
        )

    async def _is_enrolled(self, form: Form) -> bool:
        agent_id = form.get("username", "")
        return is_agent_id(agent_id) and await self._enrolments.is_enrolled(agent_id)

    async def _find_agent(self, form: Form) -> AgentRow | None:
        agent_id = form.get("username", "")
        if not is_agent_id(agent_id):
            return None
        return await self._database.read(self._store.get_agent, agent_id)


def _distance(said: int, now: datetime) -> str:
    return str(timedelta(seconds=min(abs(said - int(now.timestamp())), 86400 * 36500)))


def _read_form(body: bytes) -> Form | None:
    """Read a form; None where it is none, or names a field twice."""
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        return None
    form = dict(fields)
    return form if len(form) == len(fields) else None

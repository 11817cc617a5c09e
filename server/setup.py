"""`mig-server init`: a first configuration and the directories that it names."""

import os
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import EnvironmentFailure, InvalidInput
from server.broker import PrivateBroker
from server.brokersetup import PLACEHOLDER
from server.notices import NOTICE_KEY_FILE, load_notice_key

_TEMPLATE = """\
# The server of a MIG platform. Read by mig-server; [agent] and [client] may stand in the same file.

[server]
name = "mig"                          # agents sign it into each login to the broker
url = "http://127.0.0.1:1664"         # as clients reach it; they sign it into their login
listen = "127.0.0.1:1664"             # API; put a proxy with TLS in front of it before it leaves this machine
broker_auth_listen = "127.0.0.1:1665" # asked by the broker at each login of an agent; keep it on loopback
database = "sqlite:///{state}/mig.sqlite"   # or "postgresql://mig@host/mig"
relay = "{relay}"
rabbitmqctl = "{rabbitmqctl}"         # closes the connections of revoked agents; "" where it cannot be run
enrolment = "token"                   # mig-server agent token new; "approval": agents wait; "open": takes all
max_agents = 1000                     # an action for more needs mig ... --all-agents: a guard against a slip
keep_answers_days = 0                 # answers are deleted so long after they came; 0: never
keep_actions_days = 0                 # actions and what belongs to them, so long after they ended; 0: never
state_dir = "{state}"
agents_dir = "{state}/agents"         # mig-agent-<platform> files, served at /agents/<platform>
"""


def write_first_config(path: Path, state_dir: Path, *, private_broker: bool) -> list[str]:
    """Write the configuration (0600: it holds the broker's password); return lines that say what was done.

    Raises:
        InvalidInput: `conflict` where there is one already.
        EnvironmentFailure: `state-failed`.

    """
    state = state_dir.absolute()
    if path.exists():
        raise InvalidInput("conflict", f"{path} is there already; nothing was changed")
    if '"' in str(state) or "\\" in str(state):
        raise InvalidInput("usage", f"{state}: quotes and backslashes cannot stand in the configuration")
    relay = "amqp://mig-server:PASSWORD@127.0.0.1:5672/mig"
    rabbitmqctl = ""
    try:
        (state / "agents").mkdir(mode=0o755, parents=True, exist_ok=True)
        state.chmod(0o700)
        load_notice_key(state / NOTICE_KEY_FILE)
        if private_broker:
            node = PrivateBroker(state / "rabbitmq")
            node.prepare()
            relay = node.url
            rabbitmqctl = str(node.rabbitmqctl)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(_TEMPLATE.format(state=state, relay=relay, rabbitmqctl=rabbitmqctl))
    except OSError as error:
        raise EnvironmentFailure("state-failed", f"{error.filename}: {error.strerror}") from None
    lines = [f"wrote {path}", f"made {state}"]
    if private_broker:
        return [*lines, f"next: mig-server broker up --state-dir {state / 'rabbitmq'}"]
    return [*lines, f"next: put your broker's URL into relay in {path}"]


def replace_password(path: Path, relays: Sequence[str], password: str) -> None:
    """Put a password where the configuration's `relay` still says PASSWORD.

    Raises:
        InvalidInput: `bad-config` where that cannot be told from the text.
        EnvironmentFailure: `state-failed`.

    """
    try:
        text = path.read_text("utf-8")
        for relay in relays:
            if text.count(f'"{relay}"') != 1 or relay.count(f":{PLACEHOLDER}@") != 1:
                raise InvalidInput(
                    "bad-config", f"{path}: put a password into relay in place of {PLACEHOLDER}"
                )
            text = text.replace(f'"{relay}"', f'"{relay.replace(f":{PLACEHOLDER}@", f":{password}@")}"')
        partial = path.with_name(path.name + ".new")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        partial.replace(path)
    except OSError as error:
        raise EnvironmentFailure("state-failed", f"{error.filename}: {error.strerror}") from None

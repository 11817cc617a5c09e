"""Nothing that takes long runs on the event loop's thread, however hard the API is pressed.

A clock would tell the machine's load from a blocking call only now and then; this looks at each call instead.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Self

from protocol.envelope import encode_envelope
from tests.server.api.test_actions import sign
from tests.support.api import TIMEOUT_S, ApiServer
from tests.support.fleet import FleetAgent, create, make_action
from tests.support.gpg import Investigator

ROOT = Path(__file__).parents[3]
# OpenPGP, the database, targets and files of any size: milliseconds each, some chosen by who asks.
_SLOW = (
    str(ROOT / "protocol" / "openpgp"),
    str(ROOT / "protocol" / "keyring"),
    str(ROOT / "protocol" / "target_parse"),
    str(ROOT / "server" / "store_"),
    str(ROOT / "server" / "target_sql"),
)
_SLOW_PARTS = ("/sqlalchemy/engine/", "/cryptography/", "/pgpy/", "/subprocess.py")
_LARGE = 65536


class Watch:
    """Records calls on one thread that do not belong there."""

    def __init__(self, api: ApiServer) -> None:
        self.seen: set[str] = set()
        self.calls = 0
        self._api = api

    def __enter__(self) -> Self:
        self._on_loop(sys.setprofile, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._on_loop(sys.setprofile, None)

    def _on_loop(self, function: Any, *args: Any) -> None:
        async def call() -> None:
            function(*args)

        asyncio.run_coroutine_threadsafe(call(), self._api.loop).result(TIMEOUT_S)

    def _look(self, frame: FrameType, event: str, _arg: object) -> None:
        if event != "call":
            return
        self.calls += 1
        code = frame.f_code
        name = code.co_filename
        is_slow = name.startswith(_SLOW) or any(part in name for part in _SLOW_PARTS)
        data = frame.f_locals.get("data")
        is_large = code.co_name == "decode_json" and isinstance(data, bytes) and len(data) > _LARGE
        if is_slow or is_large:
            self.seen.add(f"{name}:{code.co_name}")


def test_no_call_that_takes_long_runs_on_the_event_loop(
    api: ApiServer, ada: Investigator, token: str
) -> None:
    agents = [FleetAgent(api.store, f"web{number}", now=api.now()) for number in range(3)]
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    api.store.save_results([agent.answer(action) for agent in agents], api.now())
    large = encode_envelope(sign(ada, make_action(now=api.now(), name="x" * 200_000)))
    logins = [encode_envelope(api.login_envelope(ada)) for _ in range(10)]
    path = f"/api/v1/actions/{action.id}"

    def press(number: int) -> None:
        api.ask("POST", "/api/v1/session", body=logins[number % len(logins)])
        api.ask("POST", "/api/v1/session", body=b"{" * 16384)
        api.ask("POST", "/api/v1/actions", body=large, token=token)
        api.ask("POST", "/api/v1/actions", body=b"[" * (1 << 20), token=token)
        api.ask("GET", "/api/v1/agents", token=token, target=" OR ".join(["os = 'linux'"] * 500))
        for tail in ("", "/results", "/commands", "/events"):
            assert api.ask("GET", path + tail, token=token).status == 200

    with Watch(api) as watch, ThreadPoolExecutor(4) as threads:
        list(threads.map(press, range(10)))
    assert watch.calls > 1000
    assert watch.seen == set()

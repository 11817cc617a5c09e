"""Webhooks against a real receiver that answers, fails, hangs and drips; on each database."""

import asyncio
import hashlib
import hmac
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from protocol.alert import decode_public_key, open_alert
from protocol.documents import SignedEnvelope
from server import webhooks as webhooks_module
from server.bell import Bell
from server.database import Database
from server.store import Store
from server.webhook_config import WebhookConfig
from server.webhooks import REFUSALS, HookStanding, Webhooks, read_standing
from tests.support.fleet import NOW, FleetAgent
from tests.support.platform import ROOT, wait_until
from tests.support.receiver import Receiver, closed_port, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


class Desk:
    """One server's webhooks over a database; time stands where the test puts it."""

    def __init__(self, database: Database, hook: WebhookConfig, lease: str = "a") -> None:
        self.store = Store(database)
        self.now: datetime = NOW
        self.hook = hook
        self.webhooks = Webhooks(
            [hook],
            database=database,
            store=self.store,
            bell=Bell(),
            clock=lambda: self.now,
            random=Random(1),  # noqa: S311  (spreads, protects nothing)
            lease=lease,
        )
        self.deliver()  # so the hook stands before the first alert

    def deliver(self) -> float:
        """Deliver what waits; return after how many seconds to look again."""

        async def work() -> float:
            async with webhooks_module.make_client(self.hook) as client:
                return await self.webhooks.deliver_waiting(self.hook, client)

        return asyncio.run(work())

    def standing(self) -> HookStanding:
        return read_standing(self.store, [self.hook])[self.hook.name]


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk(database: Database, receiver: Receiver) -> MakeDesk:
    def make(**settings: Any) -> Desk:
        lease = settings.pop("lease", "a")
        return Desk(database, WebhookConfig(**{"name": "siem", "url": receiver.url, **settings}), lease)

    return make


def test_alerts_are_brought_in_order_each_with_what_its_agent_signed(
    make_desk: MakeDesk, receiver: Receiver
) -> None:
    desk = make_desk()
    agent = FleetAgent(desk.store)
    alerts = [agent.alert(number) for number in range(1, 4)]
    desk.store.save_alerts(alerts, NOW)
    desk.deliver()
    assert [one.headers["X-MIG-Delivery"] for one in receiver.received] == [one.digest for one in alerts]
    told = receiver.received[0].json
    envelope = SignedEnvelope(**told["envelope"]).encode()
    opened = open_alert(envelope, decode_public_key(told["agent"]["public_key"]), told["agent"]["id"])
    assert (opened.digest, opened.alert.record) == (told["id"], {"path": "/etc/passwd"})
    assert (told["agent"]["name"], told["hook"], told["alert"]["seq"]) == ("web1", "siem", 1)


def test_a_delivery_carries_an_hmac_of_time_and_body(make_desk: MakeDesk, receiver: Receiver) -> None:
    desk = make_desk(secret="s3cret")
    desk.store.save_alerts([FleetAgent(desk.store).alert(1)], NOW)
    desk.deliver()
    [delivery] = receiver.received
    time, _, mac = delivery.headers["X-MIG-Signature"].partition(",")
    signed = time.removeprefix("t=").encode() + b"." + delivery.body
    assert mac == "v1=" + hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()


def test_only_what_a_hook_wants_is_brought(make_desk: MakeDesk, receiver: Receiver) -> None:
    desk = make_desk(modules=("audit",), min_severity="high")
    agent = FleetAgent(desk.store)
    desk.store.save_alerts(
        [
            agent.alert(1),
            agent.alert(2, module="audit", severity="low"),
            agent.alert(3, module="audit", severity="high"),
        ],
        NOW,
    )
    desk.deliver()
    assert [one.json["alert"]["seq"] for one in receiver.received] == [3]


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [500, 503, 429, "redirect"])
def test_what_fails_is_tried_again_with_growing_pauses_and_comes_in_order(
    make_desk: MakeDesk, receiver: Receiver, trouble: int | str
) -> None:
    desk = make_desk()
    agent = FleetAgent(desk.store)
    desk.store.save_alerts([agent.alert(1), agent.alert(2)], NOW)
    receiver.answers = [trouble, trouble, 200]
    pauses = []
    for _ in range(2):
        pauses.append(desk.deliver())
        assert desk.deliver() > 0  # too early: nothing is sent
        desk.now += timedelta(seconds=30)
    desk.deliver()
    assert pauses[0] < 1.0 <= pauses[1] <= 2.0
    assert [one.json["alert"]["seq"] for one in receiver.received] == [1, 1, 1, 2]
    assert [one.headers["X-MIG-Attempt"] for one in receiver.received] == ["1", "2", "3", "1"]
    assert desk.webhooks.outcomes == {"delivered": 2, "failed": 2}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hang", "drip"])
def test_a_receiver_that_keeps_us_waiting_is_one_that_fails(
    make_desk: MakeDesk, receiver: Receiver, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "LONGEST_S", 0.3)
    desk = make_desk()
    desk.store.save_alerts([FleetAgent(desk.store).alert(1)], NOW)
    receiver.answers = [way, 200]
    desk.deliver()
    assert desk.standing() == HookStanding(1, 1, "no answer within 0.3 s")
    desk.now += timedelta(seconds=30)
    desk.deliver()
    assert desk.standing() == HookStanding(0, 0, "")


@pytest.mark.slow
def test_a_receiver_that_is_away_keeps_its_alerts_waiting_for_as_long_as_it_takes(
    make_desk: MakeDesk, receiver: Receiver
) -> None:
    away = make_desk(url=f"http://127.0.0.1:{closed_port()}/")
    away.store.save_alerts([FleetAgent(away.store).alert(1)], NOW)
    for _ in range(REFUSALS + 2):
        away.deliver()
        away.now += timedelta(hours=1)
    assert away.standing().waiting == 1
    assert "ConnectError" in away.standing().problem
    back = make_desk()
    back.now = away.now
    back.deliver()
    assert len(receiver.received) == 1


@pytest.mark.slow
def test_an_alert_that_the_receiver_refuses_itself_is_passed_over_after_some_tries(
    make_desk: MakeDesk, receiver: Receiver
) -> None:
    desk = make_desk()
    agent = FleetAgent(desk.store)
    desk.store.save_alerts([agent.alert(1), agent.alert(2)], NOW)
    receiver.answers = [*[400] * REFUSALS, 200]
    for _ in range(REFUSALS):
        desk.deliver()
        desk.now += timedelta(hours=1)
    assert [one.json["alert"]["seq"] for one in receiver.received] == [1] * REFUSALS + [2]
    assert receiver.received[-1].json["skipped"] == 1
    assert desk.webhooks.outcomes["skipped"] == 1


def test_a_hook_that_is_too_far_behind_passes_over_the_oldest_and_is_told(
    make_desk: MakeDesk, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "MOST_WAITING", 2)
    desk = make_desk()
    agent = FleetAgent(desk.store)
    desk.store.save_alerts([agent.alert(number) for number in range(1, 6)], NOW)
    desk.deliver()
    assert [one.json["alert"]["seq"] for one in receiver.received] == [4, 5]
    assert [one.json["skipped"] for one in receiver.received] == [3, 0]


@pytest.mark.slow
def test_two_servers_bring_each_alert_once(make_desk: MakeDesk, receiver: Receiver) -> None:
    one, other = make_desk(), make_desk(lease="b")
    agent = FleetAgent(one.store)
    one.store.save_alerts([agent.alert(number) for number in range(1, 4)], NOW)
    one.deliver()
    other.deliver()
    one.store.save_alerts([agent.alert(4)], NOW)
    other.deliver()
    one.deliver()
    assert [delivery.json["alert"]["seq"] for delivery in receiver.received] == [1, 2, 3, 4]


def test_what_a_server_had_under_way_when_it_died_is_brought_by_another_when_its_lease_is_over(
    make_desk: MakeDesk, receiver: Receiver
) -> None:
    dead = make_desk(lease="dead")
    dead.store.save_alerts([FleetAgent(dead.store).alert(1)], NOW)
    dead.store.lease_hook("siem", "dead", NOW, NOW + timedelta(seconds=30))
    other = make_desk(lease="b")
    assert 0 < other.deliver() <= 30
    assert receiver.received == []
    other.now += timedelta(seconds=31)
    other.deliver()
    assert len(receiver.received) == 1


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(
    make_desk: MakeDesk, receiver: Receiver
) -> None:
    desk = make_desk(url=receiver.url.replace("http:", "https:"))
    desk.store.save_alerts([FleetAgent(desk.store).alert(1)], NOW)
    desk.deliver()
    assert receiver.received == []
    assert desk.standing().attempts == 1


def test_new_alerts_are_brought_at_once_while_the_server_runs(
    make_desk: MakeDesk, receiver: Receiver
) -> None:
    desk = make_desk()
    bell = desk.webhooks._bell

    async def scenario() -> None:
        working = asyncio.ensure_future(desk.webhooks.run())
        await asyncio.to_thread(desk.store.save_alerts, [FleetAgent(desk.store).alert(1)], NOW)
        bell.ring()
        await asyncio.to_thread(receiver.wait_for, 1)
        working.cancel()
        await asyncio.wait([working])

    asyncio.run(scenario())
    assert receiver.received[0].json["alert"]["seq"] == 1


@pytest.mark.slow
def test_the_receiver_in_the_documentation_takes_what_is_brought_and_nothing_else(
    make_desk: MakeDesk,
) -> None:
    text = (ROOT / "docs" / "alerts.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    port = closed_port()
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + code.replace("8088", str(port))
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as receiver:
        wait_until(lambda: is_open(port), "the receiver")
        good = make_desk(name="good", url=f"http://127.0.0.1:{port}/", secret="a long random text")
        bad = make_desk(name="bad", url=f"http://127.0.0.1:{port}/", secret="another text")
        alert = FleetAgent(good.store).alert(1)
        good.store.save_alerts([alert], NOW)
        bad.deliver()
        good.deliver()
        assert receiver.stdout is not None
        assert receiver.stdout.readline().startswith(f"{alert.digest} critical changed")
        receiver.terminate()
    assert (good.standing().waiting, bad.standing().problem) == (0, "HTTP status 403")


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""Who waits for alerts, in one process."""

import asyncio

from server.bell import Bell


def test_everybody_who_listens_is_woken_and_other_servers_are_told() -> None:
    async def story() -> tuple[list[bool], list[str]]:
        bell, told = Bell(), list[str]()
        bell.also = lambda: told.append("others")
        with bell.listen() as one, bell.listen() as other:
            bell.ring()
            woken = [await one.wait(5), await other.wait(5)]
            bell.ring_here()
            woken += [await one.wait(5), await other.wait(0)]
        bell.ring_here()
        return woken, told

    assert asyncio.run(story()) == ([True, True, True, True], ["others"])


def test_a_bell_that_is_closed_keeps_nobody_waiting() -> None:
    async def story() -> bool:
        bell = Bell()
        bell.close()
        with bell.listen() as wake:
            return await wake.wait(5) and bell.is_closed

    assert asyncio.run(story())

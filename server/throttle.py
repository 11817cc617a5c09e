"""Limits on how often somebody may try to log in; kept in memory, of bounded size.

Rules:
1. An address gets `BURST` requests at once and one more each `REFILL_S`, for challenges and logins together.
   An IPv6 address counts as its network of 64 bits, of which its holder has every address.
2. A fingerprint gets as many logins that fail, so guessing in its name from many addresses is slow as well.
   Who floods a fingerprint can delay that investigator's next login; sessions that are open stand.
3. At most `MAX_KEYS` are remembered, the latest seen: a flood from more addresses is for the network to stop.
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

from protocol.errors import InvalidInput

BURST = 60
REFILL_S = 1.0
MAX_KEYS = 16384


class RateLimited(InvalidInput):
    """Asked too often; `retry_after_s` is when the next request will be heard."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("rate-limited", f"asked too often; ask again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Throttle:
    """Counts by key.

    Args:
        clock: seconds that only rise.
        burst: so many at once.
        refill_s: one more after so many seconds.
        max_keys: so many keys are remembered.

    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        burst: int = BURST,
        refill_s: float = REFILL_S,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._clock = clock
        self._burst = burst
        self._refill_s = refill_s
        self._max_keys = max_keys
        self._owed: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key: what is used up, and when

    def __len__(self) -> int:
        return len(self._owed)

    def require_room(self, key: str) -> None:
        """Raise where the key has used up what it has.

        Raises:
            RateLimited: with the time until there is room.

        """
        owed = self._now_owed(key)
        if owed > self._burst - 1:
            raise RateLimited(max(1, math.ceil((owed - self._burst + 1) * self._refill_s)))

    def count(self, key: str) -> None:
        """Use up one."""
        self._owed[key] = (self._now_owed(key) + 1, self._clock())
        self._owed.move_to_end(key)
        while len(self._owed) > self._max_keys:
            self._owed.popitem(last=False)

    def _now_owed(self, key: str) -> float:
        owed, since = self._owed.get(key, (0.0, 0.0))
        return max(0.0, owed - (self._clock() - since) / self._refill_s)


def address_key(host: str) -> str:
    """Return what an address counts as."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)

"""How an action is to be sent, as the query of its submission says: beside what is signed.

Agents never hear of it: this is the scheduler's business, and who holds the platform can send as they like.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from litestar.params import QueryParameter

from protocol.documents import DEFAULT_WAVE_WAIT_S, Pacing
from protocol.errors import InvalidInput
from server.rows import Manner

_MAX_COUNT = 1_000_000

All = Annotated[
    bool,
    QueryParameter(name="all", description="it is meant for all, also for more than `max_agents` agents"),
]
Waves = Annotated[
    str | None,
    QueryParameter(
        pattern=r"^[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}){0,15}$",
        description="so many agents at first, then so many, then the rest: `1,10`",
    ),
]
Concurrency = Annotated[
    int | None, QueryParameter(ge=1, le=_MAX_COUNT, description="at most so many commands under way")
]
Rate = Annotated[
    float | None, QueryParameter(gt=0, le=10_000, description="at most so many commands a second")
]
StopAt = Annotated[
    float | None,
    QueryParameter(gt=0, le=100, description="stop when so many percent of the answers are failures"),
]
WaveWait = Annotated[
    int | None,
    QueryParameter(
        ge=1,
        le=7 * 86400,
        description=f"seconds for which a wave waits for who is silent; {DEFAULT_WAVE_WAIT_S} unless given",
    ),
]


def read_manner(  # noqa: PLR0917  (the query's parameters)
    is_wide: bool,  # noqa: FBT001  (as they)
    waves: str | None,
    concurrency: int | None,
    rate: float | None,
    stop_at: float | None,
    wave_wait: int | None,
) -> Manner:
    """Return what the query asks for.

    Raises:
        InvalidInput: `usage` where there is nothing to stop or to wait for, since nothing is held back.

    """
    sizes: Sequence[int] = [int(size) for size in waves.split(",")] if waves else []
    members = {
        "waves": sizes,
        "concurrency": concurrency,
        "rate": rate,
        "stop_at": stop_at,
        "wave_wait_s": DEFAULT_WAVE_WAIT_S if wave_wait is None else wave_wait,
    }
    try:
        pacing = msgspec.convert(members, Pacing)
    except msgspec.ValidationError as error:
        raise InvalidInput("usage", str(error)) from None
    if not pacing.holds_back:
        if stop_at is not None or wave_wait is not None:
            raise InvalidInput(
                "usage", "nothing is held back: stop_at and wave_wait need waves, concurrency or rate"
            )
        return Manner(is_wide=is_wide)
    return Manner(is_wide=is_wide, pacing=pacing)

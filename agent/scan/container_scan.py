"""Runs a module within containers: each in a process of its own that has entered its root.

What the module yields there comes back record by record, with its notes and counts; how the process ended,
where it did, is said, and the next container is looked at.
"""

import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import msgspec

from agent.module import Context, Limits, Statistic
from agent.platform.container_facts import ContainerFacts
from agent.platform.container_list import list_containers
from agent.platform.container_processes import namespace_of
from agent.scan.container_root import CannotEnter, enter_root
from agent.scan.helper import Helper, HelperLost
from agent.scan.scan import Place
from agent.scan.socket_filter import container_matches
from protocol.errors import InvalidInput, MigError

_SILENCE_S = 120.0
_BATCH_RECORDS, _BATCH_BYTES = 200, 256 << 10
_STEP_S = 0.5

# Yields the records of a module within a place; the context is that of the process there.
Work = Callable[[Context, Place], Iterator[Any]]


class _Frame(msgspec.Struct, array_like=True):
    """What a process within says: records, and once it is done the rest."""

    records: List[bytes]
    is_last: bool = False
    notes: List[str] = []
    statistics: Dict[str, Statistic] = {}
    is_truncated: bool = False


def run_within(asked: Sequence[str], work: Work, record: type, context: Context) -> Iterator[Any]:
    """Yield what a module finds within the containers that are asked for, by id, its beginning, name or `*`.

    Raises:
        InvalidInput: `acl-refused`, where access rules limit paths: they say nothing of those within.

    """
    if not context.paths.is_open:
        raise InvalidInput("acl-refused", "access rules limit paths, and those within containers are others")
    totals: Dict[str, Statistic] = {"containers_seen": 0, "errors": 0}
    context.statistics.update(totals)
    chosen = [one for one in list_containers(context.note, check=context.check) if _is_asked(one, asked)]
    if not chosen:
        context.note("there is no container that is asked for")
    for facts in chosen:
        context.check()
        if not facts.pid:
            context.note(f"{_name(facts)}: does not run, and was not looked into")
            continue
        add(totals, {"containers_seen": 1})
        yield from look_within(facts, work, record, context, totals)


def _is_asked(facts: ContainerFacts, asked: Sequence[str]) -> bool:
    return container_matches(facts.id, asked) or (facts.name is not None and facts.name in asked)


def _name(facts: ContainerFacts) -> str:
    return f"container {(facts.name or facts.id)[:64]}"


def look_within(
    facts: ContainerFacts, work: Work, record: type, context: Context, totals: Dict[str, Statistic]
) -> Iterator[Any]:
    """Yield what a module finds within one container that runs; `totals` are the counts over all.

    What could not be looked at is said, and no error.
    """
    space = namespace_of(facts.pid, "mnt")
    server = _Server(facts.pid, space or "", work, context)
    helper = Helper(server.serve, silence_s=_SILENCE_S, check=context.check)
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(record)
    try:
        while True:
            frame = msgspec.msgpack.decode(helper.ask(b"next"), type=_Frame)
            for data in frame.records:
                yield msgspec.structs.replace(decoder.decode(data), container=facts.id)
            context.statistics.update(totals)
            context.progress()
            if frame.is_last:
                break
    except (HelperLost, msgspec.MsgspecError) as error:
        add(totals, {"errors": 1})
        context.truncate(f"{_name(facts)}: was not looked into to its end: {error}")
    else:
        add(totals, frame.statistics)
        for note in frame.notes:
            context.note(f"{_name(facts)}: {note}")
        if frame.is_truncated:
            context.truncate(f"{_name(facts)}: the answer is cut")
    finally:
        helper.close()
        context.statistics.update(totals)


def add(totals: Dict[str, Statistic], more: Dict[str, Statistic]) -> None:
    """Add numbers to numbers, and what is counted by reason to what is."""
    for name, value in more.items():
        known = totals.get(name)
        if isinstance(value, dict):
            counts = known if isinstance(known, dict) else {}
            totals[name] = {key: counts.get(key, 0) + value.get(key, 0) for key in {*counts, *value}}
        elif isinstance(value, (int, float)):
            totals[name] = value + (known if isinstance(known, (int, float)) else 0)


class _Server:
    """What the process within does: enters at the first request, and gives a frame for each."""

    def __init__(self, pid: int, space: str, work: Work, context: Context) -> None:
        self._pid = pid
        self._space = space
        self._work = work
        self._outer = context
        self._context: Optional[Context] = None
        self._records: Iterator[Any] = iter(())
        self._next_sign = 0.0

    def serve(self, _request: bytes, _descriptor: Optional[int], still: Callable[[], None]) -> bytes:
        """Return the next frame."""
        if self._context is None:
            self._context = self._begin(still)
        context, records, size = self._context, [], 0
        try:
            for record in self._records:
                records.append(msgspec.json.encode(record))
                size += len(records[-1])
                if len(records) >= _BATCH_RECORDS or size >= _BATCH_BYTES:
                    return msgspec.msgpack.encode(_Frame(records))
        except MigError as error:
            context.truncate(str(error))
        last = _Frame(records, True, list(context.all_notes()), context.statistics, context.truncated)  # noqa: FBT003
        return msgspec.msgpack.encode(last)

    def _begin(self, still: Callable[[], None]) -> Context:
        def sign(_statistics: object) -> None:
            now = time.monotonic()
            if now >= self._next_sign:
                self._next_sign = now + _STEP_S
                still()

        # Whoever asks keeps the time, and ends this process when it is over.
        limits = Limits(wall_s=self._outer.limits.wall_s * 2)
        context = Context(limits=limits, budget=self._outer.budget, on_progress=sign)
        try:
            place = enter_root(self._pid, self._space, context.note)
        except CannotEnter as reason:
            context.statistics["errors"] = 1
            context.truncate(str(reason))
        else:
            self._records = iter(self._work(context, place))
        return context

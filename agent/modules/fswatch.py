"""Watches the integrity of files, and answers how that watch is.

It is persistent: where the agent's configuration has a table `[agent.fswatch]`, a process of its own compares
the named places with a baseline that is kept on the disk, so what changed while the agent was down is seen,
too. Changes are told by inotify; every `rescan_s` all is compared again, and at once where the kernel lost
count. Alerts: `created`, `changed` (with both SHA-256), `attributes` (mode, owner), `link` (another target),
`replaced` (another type), `removed`; `baseline-created` and `baseline-damaged` when it has to begin anew.

`found` means that a watch is configured on the endpoint; the record says whether it runs. It cannot see what
changed and changed back between two looks, nor a change by who writes to the disk below the file system. A
periodic look trusts size, times and inode; one after a start reads everything.
"""

import time
from typing import Annotated, Any, Dict, Iterator, Optional, Set, Tuple

from msgspec import Meta

from agent.module import Budget, Context, ModuleParams, ModuleRecord
from agent.watching import Report, WatchContext, watcher_state
from protocol.errors import InvalidInput

EXAMPLES = ("mig fswatch -t \"os = 'linux'\"    since when files are watched, how many, and what was told",)

PLATFORMS = ("linux",)

PATHS = ()

_BASELINE = "baseline"
_SAVE_SHARE = 20  # saving may take a twentieth of the time
_AGAIN_S = 1.0
_MAX_SETTLES = 10  # a file that is written all the time is looked at after so many times `settle_s`


class Params(ModuleParams, frozen=True):
    """Nothing to ask for."""


class Record(ModuleRecord, frozen=True, kw_only=True):
    """The watch of one endpoint."""

    running: Annotated[bool, Meta(description="whether its process runs now")]
    ended: Annotated[int, Meta(description="how often its process has ended since the agent started")]
    reason: Annotated[Optional[str], Meta(description="why it ended last")] = None
    since: Annotated[Optional[str], Meta(description="when the baseline was begun, RFC 3339")] = None
    compared: Annotated[Optional[str], Meta(description="when all was compared last, RFC 3339")] = None
    entries: Annotated[Optional[int], Meta(description="entries in the baseline")] = None
    directories: Annotated[
        Optional[int], Meta(description="directories that the kernel watches; others are rescanned")
    ] = None
    complete: Annotated[Optional[bool], Meta(description="false where more is there than may be watched")] = (
        None
    )
    reports: Annotated[
        Optional[Dict[str, int]],
        Meta(description="what was seen since its process started: kinds and how often"),
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:  # noqa: ARG001  (every module takes parameters)
    """Yield one record where a watch is configured."""
    state = watcher_state(context, "fswatch")
    if state is not None:
        told = state["told"]
        yield Record(
            running=state["running"],
            ended=state["ended"],
            reason=state["reason"] or None,
            since=told.get("since"),
            compared=told.get("compared"),
            entries=told.get("entries"),
            directories=told.get("directories"),
            complete=told.get("complete"),
            reports=told.get("reports"),
        )


def watch(config: Dict[str, Any], context: WatchContext) -> Iterator[Report]:
    """Watch for ever."""
    yield from _Watch(config, context).run()


class _Watch:
    """The watch of one endpoint: when to look, and what to keep."""

    def __init__(self, config: Dict[str, Any], context: WatchContext) -> None:
        # Only here: the client, which loads this file for its help, has no use for these.
        from agent.platform.inotify import Notifier  # noqa: PLC0415
        from agent.scan.throttle import Throttle  # noqa: PLC0415
        from agent.scan.watched_tree import Look, Tree  # noqa: PLC0415

        self._context = context
        self._notifier = Notifier()
        self._tree = Tree(
            paths=tuple(config["paths"]),
            recursive=tuple(config["recursive"]),
            excludes=tuple(config["excludes"]),
            max_entries=config["max_entries"],
            max_hash_bytes=config["max_hash_bytes"],
        )
        self._places = repr((sorted(config["paths"]), sorted(config["recursive"]))).encode()
        throttle = Throttle(Budget(cpu_percent=config["cpu_percent"]), 1, bytes_read=int)

        def on_read(_count: int) -> None:
            throttle.keep(_nothing)

        self._by_status = Look(trusts_status=True, on_read=on_read)
        self._by_reading = Look(trusts_status=False, on_read=on_read)
        self._settle_s = float(config["settle_s"])
        self._rescan_s = float(config["rescan_s"])
        self._since = int(time.time())
        self._compared = self._since
        self._unsaved = False
        self._dirty: Dict[bytes, Set[bytes]] = {}
        self._is_lost = self._is_incomplete = False
        self._told: Dict[str, Any] = {}
        self._next_tell_s = self._next_save_s = 0.0
        self._first_s = self._last_s = 0.0

    def run(self) -> Iterator[Report]:
        """Compare with what was kept, then follow."""
        self._arm()  # before the first look: what changes meanwhile is looked at again
        yield from self._begin()
        next_scan_s = time.monotonic() + self._rescan_s
        while True:
            self._arm()
            yield from self._tell_incomplete()
            self._keep()
            self._wait(next_scan_s)
            now = time.monotonic()
            if self._is_lost or now >= next_scan_s:
                self._is_lost = False
                self._dirty.clear()
                yield from self._compare_all(self._by_status)
                next_scan_s = time.monotonic() + self._rescan_s
            elif self._is_settled(now):
                yield from self._compare_dirty()

    def _begin(self) -> Iterator[Report]:
        kept, damage = self._load()
        if kept:
            yield from self._compare_all(self._by_reading)
            return
        for _ in self._tree.compare_all(self._by_reading):
            pass  # as it is now is as it should be
        self._unsaved = True
        record = {"entries": len(self._tree.entries)}
        if damage:
            yield Report("baseline-damaged", "critical", damage, {**record, "problem": damage})
        else:
            yield Report("baseline-created", "medium", "", record)

    def _load(self) -> Tuple[bool, str]:
        """Take what was kept; tell whether there was anything, and how it was damaged."""
        from agent.scan.baseline import decode_baseline  # noqa: PLC0415

        data = self._context.load(_BASELINE)
        if data is None:
            return False, ""
        try:
            baseline = decode_baseline(data)
        except InvalidInput as error:
            return False, error.detail
        self._since = baseline.since
        self._tree.entries = dict(baseline.entries)
        if baseline.places != self._places:
            # What other places hold is as it should be; what is known already is compared.
            known = set(self._tree.entries)
            self._tree.add_silently(self._by_reading, known)
        return True, ""

    def _compare_all(self, look: Any) -> Iterator[Report]:
        for report in self._tree.compare_all(look):
            self._unsaved = True
            yield report
        self._unsaved = self._unsaved or look is self._by_reading
        self._compared = int(time.time())

    def _compare_dirty(self) -> Iterator[Report]:
        dirty, self._dirty = self._dirty, {}
        for directory, names in dirty.items():
            # Of a file that was written the kernel tells the name.
            look = self._by_status if names == {b""} else self._by_reading
            for report in self._tree.compare(directory, names, look):
                self._unsaved = True
                yield report

    def _arm(self) -> None:
        """Have the kernel watch the directories of now; in new ones something may have changed before."""
        if not self._tree.has_places:
            self._tree.resolve_places()
        wanted = self._tree.directories()
        self._notifier.keep_only(wanted)
        for directory in sorted(wanted):
            if self._notifier.has(directory):
                continue
            if self._notifier.add(directory):
                self._note_dirty(directory, b"")
            elif self._notifier.is_full:
                break

    def _tell_incomplete(self) -> Iterator[Report]:
        is_incomplete = self._tree.is_full or self._notifier.is_full
        if is_incomplete and not self._is_incomplete:
            record = {"entries": len(self._tree.entries), "directories": self._notifier.count}
            yield Report("incomplete", "medium", "", record)
        self._is_incomplete = is_incomplete

    def _keep(self) -> None:
        """Put the baseline on the disk once all that differs from the one before is told."""
        from agent.scan.baseline import Baseline, encode_baseline  # noqa: PLC0415

        began_s = time.monotonic()
        if self._unsaved and began_s >= self._next_save_s and self._context.settle():
            baseline = Baseline(since=self._since, places=self._places, entries=self._tree.entries)
            self._context.save(_BASELINE, encode_baseline(baseline))
            self._unsaved = False
            now = time.monotonic()
            self._next_save_s = now + _SAVE_SHARE * (now - began_s)
        state = {
            "since": _time_text(self._since),
            "compared": _time_text(self._compared),
            "entries": len(self._tree.entries),
            "directories": self._notifier.count,
            "complete": not self._is_incomplete,
            "saved": not self._unsaved,
        }
        if state != self._told and began_s >= self._next_tell_s:
            self._context.tell(state)
            self._told, self._next_tell_s = state, began_s + 1.0

    def _note_dirty(self, directory: bytes, name: bytes) -> None:
        self._last_s = time.monotonic()
        if not self._dirty:
            self._first_s = self._last_s
        self._dirty.setdefault(directory, set()).add(name)

    def _wait(self, next_scan_s: float) -> None:
        """Wait until something changed, or something is due; note what changed."""
        now = time.monotonic()
        if self._dirty:
            due_s = min(self._last_s + self._settle_s, self._first_s + _MAX_SETTLES * self._settle_s)
        else:
            # What is told together is told after a minute at most; only then the baseline is kept.
            is_all_told = not self._unsaved and self._told.get("saved", False)
            due_s = next_scan_s if is_all_told else now + _AGAIN_S
        timeout_s = max(0.0, min(due_s, next_scan_s) - now)
        if not self._context.wait([self._notifier.descriptor], timeout_s):
            return
        for change in self._notifier.read():
            if change.directory is None:
                self._is_lost = True
                continue
            self._note_dirty(change.directory, change.name)

    def _is_settled(self, now: float) -> bool:
        waited = now - self._last_s >= self._settle_s or now - self._first_s >= _MAX_SETTLES * self._settle_s
        return bool(self._dirty) and waited


def _nothing() -> None:
    """A pause that cannot be cancelled: the watch ends with its process."""


def _time_text(seconds: int) -> str:
    from agent.scan.texts import time_text  # noqa: PLC0415

    return time_text(seconds * 1_000_000_000)

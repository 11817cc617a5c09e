"""Tells of programs that start and of the kernel's audit events that the configuration names.

It is persistent: where the agent's configuration has a table `[agent.audit]`, a process of its own listens to
the kernel's audit, by the group that only reads, and to starts of programs, by the proc connector.
It changes no rule of audit and takes nothing from auditd; what auditd's rules leave out is not told. Alerts:
`exec` for a program that a rule names, `audit` for an audit event, `lost` where the kernel had to drop some.
Arguments of commands are never told.

`found` means that it is configured on the endpoint; the record says what it listens to. It is asked as
`mig kaudit`, since `mig audit` reads the server's log. A program that ended too soon is counted only.
"""

import os
import time
from typing import Annotated, Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.watching import Report, WatchContext, watcher_state
from protocol.errors import InvalidInput

ALIASES = ("kaudit",)

EXAMPLES = (
    "mig kaudit -t \"os = 'linux'\"    where programs' starts and audit events are listened to, and how many",
)

PLATFORMS = ("linux",)

PATHS = ()

_TELL_S = 5.0
_OPEN_S = 0.5  # so long an audit event waits for its end, which kernels may leave out


class Params(ModuleParams, frozen=True):
    """Nothing to ask for."""


class Record(ModuleRecord, frozen=True, kw_only=True):
    """The listening of one endpoint."""

    running: Annotated[bool, Meta(description="whether its process runs now")]
    ended: Annotated[int, Meta(description="how often its process has ended since the agent started")]
    reason: Annotated[Optional[str], Meta(description="why it ended last")] = None
    sources: Annotated[
        Optional[Dict[str, str]],
        Meta(description="process_starts and kernel_audit: listening, off, or why not"),
    ] = None
    events: Annotated[
        Optional[Dict[str, int]],
        Meta(
            description="what came since its process started: execs, vanished (ended too soon), audit, lost"
        ),
    ] = None
    reports: Annotated[
        Optional[Dict[str, int]], Meta(description="of these, what a rule named: kinds and how often")
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:  # noqa: ARG001  (every module takes parameters)
    """Yield one record where it is configured."""
    state = watcher_state(context, "audit")
    if state is not None:
        told = state["told"]
        yield Record(
            running=state["running"],
            ended=state["ended"],
            reason=state["reason"] or None,
            sources=told.get("sources"),
            events=told.get("events"),
            reports=told.get("reports"),
        )


def watch(config: Dict[str, Any], context: WatchContext) -> Iterator[Report]:
    """Listen for ever.

    Raises:
        InvalidInput: `unsupported`, where this kernel tells nothing of what is asked for; `bad-config`.

    """
    yield from _Watch(config, context).run()


class _Seen(NamedTuple):
    """What rules are held against."""

    executable: str
    uids: Tuple[str, ...]
    key: str
    types: Tuple[str, ...]


class _Rule:
    """One rule of the configuration; all that it gives must hold."""

    def __init__(self, told: Dict[str, Any]) -> None:
        import re2  # noqa: PLC0415  (only where rules are held against something)

        self.name: str = told["name"]
        self.severity: str = told["severity"]
        self._user: str = told["user"]
        self._key: str = told["key"]
        self._types = frozenset(told["types"])
        try:
            self._executable = re2.compile(told["executable"]) if told["executable"] else None
        except re2.error as error:
            raise InvalidInput("bad-config", f"rule {self.name}: {error}") from None

    def matches(self, seen: _Seen) -> bool:
        """Tell whether it names this."""
        if self._executable is not None and not self._executable.fullmatch(seen.executable):
            return False
        if self._user and not {self._user, _uid_of(self._user)} & set(seen.uids):
            return False
        if self._key and self._key != seen.key:
            return False
        return not self._types or bool(self._types & set(seen.types))


def _uid_of(name: str) -> str:
    import pwd  # noqa: PLC0415  (not there on every system)

    try:
        return str(pwd.getpwnam(name).pw_uid)
    except (KeyError, ValueError):
        return ""


class _Watch:
    """What is listened to, and what is told of it."""

    def __init__(self, config: Dict[str, Any], context: WatchContext) -> None:
        from agent.platform.audit_records import Assembler  # noqa: PLC0415  (the client needs none of these)
        from agent.platform.netlink import AuditListener, ProcListener  # noqa: PLC0415

        self._context = context
        self._rules = [_Rule(rule) for rule in config["rules"]]
        self._sources: Dict[str, str] = {}
        self._execs = _listen(self._sources, "process_starts", config, ProcListener)
        self._audit = _listen(self._sources, "kernel_audit", config, AuditListener)
        if self._execs is None and self._audit is None:
            raise InvalidInput(
                "unsupported", "; ".join(f"{one}: {why}" for one, why in self._sources.items())
            )
        self._assembler = Assembler()
        self._events = {"execs": 0, "vanished": 0, "audit": 0, "lost": 0}
        self._next_tell_s = 0.0

    def run(self) -> Iterator[Report]:
        """Listen."""
        listeners = [one for one in (self._execs, self._audit) if one is not None]
        descriptors = [one.descriptor for one in listeners]
        while True:
            self._tell()
            ready = self._context.wait(descriptors, _OPEN_S if self._assembler.is_open else _TELL_S)
            if self._execs is not None and self._execs.descriptor in ready:
                for started in self._execs.read():
                    yield from self._on_exec(started.pid)
            if self._audit is not None and self._audit.descriptor in ready:
                for record in self._audit.read():
                    for event in self._assembler.take(record):
                        yield from self._on_audit(event)
            elif not ready:
                for event in self._assembler.flush():
                    yield from self._on_audit(event)
            lost = sum(one.lost for one in listeners)
            if lost > self._events["lost"]:
                self._events["lost"] = lost
                yield Report("lost", "medium", "", {"times": lost})

    def _tell(self) -> None:
        now = time.monotonic()
        if now >= self._next_tell_s:
            self._next_tell_s = now + 1.0
            self._context.tell({"sources": self._sources, "events": self._events})

    def _on_exec(self, pid: int) -> Iterator[Report]:
        self._events["execs"] += 1
        facts = read_process(pid)
        if facts is None:
            self._events["vanished"] += 1
            return
        seen = _Seen(facts["executable"], (str(facts["uid"]),), "", ())
        for rule in self._matching(seen):
            record = {"rule": rule.name, **facts}
            yield Report("exec", rule.severity, f"{facts['executable']} ({rule.name})", record)

    def _on_audit(self, event: Any) -> Iterator[Report]:
        self._events["audit"] += 1
        fields = event.fields
        uids = tuple(fields[name] for name in ("auid", "uid", "euid") if name in fields)
        seen = _Seen(fields.get("exe", ""), uids, fields.get("key", ""), event.types)
        for rule in self._matching(seen):
            yield Report(
                "audit", rule.severity, f"{seen.executable} ({rule.name})", _record(rule.name, event)
            )

    def _matching(self, seen: _Seen) -> List[_Rule]:
        return [rule for rule in self._rules if rule.matches(seen)]


def _listen(sources: Dict[str, str], name: str, config: Dict[str, Any], make: Any) -> Any:
    """Return a listener; None where it is off or cannot be, which `sources` then says."""
    if not config[name]:
        sources[name] = "off"
        return None
    try:
        listener = make()
    except InvalidInput as error:
        sources[name] = error.detail
        return None
    sources[name] = "listening"
    return listener


def read_process(pid: int, proc: str = "/proc") -> Optional[Dict[str, Any]]:
    """Return what a process runs, and as whom; None where it is gone, or is the kernel's own.

    Sources: proc_pid_exe(5), proc_pid_status(5).
    """
    from agent.scan.texts import path_base64, path_text  # noqa: PLC0415

    try:
        executable = os.readlink(f"{proc}/{pid}/exe".encode())  # noqa: PTH115  (bytes)
        with open(f"{proc}/{pid}/status", "rb") as stream:  # noqa: PTH123  (called for every start)
            lines = dict(line.partition(b":")[::2] for line in stream.read(4096).splitlines())
        ppid, uid = int(lines[b"PPid"]), int(lines[b"Uid"].split()[0])
    except (OSError, KeyError, ValueError, IndexError):
        return None
    facts: Dict[str, Any] = {"executable": path_text(executable)}
    escaped = path_base64(executable)
    if escaped:
        facts["executable_b64"] = escaped
    name = lines.get(b"Name", b"").strip().decode("utf-8", "backslashreplace")
    return {**facts, "process": name, "pid": pid, "ppid": ppid, "uid": uid}


def _record(rule: str, event: Any) -> Dict[str, Any]:
    from agent.scan.texts import time_text  # noqa: PLC0415

    fields = event.fields
    told: Dict[str, Any] = {
        "rule": rule,
        "types": list(event.types),
        "serial": event.serial,
        "time": time_text(event.time_ms * 1_000_000),
    }
    for name, field in (("executable", "exe"), ("process", "comm"), ("key", "key"), ("account", "acct")):
        if fields.get(field):
            told[name] = fields[field]
    for name in ("pid", "ppid", "uid", "euid", "auid", "syscall"):
        if fields.get(name, "").isdigit():
            told[name] = int(fields[name])
    for name in ("success", "res"):
        if fields.get(name):
            told["success"] = fields[name] in {"yes", "success", "1"}
    return told

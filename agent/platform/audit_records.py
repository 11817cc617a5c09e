"""Reads the kernel's audit records: which belong together, and the few fields that are told of them.

Source: the audit record fields dictionary, https://github.com/linux-audit/audit-documentation. A record is
`audit(SECONDS.MILLIS:SERIAL): name=value ...`; a value that somebody else chose stands in quotes, or in
hexadecimal digits where it holds anything that could be misread. Arguments of commands (EXECVE, PROCTITLE)
are not read: they hold secrets.
"""

import re
from collections import OrderedDict
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.platform.netlink import AuditRecord

# linux/audit.h; records of other types have their number for a name.
TYPES = {
    1006: "LOGIN",
    1100: "USER_AUTH",
    1101: "USER_ACCT",
    1103: "CRED_ACQ",
    1104: "CRED_DISP",
    1105: "USER_START",
    1106: "USER_END",
    1107: "USER_AVC",
    1108: "USER_CHAUTHTOK",
    1109: "USER_ERR",
    1112: "USER_LOGIN",
    1113: "USER_LOGOUT",
    1114: "ADD_USER",
    1115: "DEL_USER",
    1116: "ADD_GROUP",
    1117: "DEL_GROUP",
    1123: "USER_CMD",
    1130: "SERVICE_START",
    1131: "SERVICE_STOP",
    1300: "SYSCALL",
    1305: "CONFIG_CHANGE",
    1309: "EXECVE",
    1319: "TTY",
    1320: "EOE",
    1326: "SECCOMP",
    1327: "PROCTITLE",
    1400: "AVC",
    1700: "ANOM_PROMISCUOUS",
    1701: "ANOM_ABEND",
}
_EOE = 1320
_SECRET = frozenset({"EXECVE", "PROCTITLE", "TTY", "USER_CMD"})
_HEAD = re.compile(rb"audit\((\d{1,12})\.(\d{1,3}):(\d{1,20})\): ?")
_FIELD = re.compile(rb"([a-z][a-z0-9_-]{0,31})=(\"[^\"]*\"|'[^']*'|[^ ,']*)")
_HEX = re.compile(r"(?:[0-9A-F]{2})+\Z")
_WANTED = frozenset(
    {"pid", "ppid", "auid", "uid", "euid", "syscall", "success", "res", "exe", "comm", "key", "acct"}
)
_TEXTS = frozenset({"exe", "comm", "key", "acct"})
_MAX_VALUE = 4096
_MAX_OPEN = 256
_MAX_RECORDS = 64


class AuditEvent(NamedTuple):
    """Records that belong together: their types, and of their fields the first of each name."""

    serial: int
    time_ms: int
    types: Tuple[str, ...]
    fields: Dict[str, str]


def type_name(number: int) -> str:
    """Return the name of a record's type."""
    return TYPES.get(number, str(number))


def parse_fields(text: bytes) -> Dict[str, str]:
    """Return the fields of a record that are told; what user space says stands inside `msg='...'`."""
    fields: Dict[str, str] = {}
    for name, value in _FIELD.findall(text.replace(b"msg='", b" ")[:16384]):
        plain = name.decode("ascii")
        if plain in _WANTED and plain not in fields:
            fields[plain] = _read_value(plain, value[:_MAX_VALUE])
    return fields


def _read_value(name: str, value: bytes) -> str:
    if value[:1] in (b'"', b"'"):
        return value[1:-1].decode("utf-8", "backslashreplace")
    text = value.decode("utf-8", "backslashreplace")
    if name in _TEXTS and _HEX.match(text):
        return bytes.fromhex(text).decode("utf-8", "backslashreplace")
    return "" if text in {"(null)", "?"} else text


class Assembler:
    """Puts records together to events: by their serial, until the event's end or as soon as others follow."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, List[Tuple[int, bytes, int]]] = OrderedDict()

    def take(self, record: AuditRecord) -> Iterator[AuditEvent]:
        """Take one record; yield the events that are whole by it."""
        head = _HEAD.match(record.text)
        if head is None:
            return
        seconds, millis, serial = (int(group) for group in head.groups())
        known = self._open.setdefault(serial, [])
        if record.type != _EOE and len(known) < _MAX_RECORDS:
            known.append((record.type, record.text[head.end() :], seconds * 1000 + millis))
        # An event of user space is one record, without an end.
        if record.type == _EOE or record.type < 1300:  # noqa: PLR2004  (AUDIT_FIRST_KERN_EVENT)
            yield from self._close(serial)
        while len(self._open) > _MAX_OPEN:
            yield from self._close(next(iter(self._open)))

    def flush(self) -> Iterator[AuditEvent]:
        """Yield what is open still: nothing more has come for a while."""
        for serial in list(self._open):
            yield from self._close(serial)

    @property
    def is_open(self) -> bool:
        """Whether an event waits for its end."""
        return bool(self._open)

    def _close(self, serial: int) -> Iterator[AuditEvent]:
        event = _assemble(serial, self._open.pop(serial, []))
        if event is not None:
            yield event


def _assemble(serial: int, records: List[Tuple[int, bytes, int]]) -> Optional[AuditEvent]:
    if not records:
        return None
    fields: Dict[str, str] = {}
    types = tuple(dict.fromkeys(type_name(kind) for kind, _, _ in records))
    for kind, text, _ in records:
        if type_name(kind) not in _SECRET:
            for name, value in parse_fields(text).items():
                fields.setdefault(name, value)
    return AuditEvent(serial, records[0][2], types, fields)

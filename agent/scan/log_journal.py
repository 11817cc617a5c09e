"""Which entries of a journal's file are wanted, by unit: how many, and when the first and last were received.

A message is matched once, however many entries share it, and most entries are passed over by the place of
their message alone.
"""

from typing import Callable, Dict, Optional, Sequence, Tuple

from agent.platform.journal_file import Data, Entry, JournalFile
from agent.scan.log_question import Question, Tally, Values, value_text

_UNIT, _IDENTIFIER, _MESSAGE, _PRIORITY = "_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER", "MESSAGE", "PRIORITY"
# Units told apart in one file; entries of others are counted together.
_MAX_GROUPS = 1000
# Fields that are held of one file; those of more are not looked at, which is said.
_MAX_HELD = 1_000_000
# Later than that is no time: it does not fit into 64 bits of nanoseconds.
_MAX_US = 2**63 // 1000

Group = Tuple[Optional[str], Optional[str]]


class JournalLook:
    """Looks at one file of a journal; `groups` are by unit or, without one, by what the program calls itself.

    Raises:
        NotAJournal: it is none.

    """

    def __init__(self, question: Question, descriptor: int, check: Callable[[], None]) -> None:
        self.groups: Dict[Group, Tally] = {}
        self.entries_seen = 0
        self._question = question
        self._check = check
        captured = question.captures.names
        self._fields = tuple(name for name in question.fields if name not in captured)
        names = dict.fromkeys((_MESSAGE, _UNIT, _IDENTIFIER, _PRIORITY, *self._fields))
        self.file = JournalFile(descriptor, tuple(names))
        # By the name of a field: its values, by where they stand. Of messages those that match.
        self._held: Dict[str, Dict[int, bytes]] = {name: {} for name in names}
        self._left = _MAX_HELD

    def run(self) -> None:
        """Look at all of it."""
        for one in self.file.read():
            if isinstance(one, Data):
                self._check()
                self._keep(one)
            else:
                self.entries_seen += 1
                self._judge(one)
        if self._left < 0:
            self.file.problems.append(f"has more than {_MAX_HELD} different fields: not all were looked at")
        missing = self.file.entries_stated - self.entries_seen
        if missing > 0:
            self.file.problems.append(f"{missing} of its entries were not found")

    def _keep(self, data: Data) -> None:
        name, _, value = data.text.partition(b"=")
        field = name.decode("ascii", "replace")
        if field == _MESSAGE and not self._question.messages.admits(value):
            return
        self._left -= 1
        if self._left >= 0:
            needs_whole = field == _MESSAGE and bool(self._question.captures.names)
            self._held[field][data.offset] = value if needs_whole else value[:1024]

    def _judge(self, entry: Entry) -> None:
        question = self._question
        messages = self._held[_MESSAGE]
        if not question.messages.is_open and messages.keys().isdisjoint(entry.items):
            return
        self._check()
        time_ns = entry.realtime_us * 1000 if entry.realtime_us < _MAX_US else None
        if time_ns is not None and not question.window.holds(time_ns):
            return
        unit, identifier = self._value(_UNIT, entry.items), self._value(_IDENTIFIER, entry.items)
        if not (question.units.is_open or question.units.admits(unit or b"")):
            return
        if not (question.identifiers.is_open or question.identifiers.admits(identifier or b"")):
            return
        if question.max_priority is not None and not self._is_urgent(entry.items, question.max_priority):
            return
        group: Group = (
            None if unit is None else value_text(unit),
            None if identifier is None or unit is not None else value_text(identifier),
        )
        if group not in self.groups and len(self.groups) >= _MAX_GROUPS:
            group = (None, None)
        self.groups.setdefault(group, Tally(question.fields)).add(time_ns, self._values(entry.items))

    def _is_urgent(self, items: Sequence[int], most: int) -> bool:
        priority = self._value(_PRIORITY, items)
        return priority is not None and priority.isdigit() and int(priority[:3]) <= most

    def _value(self, field: str, items: Sequence[int]) -> Optional[bytes]:
        held = self._held[field]
        for item in items:
            if item in held:
                return held[item]
        return None

    def _values(self, items: Sequence[int]) -> Values:
        if not self._question.fields:
            return ()
        captures = self._question.captures
        message = self._value(_MESSAGE, items) if captures.names else None
        held = captures.of(message) if message is not None else {}
        found = [
            held.get(name) if name in captures.names else self._value(name, items)
            for name in self._question.fields
        ]
        return tuple(None if value is None else value_text(value) for value in found)

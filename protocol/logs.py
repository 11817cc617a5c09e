"""How a log line looks, of agent and server alike: `key=value`, ids as fields, never parameters or answers.

Only the form is here; where lines go is said by whoever starts a program. Standard library only.
"""

import json
import logging
import re
from datetime import datetime, timezone
from typing import Dict

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+-]+\Z")


class KeyValueFormatter(logging.Formatter):
    """Formats `time=… level=… logger=… msg="…"` and whatever `extra` a record carries.

    What is not a plain word is quoted as JSON, so no value can begin a line or a field of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, or several where there is a traceback."""
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields: Dict[str, object] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        fields.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        line = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _quoted(text: str) -> str:
    return text if _PLAIN.match(text) else json.dumps(text)

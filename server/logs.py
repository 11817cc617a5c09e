"""Structured logs: one line per event on stderr, `key=value`, ids as fields, never parameters or answers."""

import json
import logging
import re
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+-]+\Z")


class KeyValueFormatter(logging.Formatter):
    """Formats `time=… level=… logger=… msg="…"` and whatever `extra` a record carries.

    What is not a plain word is quoted as JSON, so no value can begin a line or a field of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, or several where there is a traceback."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, object] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _quoted(text: str) -> str:
    return text if _PLAIN.match(text) else json.dumps(text)


def set_up_logs(level: int = logging.INFO) -> None:
    """Send this process's logs to stderr; libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("server").setLevel(level)
    # pika logs each failed attempt several times, with tracebacks; the relay says it once.
    logging.getLogger("pika").setLevel(logging.CRITICAL)

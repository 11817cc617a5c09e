"""Where the server's logs go: one line per event to stderr, in the form of `protocol.logs`."""

import logging
import sys

from protocol.logs import KeyValueFormatter


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

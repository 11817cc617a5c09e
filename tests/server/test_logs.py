import subprocess
import sys

from tests.support.tree import ROOT

_CODE = """
import logging
from server.logs import set_up_logs
set_up_logs()
logging.getLogger("server.relay").info("sent", extra={"agent": "0c1f"})
logging.getLogger("a.library").info("chatter")
logging.getLogger("pika.adapters").error("chatter")
"""


def test_the_servers_lines_go_to_stderr_with_their_fields_and_libraries_keep_quiet() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.endswith(" level=info logger=server.relay msg=sent agent=0c1f")

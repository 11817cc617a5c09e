"""Tests of what the resident process holds. Its whole way is tested with a real broker in `tests/system`."""

import subprocess
import sys

from tests.support.platform import ROOT


def test_the_resident_process_loads_no_module_and_nothing_heavy() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import agent.runtime.start
heavy = {{"msgspec", "pgpy", "psutil", "re2", "xxhash", "asyncio", "agent.modules.file", "agent.execute"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""A clock of its own for one process: the time of day that server and agent hand to all their parts, moved.

Only the time of day moves; what is monotonic goes on, as with a real clock that is set. libfaketime was tried
for unmodified programs: a Python whose clock is behind fails in `time.sleep` (EINVAL of clock_nanosleep(2)).
"""

from pathlib import Path

_CODE = """
def _move():
    from datetime import datetime, timedelta, timezone
    import {module} as module
    def moved():
        with open({file!r}) as told:
            return datetime.now(timezone.utc) + timedelta(seconds=int(told.read()))
    assert callable(module.utc_now)
    module.utc_now = moved
_move()
"""


class MovedClock:
    """One process's clock, as the code that it runs first makes it; `move` takes effect at once."""

    def __init__(self, file: Path, module: str) -> None:
        """Keep the clock in a file; `module` has the `utc_now` that the process takes its time from."""
        self._file = file
        self.prologue = _CODE.format(module=module, file=str(file))
        self.move(0)

    def move(self, seconds: int) -> None:
        """Have the process's clock differ by so much from this machine's."""
        partial = self._file.with_name(f"{self._file.name}.new")
        partial.write_text(str(seconds))
        partial.replace(self._file)

"""How many files this process has open."""

import gc
from pathlib import Path


def open_descriptors() -> int:
    """Return how many descriptors are open, this look at them included."""
    return len(list(Path("/proc/self/fd").iterdir()))


def lasting_descriptors() -> int:
    """Return how many are open once those are closed that only garbage holds, of other tests too."""
    gc.collect()
    return open_descriptors()

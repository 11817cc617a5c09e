"""Gives memory that the allocator keeps for later back to the system."""

import ctypes
import gc


def give_back_free_memory() -> None:
    """Return free pages of the heap to the kernel (malloc_trim(3), glibc only; elsewhere nothing happens).

    Compiling Python source at start leaves some 5 MiB of free pages behind that nothing needs again.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

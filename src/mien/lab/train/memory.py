"""The memory of a training on a processor: kept, once the system has given it.

A step frees and takes the same large tensors again. By default the C library hands each of them back to the system and
gets fresh pages, which the system clears and maps one by one: a fifth to a third of the time of a step.
"""

import ctypes
import sys

# What mallopt of the GNU C library calls them (malloc.h), and their values: large blocks come from the heap as small
# ones do, and its end stays where it is.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER, _AHEAD = 2**31 - 1, 2**28  # bytes


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next allocation. Returns whether the C library can be told so."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library than GNU's
        return False
    told = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _NEVER), mallopt(_M_TOP_PAD, _AHEAD)]
    return all(told)

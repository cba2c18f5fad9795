"""Leave to use the processor's tile registers (AMX), which Linux grants a process that asks for it.

Their contents are large, so the system keeps room for them only for processes that say so; a process that uses them unasked is killed.
What is granted holds for every thread of the process, running or to come, and for its children after a fork; not after an exec.
"""

from __future__ import annotations

import ctypes
import functools
import sys

_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18  # the system call on x86-64, ARCH_REQ_XCOMP_PERM, and the component's number


@functools.cache
def tiles_granted() -> bool:
    """Whether this process may use tile registers: asks the system, once. Only for processors that have them."""
    if not sys.platform.startswith("linux"):
        return False
    return int(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA)) == 0

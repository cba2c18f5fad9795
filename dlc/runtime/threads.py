"""How many threads a kernel may use: as many as torch would, at the time of the call.

A forked child inherits torch's OpenMP pool as a data structure without threads; entering a parallel region on the thread that forked
would wait for them for ever. That thread therefore computes alone in the child; threads started in the child have pools of their own.
"""

from __future__ import annotations

import os
import threading

import torch

_forked: set[int] = set()  # threads of this process whose pool was left behind in its parent


def threads() -> int:
    """Threads for a call made now on this thread."""
    if _forked and threading.get_ident() in _forked:
        return 1
    return torch.get_num_threads()


def _in_child() -> None:
    _forked.clear()
    _forked.add(threading.get_ident())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

"""Modules that are imported when they are first used: ``import dlc`` should cost little beside torch.

A program that only defines kernels, or finds them all in the disk cache, needs no scheduler, no emitter, no tuner and no emulator. Where
one of dlc's own modules is wanted this late, the import also stands under ``TYPE_CHECKING``, so that types and layers are checked as
everywhere else::

    if TYPE_CHECKING:
        from codegen import heuristics
    else:
        heuristics = lazy("codegen.heuristics")
"""

from __future__ import annotations

import importlib
from typing import Any

_made: set[str] = set()  # the names of all modules that stand for themselves somewhere


class Lazy:
    """Stands for a module until one of its attributes is wanted."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"<{self._name}, imported when it is used>"


def lazy(name: str) -> Any:
    """A module that is imported when one of its attributes is first wanted."""
    _made.add(name)
    return Lazy(name)


def load(*packages: str) -> None:
    """Import the modules of some packages that would be imported late, and those that these would: for a process that is about to fork."""
    done: set[str] = set()
    while waiting := {name for name in _made if name.partition(".")[0] in packages} - done:
        for name in sorted(waiting):
            importlib.import_module(name)
        done |= waiting

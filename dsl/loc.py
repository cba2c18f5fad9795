"""Where in the user's program something was written: file, line, text, and the call chain that led there."""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import sys
from dataclasses import dataclass

#: Where frames are not the user's: our packages, and the library modules that call back into them.
_OURS = (
    *(os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep + p + os.sep for p in ("dsl", "codegen", "dlc")),
    functools.__file__, contextlib.__file__,
)
_TORCH = os.path.join("-packages", "torch", "")


@dataclass(frozen=True)
class Loc:
    """A source position in the user's own code (never inside dlc)."""

    file: str
    line: int
    function: str = ""

    @property
    def text(self) -> str:
        """The source line, stripped of its newline; empty when the file cannot be read."""
        return linecache.getline(self.file, self.line).rstrip("\n")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


UNKNOWN = Loc("<unknown>", 0)


def here() -> Loc:
    """The innermost frame of the call stack that is not in dlc's own packages, nor in torch's, which may call on behalf of the user."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS) and _TORCH not in name:
            return Loc(name, frame.f_lineno, frame.f_code.co_name)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return UNKNOWN


def caller_locals() -> dict[str, object]:
    """The local variables of the innermost frame that is not in dlc's own packages."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        if frame.f_back is None:
            return {}
        frame = frame.f_back
    return dict(frame.f_locals)

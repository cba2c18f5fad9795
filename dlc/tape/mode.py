"""Whether operations are remembered for gradients, and in which phase of a training step they are recorded."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from typing import Any

PHASES = ("forward", "backward", "update")


class _Mode(threading.local):
    grad = True
    phase = "forward"
    recording: Any = None  # see dlc/tape/recording.py
    untuned = False  # see dlc/realize/generated.py


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether operations are remembered for gradients in this thread."""
    return mode.grad


class set_grad_enabled:  # noqa: N801  (used like a function)
    """Switch the memory for gradients on or off, at once; as a ``with`` block, until its end."""

    def __init__(self, on: bool) -> None:
        self.before = mode.grad
        mode.grad = bool(on)

    def __enter__(self) -> None:
        """The switch is thrown already."""

    def __exit__(self, *_: object) -> None:
        mode.grad = self.before


class _Switch(ContextDecorator):
    """A switch that is thrown when a block is entered; may be nested and used again."""

    value = False

    def __init__(self) -> None:
        self.stack: list[bool] = []

    def __enter__(self) -> None:
        self.stack.append(mode.grad)
        mode.grad = self.value

    def __exit__(self, *_: object) -> None:
        mode.grad = self.stack.pop()

    def _recreate_cm(self) -> _Switch:
        return type(self)()


class no_grad(_Switch):  # noqa: N801  (used like a function)
    """``with dlc.no_grad():`` or ``@dlc.no_grad()``: operations are not remembered for gradients."""


class enable_grad(_Switch):  # noqa: N801  (used like a function)
    """``with dlc.enable_grad():`` or ``@dlc.enable_grad()``: operations are remembered again, inside of ``no_grad``."""

    value = True


class phase(ContextDecorator):  # noqa: N801  (used like a function)
    """Operations recorded inside belong to a phase of training: ``forward``, ``backward`` or ``update``; launches are counted by it."""

    def __init__(self, name: str) -> None:
        self.name, self.before = name, mode.phase

    def __enter__(self) -> None:
        self.before, mode.phase = mode.phase, self.name

    def __exit__(self, *_: object) -> None:
        mode.phase = self.before

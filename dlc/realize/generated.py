"""Kernels of graphs: compiled once for equal mathematics on arrays that lie alike, whatever plans launch them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from dlc.compiler import Plan, Request
from dlc.realize.counters import counts
from dlc.runtime.device import host_target
from dlc.tape.mode import mode
from dsl.canonical import digest
from dsl.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 4096  # kernels kept
_kernels: dict[tuple[str, tuple[tuple[int, ...], ...], int, bool, bool], Generated] = {}
_lock = threading.RLock()


class Generated:
    """A kernel of a graph.

    Args:
        request: what it is compiled from.

    Attributes:
        launcher: its code as it stands; every plan that launches the kernel asks for it anew.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.launcher = Plan(request).launcher()
        counts.compiled += 1

    def renew(self) -> None:
        """Compile again: by the record that tuning has left meanwhile."""
        self.launcher = Plan(self.request).launcher()


def generated(program: Program, strides: Sequence[tuple[int, ...] | None], reproducible: bool) -> Generated:
    """The kernel of a program; ``strides`` of inputs that are not in row-major order."""
    shapes = tuple(tuple(int(s) for s in t.shape) for t in program.inputs)
    steps = tuple(_row_major(shape) if s is None else tuple(s) for s, shape in zip(strides, shapes))
    key = (digest(program), steps, torch.get_num_threads(), reproducible, mode.untuned)
    with _lock:
        if key not in _kernels:
            if len(_kernels) >= _MOST:
                _kernels.clear()
            decisions: dict[str, object] | None = {} if mode.untuned else None
            _kernels[key] = Generated(Request(program, shapes, steps, host_target(), decisions, reproducible=reproducible))
        return _kernels[key]


@contextmanager
def untuned() -> Iterator[None]:
    """Graphs computed inside run with the default schedules, whatever tuning records lie on this machine."""
    before, mode.untuned = mode.untuned, True
    try:
        yield
    finally:
        mode.untuned = before


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()

"""Memory as the checked interpreter sees it: every access is matched with a buffer, every byte has a history."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
NOBODY, SEVERAL = -1, -2
_ALIGN = 256


@dataclass
class Buffer:
    """One tensor: its bytes, which of them belong to it, and who wrote and read each in the current launch."""

    name: str
    raw: Bytes
    own: Bools  # bytes that are elements; gaps of a strided view are not
    writable: bool
    defined: Bools  # bytes that hold a value
    base: int = 0
    store: Bytes = field(init=False)
    writer: NDArray[np.int32] = field(init=False)
    reader: NDArray[np.int32] = field(init=False)
    atomic: Bools = field(init=False)

    def __post_init__(self) -> None:
        room = np.empty(self.raw.size + 2 * _ALIGN, np.uint8)
        start = -room.ctypes.data % _ALIGN
        self.store = room[start : start + self.raw.size]
        self.store[:] = self.raw
        self.base = self.store.ctypes.data
        self.begin_launch()

    def begin_launch(self) -> None:
        """Forget who touched what: a launch is ordered after the one before it."""
        self.writer = np.full(self.raw.size, NOBODY, np.int32)
        self.reader = np.full(self.raw.size, NOBODY, np.int32)
        self.atomic = np.zeros(self.raw.size, bool)


class Memory:
    """All buffers of a run, and the findings about accesses to them."""

    def __init__(self, buffers: list[Buffer]) -> None:
        self.buffers = buffers
        self.findings: dict[str, None] = {}
        self.program = 0
        self.where = lambda: ""
        self._synchronised: set[int] = set()

    def begin_launch(self) -> None:
        """A new kernel starts; everything before it happened before it."""
        self._synchronised.clear()
        for buffer in self.buffers:
            buffer.begin_launch()

    def synchronise(self) -> None:
        """The current program used an acquiring and releasing atomic: its accesses are ordered by it."""
        self._synchronised.add(self.program)

    def access(self, address: NDArray[np.uint64], size: int, active: Bools, action: str) -> Bools:
        """Check ``size`` bytes at each active address for a ``load``, ``store`` or ``atomic``; returns the lanes that are in bounds."""
        active = active.astype(bool)  # Triton's interpreter gives a mask of scalars as integers
        good = np.zeros(active.shape, bool)
        for buffer in self.buffers:
            lanes = active & (address >= buffer.base) & (address + np.uint64(size) <= buffer.base + buffer.raw.size)
            if not lanes.any():
                continue
            at = (address[lanes] - np.uint64(buffer.base)).astype(np.int64)
            spread = at[:, None] + np.arange(size)
            inside = buffer.own[spread].all(1)
            if not inside.all():
                self._report(f"{action} between the elements of {buffer.name!r}, byte {at[~inside][0]}")
            lanes[lanes] = inside
            good |= lanes
            self._record(buffer, spread[inside].ravel(), action)
        if not good[active].all():
            self._stray(address[active & ~good], size, action)
        return good

    def _stray(self, address: NDArray[np.uint64], size: int, action: str) -> None:
        at = int(address[0])
        near = min(self.buffers, key=lambda b: min(abs(at - b.base), abs(at - b.base - b.raw.size)))
        others = f" (and {address.size - 1} more lanes)" if address.size > 1 else ""
        self._report(f"{action} out of bounds: {size} bytes at byte {at - near.base} of {near.name!r}, which has {near.raw.size}{others}")

    def _record(self, buffer: Buffer, at: NDArray[np.int64], action: str) -> None:
        if action != "store" and not buffer.defined[at].all():
            self._report(f"{action} of {buffer.name!r} before anything was written there")
        if action == "load":
            self._order(buffer, at, buffer.writer, f"program reads {buffer.name!r} where program {{}} wrote in the same launch")
            mine = np.isin(buffer.reader[at], (NOBODY, self.program))
            buffer.reader[at] = np.where(mine, self.program, SEVERAL)
            return
        if not buffer.writable:
            self._report(f"{action} into {buffer.name!r}, which is declared read-only")
        if action == "atomic":
            at = at[~buffer.atomic[at] | (buffer.writer[at] == self.program)]
            buffer.atomic[at] = True
        self._order(buffer, at, buffer.writer, f"two programs write {buffer.name!r}, this one and {{}}")
        self._order(buffer, at, buffer.reader, f"program writes {buffer.name!r} where program {{}} reads in the same launch")
        buffer.writer[at], buffer.defined[at] = self.program, True

    def _order(self, buffer: Buffer, at: NDArray[np.int64], history: NDArray[np.int32], text: str) -> None:
        past = history[at]
        for other in np.unique(past[(past != NOBODY) & (past != self.program)])[:8]:
            if self.program in self._synchronised and int(other) in self._synchronised:
                continue
            self._report(text.format("several" if other == SEVERAL else other))

    def _report(self, text: str) -> None:
        if len(self.findings) < 50:
            self.findings.setdefault(f"{text}; program {self.program}{self.where()}")

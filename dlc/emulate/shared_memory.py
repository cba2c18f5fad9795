"""Shared memory of one block: bytes, and enough history to see races, missing waits and missing fences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.clocks import Clock, Clocks
from dlc.emulate.report import Array, Findings

Bools = NDArray[np.bool_]
Rows = NDArray[np.uint8]
Index = NDArray[np.int64]
_PAD = 64


class SharedMemory:
    """History is kept for ``grain`` bytes at a time: the smallest access of the kernel."""

    def __init__(self, size: int, grain: int, warps: int, clocks: Clocks, findings: Findings) -> None:
        self.size, self.grain, self.clocks, self.findings = size, grain, clocks, findings
        room = -(-size // _PAD) * _PAD + _PAD
        count = room // grain
        self.data = np.full(room, 0xFF, np.uint8)
        self.defined = np.zeros(count, bool)
        self.writer = np.zeros(count, np.int16)
        self.written = np.zeros(count, np.int32)  # the writer's time; 0 is before all
        self.read_at = np.zeros((count, warps + 1), np.int32)
        self.arriving = np.zeros(count, bool)  # an asynchronous copy into it is under way
        self.in_use = np.zeros(count, np.int16)  # asynchronous readers under way
        self.unfenced = np.zeros(count, bool)  # written by threads, not yet visible to the asynchronous proxy

    def grains(self, address: Index, size: int) -> Index:
        """History cells of ``size`` bytes at each address."""
        first = address // self.grain
        count = size // self.grain
        return first[:, None] + np.arange(max(count, 1))

    def inside(self, address: Index, size: int, active: Bools, action: str) -> Bools:
        """The active lanes within bounds; the rest are findings."""
        good = active & (address >= 0) & (address + size <= self.size)
        if (address[good] % size).any():
            raise self.findings.stop("alignment", f"shared {action} of {size} bytes at an address not divisible by {size}")
        if not np.array_equal(good, active):
            lane = int(np.argmax(active & ~good))
            text = f"shared {action} of {size} bytes at {int(address[lane])}, the block has {self.size}; thread {lane}"
            self.findings.add("bounds", text)
        return good

    def read(self, address: Index, size: int, active: Bools, warp: Index) -> Rows:
        """``size`` bytes at each active address; lanes that stray read 0xFF bytes."""
        good = self.inside(address, size, active, "load")
        out = np.full((address.size, size), 0xFF, np.uint8)
        at = address[good]
        out[good] = self.data.reshape(-1, size)[at // size]
        cells, agents = self.grains(at, size), warp[good][:, None]
        self.check_read(cells, agents)
        self.read_at[cells, agents] = self.clocks.known[agents, agents]
        return out

    def write(self, address: Index, rows: Rows, active: Bools, warp: Index) -> None:
        """Store each active lane's row."""
        size = rows.shape[1]
        good = self.inside(address, size, active, "store")
        at = address[good]
        cells, agents = self.grains(at, size), warp[good][:, None]
        self.check_write(cells, agents)
        self.data.reshape(-1, size)[at // size] = rows[good]
        self.mark_written(cells, agents)
        self.unfenced[cells] = True

    def check_read(self, cells: Index, agents: Index) -> None:
        """Findings for a read of these cells by these agents (broadcast against each other)."""
        if not self.defined[cells].all():
            self.findings.add("undefined", "shared memory is read where nothing was written")
        if (self.clocks.known[agents, self.writer[cells]] < self.written[cells]).any():
            self.findings.add("race", "shared memory is read without a barrier after another warp's write", "read")
        if self.arriving[cells].any():
            self.findings.add("wait", "shared memory is read while an asynchronous copy into it is under way")

    def check_write(self, cells: Index, agents: Index) -> None:
        """Findings for a write to these cells by these agents."""
        known = self.clocks.known
        if (known[agents, self.writer[cells]] < self.written[cells]).any():
            self.findings.add("race", "shared memory is written without a barrier after another warp's write", "write")
        if (known[agents] < self.read_at[cells]).any():
            self.findings.add("race", "shared memory is written without a barrier after another warp's read", "overwrite")
        if self.in_use[cells].any():
            self.findings.add("wait", "shared memory is overwritten while an asynchronous operation still reads it", "in use")
        if self.arriving[cells].any():
            self.findings.add("wait", "shared memory is written while an asynchronous copy into it is under way", "arriving")

    def mark_written(self, cells: Index, agents: Index) -> None:
        """These agents wrote these cells now."""
        self.defined[cells] = True
        self.writer[cells] = agents
        self.written[cells] = self.clocks.known[agents, agents]

    def begin_copy(self, cells: Index, agents: Index) -> None:
        """An asynchronous copy into these cells starts; its data comes with :meth:`land`."""
        self.check_write(cells, agents)
        self.arriving[cells] = True

    def land(self, offsets: Index, values: Rows, cells: Index, agents: Index) -> None:
        """An asynchronous copy is complete: its bytes are in place, written by these agents now."""
        self.data[offsets] = values
        self.arriving[cells] = False
        self.mark_written(cells, agents)
        self.unfenced[cells] = agents != self.clocks.engine

    def begin_use(self, offsets: Index, warps: Index) -> Index:
        """An asynchronous operation of these warps reads these bytes until :meth:`end_use`; returns its cells."""
        cells = np.unique(offsets // self.grain)
        if cells.size and int(offsets.max()) >= self.size:
            raise self.findings.stop("bounds", f"an asynchronous operation reads shared memory at {int(offsets.max())} of {self.size}")
        known = self.clocks.known[warps].min(0)
        if not self.defined[cells].all():
            self.findings.add("undefined", "an asynchronous operation reads shared memory where nothing was written", "async")
        if (known[self.writer[cells]] < self.written[cells]).any():
            self.findings.add("race", "an asynchronous operation reads shared memory another warp wrote, without a barrier", "async")
        if self.arriving[cells].any():
            self.findings.add("wait", "an asynchronous operation reads shared memory a copy has not filled yet", "async")
        if self.unfenced[cells].any():
            self.findings.add("fence", "an asynchronous operation reads what threads wrote, without fence.proxy.async between")
        self.in_use[cells] += 1
        return cells

    def end_use(self, cells: Index, warps: Index) -> None:
        """The asynchronous operation is done, and these warps know it."""
        self.in_use[cells] -= 1
        self.read_at[cells[:, None], warps] = self.clocks.known[warps, warps]

    def fence(self, warps: Index) -> None:
        """What these warps know to be written becomes visible to asynchronous operations."""
        cells = np.flatnonzero(self.unfenced)
        if cells.size:
            seen = (self.clocks.known[warps][:, self.writer[cells]] >= self.written[cells]).any(0)
            self.unfenced[cells[seen]] = False

    def learn(self, warp: int, published: Clock) -> None:
        """A warp waited for something that published this."""
        self.clocks.acquire(warp, published)

    def bytes_at(self, offsets: Index) -> Array:
        """Raw bytes, without any check."""
        return self.data[offsets]

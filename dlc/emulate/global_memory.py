"""Device memory: tensors at spaced addresses, every access bounds-checked, every block's touch remembered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlc.emulate.report import Array, Findings, Footprint

Bools = NDArray[np.bool_]
Rows = NDArray[np.uint8]
NOBODY, SEVERAL = -1, -2
_FIRST, _GAP, _PAD = 1 << 40, 1 << 20, 64


@dataclass
class Region:
    """One tensor in device memory; history is kept for ``grain`` bytes at a time."""

    name: str
    array: Array
    base: int
    grain: int
    blank: bool
    store: Rows = field(init=False)
    gaps: Bools | None = field(init=False, default=None)  # bytes between the elements of a strided view
    defined: Bools = field(init=False)
    writer: NDArray[np.int32] = field(init=False)
    reader: NDArray[np.int32] = field(init=False)
    atomic: Bools = field(init=False)

    def __post_init__(self) -> None:
        shape, strides = self.array.shape, self.array.strides
        self.size = sum((n - 1) * s for n, s in zip(shape, strides)) + self.array.itemsize if self.array.size else 0
        self.store = np.full(-(-self.size // _PAD) * _PAD + _PAD, 0xFF, np.uint8)
        if not self.blank and self.array.size:
            self._elements(self.store)[...] = np.ascontiguousarray(self.array)[..., None].view(np.uint8).reshape(*shape, -1)
        if not self.array.flags.c_contiguous:
            gaps = np.ones(self.store.size, bool)
            self._elements(gaps)[...] = False
            self.gaps = gaps if gaps[: self.size].any() else None
        self.defined = np.full(self.store.size // self.grain, not self.blank)
        self.forget()

    def _elements(self, store: Array) -> Array:
        """The bytes of every element: a view of the store in the tensor's shape, with one axis more."""
        return np.lib.stride_tricks.as_strided(store, (*self.array.shape, self.array.itemsize), (*self.array.strides, 1))

    def missing(self) -> int:
        """Bytes of the tensor's elements that were never written."""
        holes = np.repeat(~self.defined, self.grain)[: self.size]
        return int(np.count_nonzero(holes if self.gaps is None else holes & ~self.gaps[: self.size]))

    def forget(self) -> None:
        """A new launch: whatever was done before is ordered before it."""
        count = self.store.size // self.grain
        self.writer, self.reader = np.full(count, NOBODY, np.int32), np.full(count, NOBODY, np.int32)
        self.atomic = np.zeros(count, bool)

    def footprint(self) -> Footprint:
        """Distinct bytes touched since the launch began."""
        read, written = (int(np.count_nonzero(h != NOBODY)) * self.grain for h in (self.reader, self.writer))
        return Footprint(self.name, self.size, min(read, self.size), min(written, self.size))

    def result(self) -> Array:
        """The tensor as it stands."""
        if not self.array.size:
            return self.array.copy()
        return np.ascontiguousarray(self._elements(self.store)).view(self.array.dtype)[..., 0]


class GlobalMemory:
    """All regions of a run."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.regions: list[Region] = []
        self.bases = np.zeros(0, np.int64)
        self.block = 0
        self._ordered: set[int] = set()

    def add(self, array: Array, name: str, grain: int = 1, blank: bool = False) -> int:
        """Place a tensor; returns its address."""
        base = self.regions[-1].base + -(-self.regions[-1].size // _GAP) * _GAP + _GAP if self.regions else _FIRST
        self.regions.append(Region(name, array, base, grain, blank))
        self.bases = np.array([r.base for r in self.regions], np.int64)
        return base

    def begin_launch(self) -> None:
        """A new kernel starts."""
        self._ordered.clear()
        for region in self.regions:
            region.forget()

    def synchronise(self) -> None:
        """The current block used an acquiring or releasing atomic, so its accesses may be ordered by it."""
        self._ordered.add(self.block)

    def read(self, address: NDArray[np.int64], size: int, active: Bools, action: str = "load") -> Rows:
        """``size`` bytes at each active address; lanes that stray read 0xFF bytes."""
        out = np.full((address.size, size), 0xFF, np.uint8)
        for region, lanes, at in self._places(address, size, active, action):
            out[lanes] = region.store.reshape(-1, size)[at // size]
            self._note_read(region, at, size)
        return out

    def write(self, address: NDArray[np.int64], rows: Rows, active: Bools) -> None:
        """Store each active lane's row; lanes that stray are dropped."""
        size = rows.shape[1]
        for region, lanes, at in self._places(address, size, active, "store"):
            self._clash(at, rows[lanes])
            region.store.reshape(-1, size)[at // size] = rows[lanes]
            self._note_write(region, at, size, False)

    def note_atomic(self, region: Region, at: NDArray[np.int64], size: int) -> None:
        """Record an atomic update, which orders itself with other atomics."""
        self._note_write(region, at, size, True)

    def places(self, address: NDArray[np.int64], size: int, active: Bools, action: str) -> list[tuple[Region, Bools, NDArray[np.int64]]]:
        """The in-bounds lanes by region, with their offsets; strays are findings."""
        return list(self._places(address, size, active, action))

    def _places(self, address: NDArray[np.int64], size: int, active: Bools, action: str) -> Any:
        if not active.any():
            return
        if (address[active] % size).any():
            raise self.findings.stop("alignment", f"{action} of {size} bytes at an address not divisible by {size}")
        which = np.searchsorted(self.bases, address, "right") - 1
        stray = active.copy()
        for number in np.unique(which[active]):
            if number < 0:
                continue
            region = self.regions[number]
            lanes = active & (which == number) & (address - region.base + size <= region.size)
            if region.gaps is not None:
                lanes[lanes] = ~region.gaps[(address[lanes] - region.base)[:, None] + np.arange(size)].any(1)
            stray &= ~lanes
            if lanes.any():
                yield region, lanes, address[lanes] - region.base
        if stray.any():
            self._report_stray(address, size, stray, action)

    def _report_stray(self, address: NDArray[np.int64], size: int, stray: Bools, action: str) -> None:
        lane = int(np.argmax(stray))
        at = int(address[lane])
        near = min(self.regions, key=lambda r: min(abs(at - r.base), abs(at - r.base - r.size)))
        others = int(stray.sum()) - 1
        more = f" and {others} more" if others else ""
        text = "between the elements: " if near.base <= at < near.base + near.size - size + 1 else ""
        text += f"{action} of {size} bytes at byte {at - near.base} of {near.name!r}, which has {near.size}; thread {lane}{more}"
        self.findings.add("bounds", text, near.name)

    def _grains(self, region: Region, at: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        first = at // region.grain
        count = size // region.grain
        return first if count <= 1 else (first[:, None] + np.arange(count)).ravel()

    def note_bytes(self, region: Region, at: NDArray[np.int64], size: int, write: bool) -> None:
        """Record that whole elements at these offsets were moved by the copy engine."""
        if write:
            self._note_write(region, at, size, False)
        else:
            self._note_read(region, at, size)

    def _note_read(self, region: Region, at: NDArray[np.int64], size: int) -> None:
        grains = self._grains(region, at, size)
        if not region.defined[grains].all():
            self.findings.add("undefined", f"{region.name!r} is read where nothing was written", region.name)
        self._order(region.writer[grains], f"reads {region.name!r} where block {{}} wrote")
        past = region.reader[grains]
        region.reader[grains] = np.where((past == NOBODY) | (past == self.block), self.block, SEVERAL)

    def _note_write(self, region: Region, at: NDArray[np.int64], size: int, atomic: bool) -> None:
        grains = self._grains(region, at, size)
        plain = grains if not atomic else grains[~region.atomic[grains]]
        self._order(region.writer[plain], f"writes {region.name!r} where block {{}} wrote")
        self._order(region.reader[plain], f"writes {region.name!r} where block {{}} read")
        region.atomic[grains] = atomic
        region.writer[grains], region.defined[grains] = self.block, True

    def _order(self, past: NDArray[np.int32], text: str) -> None:
        foreign = past[(past != NOBODY) & (past != self.block)]
        if not foreign.size:
            return
        other = int(foreign[0])
        if not (self.block in self._ordered and (other == SEVERAL or other in self._ordered)):
            self.findings.add("conflict", text.format("another" if other == SEVERAL else other), text)

    def _clash(self, at: NDArray[np.int64], rows: Rows) -> None:
        """Lanes of one instruction that store different values at one address: which wins is undefined."""
        ordered = np.argsort(at, kind="stable")
        same = at[ordered][1:] == at[ordered][:-1]
        if same.any() and (rows[ordered][1:][same] != rows[ordered][:-1][same]).any():
            self.findings.add("race", "threads of one instruction store different values at one address", "clash")

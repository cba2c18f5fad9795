"""The memory of large results and of scratch: blocks of huge pages, kept when they are freed and used again.

Writing into newly mapped memory costs several times the writing itself, because the system must clear and map every page. A block
that a result no longer needs therefore stays here, up to a bound: :func:`trim` gives everything unused back at once, ``DLC_MEMORY`` sets
the bound, and what lies here beyond a small part is marked so that the system may take it under pressure without asking.

What was given back last is taken first, in machine code without a lock (:mod:`dlc.hand`), up to :data:`_HOT` bytes; the rest is kept in
order here.

Small results (below :data:`THRESHOLD` bytes) are torch's own; there the C library keeps memory warm as well.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dlc.config import settings
from dlc.hand import Hand, forget

#: Bytes from which a result lies in a block of this pool; measured: below it a fresh allocation costs no more than taking a block.
THRESHOLD = 2 << 20

PAGE, HUGE = 4096, 2 << 20  # bytes
_HOT = 256 << 20  # cached bytes up to which blocks are held firmly; beyond it the system may reclaim them
_SCARCE = 8  # a new block first gives back what is cached when less than this share of the machine's memory is available


@dataclass(frozen=True)
class Stats:
    """What the pool holds, in bytes, and what it did.

    Attributes:
        in_use: of blocks that results and running kernels hold.
        cached: of blocks that wait to be used again.
        limit: the bound of ``cached``.
        peak: the most that ``in_use`` and ``cached`` ever were together.
        reused, mapped, returned: how often a block was used again, newly mapped, given back to the system.
    """

    in_use: int
    cached: int
    limit: int
    peak: int
    reused: int
    mapped: int
    returned: int


class Block:
    """A piece of memory: ``size`` bytes from ``address``, on a line of 64 bytes; ``record`` is what :mod:`dlc.hand` knows it by."""

    __slots__ = ("__weakref__", "address", "lent", "map", "offset", "record", "size")

    def __init__(self, size: int, colour: int) -> None:
        """Map it. Blocks start at different offsets in their pages, or streams of several would meet in the same cache sets."""
        self.size, self.lent, self.record = size, False, 0
        self.map = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self.map.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                pass  # a system without huge pages: ordinary ones do
        self.offset = colour * 832 % PAGE
        self.address = torch.frombuffer(self.map, dtype=torch.uint8, count=1).data_ptr() + self.offset

    def fill(self, byte: int) -> None:
        """Overwrite all of it with one byte."""
        torch.frombuffer(self.map, dtype=torch.uint8).fill_(byte)

    def lend(self) -> None:
        """Let the system take the contents when it is short of memory, until they are written again."""
        self.lent = True
        if hasattr(mmap, "MADV_FREE"):
            try:
                self.map.madvise(mmap.MADV_FREE)
            except OSError:
                pass


class Pool:
    """Blocks by size; safe from any thread, from finalizers, and in a forked child. Once used it stays to the end of the process."""

    def __init__(self) -> None:
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._blocks: dict[int, Block] = {}  # every block mapped, by its record
        self._free: dict[int, list[Block]] = {}
        self._returned: deque[Block] = deque()  # given back, not yet sorted in: a finalizer may run while the lock is held
        self._owners: dict[int, weakref.ref[memoryview]] = {}
        self._limit: int | None = None
        self._in_use = self._cached = self._lent = self._peak = self._reused = self._mapped = self._unmapped = 0  # blocks at hand: in use

    @functools.cached_property
    def hand(self) -> Hand:
        """The blocks given back last."""
        with self._making:
            made: Hand = vars(self).get("hand") or Hand(self._over)
            made.bound(min(self.limit(), _HOT))
            return vars(self).setdefault("hand", made)

    def take(self, size: int) -> Block:
        """A block of at least ``size`` bytes; its contents are arbitrary.

        Raises:
            MemoryError: the machine has no memory left.
        """
        rounded = round_up(size)
        record = self.hand.take(class_of(rounded))
        return self._blocks[record] if record else self._take(rounded)

    def _take(self, rounded: int) -> Block:
        """A block of just so many bytes, when none is at hand."""
        with self._lock:
            self._sort_in()
            kept = self._free.get(rounded)
            block = kept.pop() if kept else None
            if block is not None:
                self._uncache(block)
                self._reused += 1
            else:
                block = self._map(rounded)
            self._in_use += rounded
            self._peak = max(self._peak, self._in_use + self._cached)
            self._balance()
        return block

    def give(self, block: Block) -> None:
        """Take a block back."""
        self.hand.give(block.record)

    def _over(self, record: int) -> None:
        """Take back a block that there is no room for at hand."""
        self._returned.append(self._blocks[record])
        if self._lock.acquire(blocking=False):
            try:
                self._put_away()
            finally:
                self._lock.release()

    def tensor(self, shape: Sequence[int], dtype: torch.dtype, bytes: int) -> torch.Tensor:  # noqa: A002 (the word of the trade)
        """A contiguous tensor in a block of its own, which comes back when the tensor's memory is freed.

        Raises:
            MemoryError: the machine has no memory left.
        """
        block = self.take(bytes)
        made = self.hand.wrap(block.record, tuple(shape), dtype)
        if made is not None:
            return made
        view = memoryview(block.map)
        key = id(block)
        self._owners[key] = weakref.ref(view, lambda _: self._freed(key, block))
        flat = torch.frombuffer(view, dtype=dtype, offset=block.offset, count=bytes // dtype.itemsize)
        return flat.resize_(shape)

    def trim(self, keep: int = 0) -> int:
        """Give unused blocks back to the system until at most ``keep`` bytes are cached; returns the bytes given back."""
        with self._lock:
            self._put_away()
            return self._shrink(keep)

    def stats(self) -> Stats:
        """What the pool holds."""
        hand = self.hand
        with self._lock:
            self._sort_in()
            return Stats(self._in_use - hand.kept, self._cached + hand.kept, self.limit(), self._peak, self._reused + hand.taken,
                         self._mapped, self._unmapped)

    def limit(self) -> int:
        """The most bytes that may wait here unused."""
        if self._limit is None:
            wanted = settings().memory
            self._limit = wanted if wanted is not None else physical() // 8
        return self._limit

    def forked(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock, self._making = threading.Lock(), threading.Lock()

    def _freed(self, key: int, block: Block) -> None:
        self._owners.pop(key, None)
        self.give(block)

    def _map(self, size: int) -> Block:
        if (self._cached or self.hand.kept) and available() < physical() // _SCARCE:
            self._put_away()
            self._shrink(0)
        self._mapped += 1
        try:
            block = Block(size, self._mapped)
        except (OSError, MemoryError):
            self._put_away()
            self._shrink(0)
            try:
                block = Block(size, self._mapped)
            except OSError as e:
                raise MemoryError(f"cannot map {size} bytes: {e.strerror}") from e
        block.record = self.hand.record(block.address, size, class_of(size))
        self._blocks[block.record] = block
        return block

    def _put_away(self) -> None:
        """Sort in the blocks at hand, too."""
        at_hand = [self._blocks[record] for record in self.hand.all()]
        self._returned.extendleft(reversed(at_hand))
        self._sort_in()

    def _balance(self) -> None:
        """Say how many bytes may be at hand: what is cached here and there keeps to the bounds."""
        self.hand.bound(max(0, min(_HOT - (self._cached - self._lent), self.limit() - self._cached)))

    def _sort_in(self) -> None:
        """Make blocks that came back available; those beyond the bound go to the system, the least recently used sizes first."""
        while self._returned:
            block = self._returned.popleft()
            self._in_use -= block.size
            self._free[block.size] = [*self._free.pop(block.size, []), block]  # the size last used stands last
            self._cached += block.size
            if self._cached > self.limit():
                self._shrink(self.limit())
            elif self._cached - self._lent > _HOT:
                self._lend()
        self._balance()

    def _lend(self) -> None:
        """Lend blocks until no more than ``_HOT`` bytes are held firmly: of the sizes least recently used, not what is soon used again."""
        for block in (b for blocks in self._free.values() for b in blocks if not b.lent):
            if self._cached - self._lent <= _HOT:
                return
            block.lend()
            self._lent += block.size

    def _uncache(self, block: Block) -> None:
        """Count a block as no longer cached."""
        self._cached -= block.size
        if block.lent:
            self._lent -= block.size
            block.lent = False

    def _shrink(self, keep: int) -> int:
        before = self._cached
        for size in list(self._free):
            blocks = self._free[size]
            while blocks and self._cached > keep:
                block = blocks.pop(0)
                self._uncache(block)
                del self._blocks[block.record]
                forget(block.record)
                block.map.close()
                self._unmapped += 1
            if not blocks:
                del self._free[size]
        self._balance()
        return before - self._cached


def bytes_of(shape: Sequence[int], dtype: torch.dtype) -> int:
    """Bytes of a tensor without gaps."""
    return math.prod(shape) * dtype.itemsize


@functools.lru_cache(4096)
def round_up(size: int) -> int:
    """The size of the block for so many bytes: eight sizes to each power of two, whole pages (huge ones where it has several)."""
    size = max(size, 1)
    step = max(1 << max(size.bit_length() - 4, 0), PAGE if size < HUGE else HUGE)
    return -(-size // step) * step


@functools.lru_cache(4096)
def class_of(rounded: int) -> int:
    """The number of a size that :func:`round_up` gives: below :data:`dlc.hand.CLASSES`, and of no other size."""
    bits = rounded.bit_length()
    return bits * 8 + (rounded >> bits - 4 & 7)


def physical() -> int:
    """Bytes of memory this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available() -> int:
    """Bytes of memory that could be had without taking any from other programs; all there are where the system does not say."""
    try:
        with open("/proc/meminfo", "rb") as f:
            for line in f:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return physical()


pool = Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.forked)


def trim() -> int:
    """Give memory that no result uses back to the system; returns how many bytes that were."""
    return pool.trim()


def stats() -> Stats:
    """What is held in large results and kept for the next ones."""
    return pool.stats()

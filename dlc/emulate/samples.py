"""A small Triton kernel to try the emulator on; nothing in dlc uses it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    """``out[i] = x[i] + y[i]`` for ``i < n``, a block of ``BLOCK`` elements to a program."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n) + tl.load(y + i, mask=i < n), mask=i < n)

"""Tiles stay in registers only where their readers take them whole."""

from __future__ import annotations

import torch

import dlc
from dlc import f64

M, N, K = dlc.dims("M N K")


def test_a_reader_that_steps_through_a_tile_reads_memory(rng):
    @dlc.kernel
    def linear(x: f64[M, K], w: f64[N, K], b: f64[N]):
        return dlc.gelu(dlc.linear(x, w, b))

    args = [torch.from_numpy(rng.standard_normal(s)) for s in ((4, 5), (3, 5), (3,))]
    torch.testing.assert_close(linear(*args), torch.nn.functional.gelu(torch.nn.functional.linear(*args)))

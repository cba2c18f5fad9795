"""Tiles of schedules by hand, cut to the registers."""

from dataclasses import replace

import dlc
from codegen.heuristics.registers import fit_registers
from codegen.target import TARGETS
from dlc import f32
from dsl.placing import place
from dsl.primitives.loops import reorder, set_role, split
from dsl.program import trace
from dsl.stages import build_nest

CPU = replace(next(t for t in TARGETS.values() if t.kind == "cpu"), vector_bits=256, vector_registers=16)


def product(x: f32[64, 40], w: f32[96, 40]):
    """A product."""
    k = dlc.reduce_axis(40)
    return dlc.compute((64, 96), lambda i, j: dlc.sum(x[i, k] * w[j, k], k), name="y")


def tiled(i, j):
    n = build_nest(trace(product))
    n = split(split(split(n, "y", "i", i), "y", "j", j), "y", "k", 8)
    n = reorder(n, "y", ["i.o", "j.o", "k.o", "k.i", "i.i", "j.i"])
    return set_role(set_role(n, "y", "i.i", "unroll"), "y", "j.i", "vectorize")


def test_a_large_tile_becomes_loops_over_small_ones():
    n = fit_registers(tiled(32, 48), CPU)
    assert n["y"].order == ("i.o", "j.o", "i.i.r", "j.i.r", "k.o", "k.i", "i.i.v", "j.i.v")
    sides = {x.name: x.extent.const for x in place(n)["y"].loops if x.tile}
    assert sides["j.i.v"] % 8 == 0 and (sides["j.i.v"] // 8) * sides["i.i.v"] + sides["j.i.v"] // 8 < 16
    assert 32 % sides["i.i.v"] == 0 and 48 % sides["j.i.v"] == 0


def test_a_tile_that_fits_is_left_alone():
    n = tiled(4, 16)
    assert fit_registers(n, CPU) == n

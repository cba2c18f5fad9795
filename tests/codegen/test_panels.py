"""Panels: which constants are kept so, the programs that lay them out and read them, and the code made of those."""

from __future__ import annotations

import numpy as np
import pytest

import dlc
from codegen.heuristics import default_schedule
from codegen.heuristics.panels import Panels, find_panels, in_panels, packer
from codegen.pipelines import make_tile
from codegen.target import by_name
from codegen.tile.text import show
from dlc import bf16, f32
from dsl.check import prove_bounds, verify
from dsl.interp import evaluate
from dsl.stages import build_nest

TARGET = by_name("x86-64-avx2")
M, N, K = dlc.dims("M N K")


@dlc.kernel
def linear(x: f32[M, K], w: f32[N, K], b: f32[N]):
    return dlc.relu(dlc.linear(x, w, b))


@pytest.mark.parametrize(("n", "width"), [(70, 16), (64, 16), (5, 8)])
def test_a_program_in_panels_means_the_same(n: int, width: int) -> None:
    program = linear.program
    own = Panels("w", 0, width, program.inputs[0].shape[0], 4)
    special = program.specialize(dict(zip(program.dims, (6, 9, n))))
    pack, panelled = packer(special.inputs[1], own), in_panels(special, [own])
    for p in (pack, panelled):
        verify(p)
        prove_bounds(p)
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=[int(s) for s in t.shape]).astype(np.float32) for t in special.inputs)
    (packed,) = evaluate(pack, w)
    assert packed.shape == (-(-n // width), 9, width) and np.array_equal(packed[0, :, 0], w[0])
    assert np.count_nonzero(packed) == w.size
    for got, expected in zip(evaluate(panelled, x, packed, b), evaluate(special, x, w, b)):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_panels_are_read_without_copies_or_masks() -> None:
    program = linear.program
    special = program.specialize(dict(zip(program.dims, (32, 256, 200))))
    (own,) = find_panels(build_nest(special), {"w"}, TARGET, {})
    assert (own.name, own.axis, own.fewest) == ("w", 0, 4) and int(own.rows) == 32
    nest = build_nest(in_panels(special, [own]))
    text = show(make_tile(default_schedule(nest, TARGET, {}), {}, "linear", TARGET).program, places=False)
    (load,) = [line for line in text.splitlines() if "load(w" in line]
    assert "mask" not in load and "packed" not in text


def test_what_is_not_kept_in_panels() -> None:
    def found(kernel: dlc.Kernel, target: str, *sizes: int) -> list[str]:
        special = kernel.program.specialize(dict(zip(kernel.program.dims, sizes)))
        return [p.name for p in find_panels(build_nest(special), {"w"}, by_name(target), {})]

    @dlc.kernel
    def brain(x: bf16[M, K], w: bf16[N, K]):
        return dlc.linear(x, w)

    @dlc.kernel
    def scaled(x: f32[M, K], w: f32[N, K], s: f32[K]):
        return dlc.linear(x, w * s)

    @dlc.kernel
    def added(x: f32[M, N], w: f32[M, N]):
        return x + w

    assert found(linear, "x86-64-avx2", 32, 64, 128) == ["w"]
    assert found(linear, "x86-64-avx2", 32, 64, 4) == []  # fewer columns than lanes
    assert found(brain, "x86-64-avx2", 32, 64, 128) == ["w"]
    assert found(brain, "x86-64-avx512-bf16", 32, 64, 128) == []  # its dot wants pairs of terms side by side
    assert found(scaled, "x86-64-avx2", 32, 64, 128) == found(added, "x86-64-avx2", 8, 8) == []

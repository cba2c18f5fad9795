"""A whole loop as a tile axis: split by its likely size where its extent is symbolic."""

from __future__ import annotations

import dlc
from codegen.heuristics.bounded import tile_whole
from dlc import f32
from dsl.dim import Var
from dsl.nest import Nest
from dsl.placing import place
from dsl.stages import build_nest

M, N = dlc.dims("M N")


@dlc.kernel
def sums(x: f32[M, N]):
    return dlc.sum(x, 0)


def _nest(symbolic: bool) -> Nest:
    return build_nest(sums.program.specialize({v: Var(v.name, kind="dim", likely=8) if symbolic else 8 for v in sums.program.dims}))


def test_a_loop_of_symbolic_extent_is_split() -> None:
    nest = _nest(True)
    (stage,) = nest.stages
    spatial, reduced = stage.order
    made, left, axis = tile_whole(nest, stage.name, spatial, "vectorize")
    assert (left, axis) == ([f"{spatial}.o"], f"{spatial}.i")
    assert made[stage.name].order == (f"{spatial}.o", f"{spatial}.i", reduced) and made[stage.name].role(axis) == "vectorize"
    assert place(made)[stage.name].loop(axis).extent == 8


def test_a_loop_of_known_extent_is_the_axis() -> None:
    nest = _nest(False)
    (stage,) = nest.stages
    made, left, axis = tile_whole(nest, stage.name, stage.order[0], "unroll")
    assert (left, axis) == ([], stage.order[0]) and made[stage.name].role(axis) == "unroll"

"""Nests as text."""

import dlc
from dlc import f32
from dsl.nest_text import show_nest
from dsl.primitives.loops import annotate, set_role, split
from dsl.primitives.placement import compute_at
from dsl.primitives.storage import store_as
from dsl.program import trace
from dsl.stages import build_nest


def product(x: f32[7, 10], w: f32[9, 10]):
    """A product and what finishes it."""
    k = dlc.reduce_axis(10)
    y = dlc.compute((7, 9), lambda i, j: dlc.sum(x[i, k] * w[j, k], k), name="y")
    return dlc.compute((7, 9), lambda i, j: y[i, j] + 1.0, name="z")


def test_a_stage_stands_where_it_is_computed():
    n = build_nest(trace(product))
    assert show_nest(n) == """\
y: workspace f32[7, 9]
  for i in 7
    for j in 9
      for k in 10  # reduction
        y[i, j] = sum[k](x[i, k] * w[j, k])
z: result f32[7, 9]
  for i in 7
    for j in 9
      z[i, j] = y[i, j] + 1.0"""
    n = split(n, "z", "i", 4, tail="peel")
    n = set_role(n, "z", "i.o", "parallel")
    n = set_role(compute_at(n, "y", "z", "i.o"), "z", "j", "vectorize")
    n = annotate(annotate(store_as(n, "y", ["j", "i"]), "z", "serial", True), "y", "unroll_by", 2, "k")
    assert show_nest(n) == """\
z: result f32[7, 9], serial
  for i.o in 2  # parallel, tail peel
    y: private f32[4, 9], stored as [j, i]
      for i in 4
        for j in 9
          for k in 10  # reduction, unroll_by 2
            y[i, j] = sum[k](x[i, k] * w[j, k])
    for i.i in 4
      for j in 9  # vectorize
        z[i, j] = y[i, j] + 1.0"""

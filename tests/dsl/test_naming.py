"""What names in a schedule mean."""

import dlc
from dlc import f32
from dsl.naming import Names, runs_in
from dsl.primitives.placement import compute_at
from dsl.program import trace
from dsl.stages import build_nest


def product(x: f32[40, 30], w: f32[20, 30], b: f32[20]):
    """A product and what finishes it."""
    k = dlc.reduce_axis(30)
    y = dlc.compute((40, 20), lambda i, j: dlc.sum(x[i, k] * w[j, k], k), name="y")
    return dlc.compute((40, 20), lambda i, j: dlc.relu(y[i, j] + b[j]), name="z")


def fused():
    return compute_at(build_nest(trace(product)), "y", "z", "")


def test_names():
    n = fused()
    assert Names(n).loop("i") == ("z", "i") and Names(n).loop("k") == ("y", "k") and Names(n, "y").loop("i") == ("y", "i")
    assert Names(n).loop("y:i") == ("y", "i") and Names(n).place("z", "y") == ("z", "") and runs_in(n, n["y"], "z")
    assert Names(n).reader("w", None) == "y"

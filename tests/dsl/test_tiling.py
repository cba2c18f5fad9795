"""Tiles over stages that are computed together, roles that follow, packed copies."""

import dlc
from dlc import f32
from dsl.primitives.placement import compute_at
from dsl.program import trace
from dsl.schedule import Schedule
from dsl.stages import build_nest
from dsl.tiling import follow_tile, starts_over, tile


def product(x: f32[40, 30], w: f32[20, 30], b: f32[20]):
    """A product and what finishes it."""
    k = dlc.reduce_axis(30)
    y = dlc.compute((40, 20), lambda i, j: dlc.sum(x[i, k] * w[j, k], k), name="y")
    return dlc.compute((40, 20), lambda i, j: dlc.relu(y[i, j] + b[j]), name="z")


def fused():
    return compute_at(build_nest(trace(product)), "y", "z", "")


def test_a_tile_spans_stages():
    n = tile(fused(), "z", {"i": 16, "j": 8, "k": 10})
    assert n["z"].order == ("i.o", "j.o", "i.i", "j.i") and n["y"].order == ("k.o", "i", "j", "k.i") and n["y"].attach == ("z", "j.o")


def test_loops_that_are_not_named_stay_in_between():
    n = tile(build_nest(trace(product)), "y", {"i": 16})
    assert n["y"].order == ("i.o", "j", "k", "i.i")


def test_a_second_tile_begins_anew():
    n = tile(tile(fused(), "z", {"i": 16, "j": 8}), "z", {"i": 4, "j": 4, "k": 5})
    assert n["z"].order == ("i.o", "j.o", "i.i", "j.i") and n["y"].order == ("k.o", "i", "j", "k.i") and starts_over(n["z"]) == {"i", "j"}


def test_roles_follow_the_tile():
    n = follow_tile(tile(fused(), "z", {"i": 16, "j": 8}), [("z", "i.i"), ("z", "j.i")], "unroll")
    assert dict(n["y"].roles) == {"i": "unroll", "j": "unroll"}


def test_packed_copies_put_sums_first():
    s = Schedule(fused()).tile(i=16, j=8, k=10).pack("w", at="k.o")
    copy = s.nest["w.packed"]
    assert [str(t) for t in copy.layout] == ["w1", "w0"] and copy.attach == ("y", "k.o")
    s = Schedule(fused()).tile(i=16, j=8, k=10).pack("w", at="k.o", layout=["j // 4", "k", "j % 4"])
    assert [str(t) for t in s.nest["w.packed"].layout] == ["w0 // 4", "w1", "w0 % 4"]

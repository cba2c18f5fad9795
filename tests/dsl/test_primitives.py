"""Every primitive on the nest it is given: what it makes of the loops, and that it changes nothing when it refuses."""

import numpy as np
import pytest

import dlc
from codegen.lower import lower
from codegen.tile.interp import run
from codegen.tile.verify import verify
from dlc import f32, i8, i32, i64
from dsl.algebra import reads
from dsl.errors import ScheduleError
from dsl.interp import evaluate
from dsl.nest import Step
from dsl.nest_text import show_nest
from dsl.primitives.axes import join_axes, part_axis
from dsl.primitives.beside import compute_beside
from dsl.primitives.loops import annotate, fuse, pad, reorder, set_role, split
from dsl.primitives.placement import compute_at, compute_inline, compute_root, inline_where, merge, untile
from dsl.primitives.record import PRIMITIVES, apply
from dsl.primitives.reduction import finish_apart, pad_terms, rfactor
from dsl.primitives.storage import cache_read, cache_write, gather_read, lay_out, part_product, store_as
from dsl.primitives.terms import define_terms
from dsl.program import trace
from dsl.stages import build_nest

RNG = np.random.default_rng(0)


def product(x: f32[7, 10], w: f32[9, 10], b: f32[9]):
    """A product and what finishes it."""
    k = dlc.reduce_axis(10)
    y = dlc.compute((7, 9), lambda i, j: dlc.sum(x[i, k] * w[j, k], k), name="y")
    return dlc.compute((7, 9), lambda i, j: dlc.relu(y[i, j] + b[j]), name="z")


def scaled(x: f32[7, 10], s: f32[10], w: f32[9, 10]):
    """A sum of products of three things."""
    k = dlc.reduce_axis(10)
    return dlc.compute((7, 9), lambda i, j: dlc.sum(x[i, k] * s[k] * dlc.relu(w[j, k]), k), name="y")


def pair(x: f32[6, 5]):
    """Two results over one box."""
    return dlc.compute((6, 5), lambda i, j: dlc.exp(x[i, j]), name="a"), dlc.compute((6, 5), lambda i, j: x[i, j] * 2.0, name="b")


def nest_of(fn):
    return build_nest(trace(fn))


def check(nest, fn):
    """The nest computes what the definition means, every access proved."""
    program = trace(fn)
    tiles = lower(nest, {}, "k")
    verify(tiles)
    arrays = {t.name: RNG.standard_normal([int(n) for n in t.shape]).astype(np.float32) for t in program.inputs}
    got = run(tiles, arrays, {})
    for t, want in zip(nest.program.outputs, evaluate(program, *arrays.values())):
        np.testing.assert_allclose(got[t.name].reshape(want.shape), want, rtol=1e-5, atol=1e-5)
    return nest


def test_split_names_orders_and_roles():
    n = check(split(nest_of(product), "y", "k", 4), product)
    assert n["y"].order == ("i", "j", "k.o", "k.i")
    n = split(set_role(nest_of(product), "z", "i", "parallel"), "z", "i", 2, "a", "b", "peel")
    assert n["z"].order == ("a", "b", "j") and n["z"].role("a") == "parallel"
    check(n, product)


@pytest.mark.parametrize("tail", ["mask", "peel", "pad"])
@pytest.mark.parametrize("loop", ["i", "j", "k"])
def test_tails(loop, tail):
    n = split(nest_of(product), "y", loop, 4, tail=tail)
    check(set_role(n, "y", f"{loop}.i", "unroll"), product)
    check(n, product)


def test_pad_fuse_reorder():
    n = pad(nest_of(product), "y", "i", 4)
    check(split(n, "y", "i.pad", 4, tail="exact"), product)
    n = check(fuse(nest_of(product), "z", "i", "j", "ij"), product)
    assert n["z"].order == ("ij",)
    n = check(reorder(nest_of(product), "y", ["k", "i"]), product)
    assert n["y"].order == ("k", "j", "i")


def test_what_is_computed_at_a_loop_follows_its_parts():
    n = compute_at(nest_of(product), "y", "z", "i")
    assert split(n, "z", "i", 2)["y"].attach == ("z", "i.i")
    n = set_role(split(n, "z", "i", 2, "p", "q"), "z", "j", "vectorize")
    assert fuse(reorder(n, "z", ["p", "q"]), "z", "p", "q", "pq")["y"].attach == ("z", "pq")
    check(n, product)


def test_compute_at_and_root():
    n = check(compute_at(nest_of(product), "y", "z", "i"), product)
    assert compute_root(n, "y")["y"].attach is None
    check(compute_at(nest_of(product), "y", "z", ""), product)


def test_inline_and_merge():
    n = nest_of(product)
    with pytest.raises(ScheduleError):
        compute_inline(n, "y")
    assert [s.name for s in check(merge(nest_of(pair), "a", "b"), pair).stages] == ["a"]


def test_inlining_what_is_chosen_is_inlining_one_after_another():
    def steps(x: f32[7, 10]):
        a = dlc.compute((7, 10), lambda i, j: x[i, j] + 1.0, name="a")
        b = dlc.compute((10, 7), lambda i, j: a[j, i] * a[j, 9 - i], name="b")
        c = dlc.compute((10, 7), lambda i, j: dlc.exp(b[i, j]), name="c")
        k = dlc.reduce_axis(7)
        d = dlc.compute((10,), lambda i: dlc.sum(c[i, k] * a[k, i], k), name="d")
        return dlc.compute((10,), lambda i: d[i] * b[i, 2], name="e")

    seen = []
    n = inline_where(nest_of(steps), lambda s, readers: seen.append((s.name, [c.name for c in readers])) or s.name != "b")
    one_by_one = compute_inline(compute_inline(nest_of(steps), "c"), "a")
    assert seen == [("c", ["d"]), ("b", ["d", "e"]), ("a", ["b", "d"])]
    assert show_nest(check(n, steps)) == show_nest(one_by_one) and n.trace == one_by_one.trace


def test_merging_a_result_with_what_reads_it():
    """The reader has its definition in the place of its own point; other points stand between."""
    def update(p: f32[7], m: f32[7]):
        new = dlc.compute((7,), lambda i: 0.9 * m[i], name="new")
        return dlc.compute((7,), lambda i: p[i] - new[i] * new[i], name="out"), new

    for order in (("new", "out"), ("out", "new")):
        n = check(merge(nest_of(update), *order), update)
        assert len(n.stages) == 1 and not any(s.name == "new" for s in n.stages[1:]) and n.producer(n.stages[0].tensors[0]) is n.stages[0]
        assert all(n.producer(t) is None for t in n.stages[0].sources())

    def turned(m: f32[7]):
        new = dlc.compute((7,), lambda i: 0.9 * m[i], name="new")
        return dlc.compute((7,), lambda i: new[6 - i], name="out"), new

    with pytest.raises(ScheduleError, match="cannot share loops"):
        merge(nest_of(turned), "new", "out")


def every_second(x: f32[10, 15], w: f32[10, 9]):
    """A product that reads every second column of a factor."""
    k = dlc.reduce_axis(10)
    return dlc.compute((7, 9), lambda i, j: dlc.sum(x[k, 2 * i] * w[k, j], k), name="y")


def test_gathered_reads():
    n = nest_of(every_second)
    y = n["y"]
    x = next(r for r in reads(y.body) if r.tensor.name == "x")
    n, copy = gather_read(n, "y", x, "x.read", [y.axes[0], *y.bound])
    assert [int(e) for e in n[copy].tensors[0].shape] == [7, 10] and n.trace[-1].args["axes"] == ["i", "k"]
    check(n, every_second)
    check(compute_at(n, copy, "y", "i"), every_second)
    n = nest_of(every_second)
    x = next(r for r in reads(n["y"].body) if r.tensor.name == "x")
    with pytest.raises(ScheduleError, match="not found by i alone"):
        gather_read(n, "y", x, "x.read", n["y"].axes[:1])


def grouped(x: f32[4, 6, 5], w: f32[12, 5]):
    """A product in groups, finished over all of them, and what reads that."""
    k = dlc.reduce_axis(5)
    y = dlc.compute((2, 4, 6, 4), lambda r, g, i, j: dlc.sum(x[g, i, k] * w[3 * r + j // 2, k], k), name="y")
    z = dlc.compute((2, 6, 16), lambda r, i, f: dlc.relu(y[r, f // 4, i, f % 4]), name="z")
    return dlc.compute((2, 6, 15), lambda r, i, f: z[r, i, f] + z[r, i, f + 1], name="s")


def merged(x: f32[3, 5, 4], w: f32[6, 12]):
    """Heads side by side before a projection."""
    k = dlc.reduce_axis(12)
    return dlc.compute((5, 6), lambda i, j: dlc.sum(x[k // 4, i, k % 4] * w[j, k], k), name="y")


def test_parted_axes():
    n = check(part_axis(nest_of(grouped), "z", "f", 4), grouped)
    assert n["z"].order == ("r", "i", "f_o", "f_i")
    assert "y[r, f_o, i, f_i]" in show_nest(n)
    check(compute_at(reorder(n, "z", ["r", "f_o", "i", "f_i"]), "y", "z", "f_o"), grouped)
    n = check(part_axis(nest_of(grouped), "s", "f", 5), grouped)
    assert [int(e) for e in n.program.outputs[0].shape] == [2, 6, 3, 5]
    check(part_axis(nest_of(grouped), "y", "i", 3), grouped)
    n = check(part_axis(nest_of(merged), "y", "k", 4), merged)
    assert n["y"].order == ("i", "j", "k_o", "k_i") and "x[k_o, i, k_i]" in show_nest(n)
    for stage, axis, size, why in (("z", "f", 5, "no multiple"), ("z", "k", 4, "no such axis"), ("y", "k", 2, "no multiple")):
        with pytest.raises(ScheduleError, match=why):
            part_axis(nest_of(grouped), stage, axis, size)
    with pytest.raises(ScheduleError, match="has a schedule"):
        part_axis(split(nest_of(grouped), "z", "f", 4), "z", "i", 2)


def planes(x: f32[3, 5, 4, 6]):
    """Sums over three axes, finished by a map."""
    a, b, c = dlc.reduce_axis(5, name="a"), dlc.reduce_axis(4, name="b"), dlc.reduce_axis(6, name="c")
    y = dlc.compute((3,), lambda i: dlc.sum(x[i, a, b, c], a, b, c), name="y")
    return dlc.compute((3,), lambda i: y[i] * 2, name="z")


def test_joined_axes():
    first, second, third = nest_of(planes)["y"].order[1:]
    n = check(join_axes(nest_of(planes), "y", second, third), planes)
    joined = f"{second}_{third}"
    assert n["y"].order == ("i", first, joined) and f"{joined} // 6, {joined} % 6" in show_nest(n)
    n = check(join_axes(n, "y", first, joined), planes)
    n = check(rfactor(split(n, "y", n["y"].order[1], 50), "y", f"{n['y'].order[1]}.o")[0], planes)
    check(join_axes(nest_of(planes), "y", third, first), planes)  # any order, where none is needed
    with pytest.raises(ScheduleError, match="not two axes"):
        join_axes(nest_of(planes), "y", "i", first)
    with pytest.raises(ScheduleError, match="has a schedule"):
        join_axes(split(nest_of(planes), "y", first, 2), "y", second, third)


def test_copies():
    n, copy = cache_read(nest_of(product), "y", "x")
    check(n, product)
    n = check(compute_at(n, copy, "y", "i"), product)
    check(lay_out(n, copy, lambda a: (a[1], a[0])), product)
    n, made = cache_write(nest_of(product), "z")
    assert [s.name for s in n.stages] == ["y", made, "z"]
    check(n, product)
    check(store_as(cache_write(nest_of(product), "y")[0], "y.local", ["j", "i"]), product)


def test_rfactor_and_part_product():
    n, part = rfactor(split(nest_of(product), "y", "k", 4), "y", "k.o")
    check(set_role(n, part, "k.o", "parallel"), product)
    n = part_product(nest_of(scaled), "y", [0, 1], [2], [["i", "k"], ["j", "k"]])
    assert [s.name for s in check(n, scaled).stages] == ["y.factor", "y.factor1", "y"]

    def moved(g: f32[5, 6], d: f32[5, 6], x: f32[5, 7], c: f32[6, 7]):
        k = dlc.reduce_axis(6)
        return dlc.compute((5, 7), lambda i, j: dlc.sum(g[i, k] * (x[i, j] - c[k, j]) / (d[i, k] * d[i, k] + 1.0), k), name="y")

    n = part_product(nest_of(moved), "y", [0, 2], [], [["i", "k"]])
    assert [s.name for s in check(n, moved).stages] == ["y.factor", "y"] and "/" not in str(n["y"].body)


def test_sums_apart_from_what_finishes_them():
    n, sums = finish_apart(nest_of(product), "y")
    assert [s.name for s in check(n, product).stages] == [sums, "y", "z"] and n[sums].kind == "reduce" and n["y"].kind == "map"
    check(compute_at(compute_inline(n, "y"), sums, "z", "i"), product)
    with pytest.raises(ScheduleError, match="z is not a reduction with one result"):
        finish_apart(nest_of(product), "z")


def test_sums_in_a_narrower_dtype_only_where_they_fit():
    def bytes_of(x: i8[7, 10], w: i8[10, 9]):
        return dlc.matmul(x, w)

    n, sums = finish_apart(nest_of(bytes_of), "matmul", "", "i32")
    assert n[sums].tensors[0].dtype == i32 and n["matmul"].tensors[0].dtype == i64
    with pytest.raises(ScheduleError, match="a sum of matmul may overflow i16"):
        finish_apart(nest_of(bytes_of), "matmul", "", "i16")


def test_terms_past_the_end_are_zero():
    n = pad_terms(nest_of(product), "y", "k", 8)
    assert [s.name for s in check(n, product).stages] == ["x.padded", "w.padded", "y", "z"] and int(n["y"].bound[0].extent) == 16
    n, copy = cache_read(n, "y", "x.padded")
    check(compute_at(compute_inline(n, "x.padded"), copy, "y", "i"), product)
    check(pad_terms(finish_apart(nest_of(product), "y")[0], "y.sums", "k", 3), product)
    for stage, axis in (("y", "i"), ("z", "i")):
        with pytest.raises(ScheduleError, match=r"not a reduction axis that both factors of a product have by itself"):
            pad_terms(nest_of(product), stage, axis, 4)
    with pytest.raises(ScheduleError, match="other loops of y have been split"):
        pad_terms(set_role(split(nest_of(product), "y", "i", 2), "y", "i.i", "unroll"), "y", "k", 4)


def test_untile_keeps_what_is_fused():
    plain = compute_at(nest_of(product), "y", "z", "")
    n = split(plain, "z", "i", 2)
    n, copy = cache_read(n, "y", "w")
    n = compute_at(n, copy, "y", "i")
    n = set_role(split(n, "y", "j", 4), "y", "j.i", "vectorize")
    again = untile(n, "z")
    assert show_nest(again) == show_nest(plain)
    check(again, product)


def gradients(x: f32[50, 6], d: f32[50, 6], v: f32[50]):
    """A map, a sum over its rows, and one over what both read."""
    r = dlc.reduce_axis(50)
    k = dlc.reduce_axis(50)
    z = dlc.compute((50, 6), lambda i, j: d[i, j] * dlc.exp(x[i, j]), name="z")
    s = dlc.compute((6,), lambda j: dlc.sum(z[r, j], r), name="s")
    return z, s, dlc.compute((6,), lambda j: dlc.sum(d[k, j] * (x[k, j] - dlc.sqrt(dlc.abs(v[k]))), k), name="t")


@pytest.mark.parametrize("block", [10, 16, 50])
def test_rows_of_a_map_beside_sums_over_them(block):
    """The map and a second sum go into the loop over blocks of the first, whether or not it reads them."""
    n = define_terms(nest_of(gradients), "t", "k")
    assert "t.term: workspace f32[50]" in show_nest(n)
    assert len(define_terms(n, "s", "r").stages) == len(n.stages)
    n, s = rfactor(split(n, "s", "r", block), "s", "r.o")
    n, t = rfactor(split(n, "t", "k", block), "t", "k.o")
    n = compute_beside(n, "z", s, "r.o", "i", block)
    n = compute_beside(n, t, s, "r.o", "k.o", 1)
    n = set_role(compute_at(n, "t.term", s, "r.o"), s, "r.o", "parallel")
    assert f"z: result f32[{block}, 6]" in show_nest(n)
    assert "t.part: workspace f32[1, 6]" in show_nest(n) and f"t.term: private f32[{block}]" in show_nest(n)
    check(n, gradients)
    check(compute_root(compute_root(n, "t.term"), t), gradients)
    plain = untile(n, s)["z"]
    assert plain.attach is None and not plain.beside
    again = nest_of(gradients)
    for step in n.trace:
        again = apply(again, step)
    assert show_nest(again) == show_nest(n)


def followed(x: f32[50, 6], w: f32[50]):
    """A map with two sums over its rows, and what reads the map and stands before the sums."""
    r = dlc.reduce_axis(50)
    k = dlc.reduce_axis(50)
    z = dlc.compute((50, 6), lambda i, j: x[i, j] * w[i], name="z")
    u = dlc.compute((50, 6), lambda i, j: z[i, j] + 1.0, name="u")
    s = dlc.compute((6,), lambda j: dlc.sum(z[r, j], r), name="s")
    return u, s, dlc.compute((6,), lambda j: dlc.sum(z[k, j] * x[k, j], k), name="t"), z


def test_readers_of_what_is_made_beside_others_come_after_them():
    n, s = rfactor(split(nest_of(followed), "s", "r", 16), "s", "r.o")
    n, t = rfactor(split(n, "t", "k", 16), "t", "k.o")
    n = check(compute_beside(n, "z", s, "r.o", "i", 16), followed)
    n = check(compute_beside(n, t, s, "r.o", "k.o", 1), followed)
    assert [x.name for x in n.stages].index("u") > [x.name for x in n.stages].index(s)


def test_steps_are_recorded_and_apply_again():
    n = annotate(set_role(split(nest_of(product), "z", "i", 2), "z", "i.o", "parallel"), "z", "serial", True)
    assert [s.name for s in n.trace] == ["split", "set_role", "annotate"]
    assert n.trace[0] == Step("split", {"stage": "z", "loop": "i", "factor": 2})
    again = nest_of(product)
    for step in n.trace:
        again = apply(again, step)
    assert show_nest(again) == show_nest(n) and again.trace == n.trace
    assert set(PRIMITIVES) >= {"split", "pad", "fuse", "reorder", "set_role", "compute_at", "compute_root", "compute_inline",
                               "merge", "untile", "cache_read", "cache_write", "store_as", "part_product", "rfactor", "annotate",
                               "finish_apart", "pad_terms", "part_axis", "join_axes", "compute_beside", "define_terms",
                               "gather_read"}


def test_every_primitive_shows_before_and_after():
    for name, fn in PRIMITIVES.items():
        if name != "annotate":
            text = fn.__doc__ if fn.__doc__ else cache_read.__doc__
            assert "before::" in text and "after" in text, name

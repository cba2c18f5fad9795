"""Names of summation orders: what changes the bits changes the name, and nothing else does."""

import pytest

import dlc
from dlc import f32, i32
from dsl.nest import Nest
from dsl.order import Digit, chain_lengths, order_class, summation_orders
from dsl.primitives.loops import annotate, fuse, reorder, set_role, split
from dsl.primitives.storage import rfactor
from dsl.stages import build_nest

N, K = dlc.dims("N K")


@dlc.kernel
def rows(x: f32[N, K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((N,), lambda i: dlc.sum(x[i, k], k), name="t")


@dlc.kernel
def box(x: f32[N, K]):
    i, k = dlc.reduce_axis(N, name="i"), dlc.reduce_axis(K, name="k")
    return dlc.compute((), lambda: dlc.sum(x[i, k], i, k), name="t")


def nest(kernel=rows, n: int = 6, k: int = 96) -> Nest:
    x, = kernel.program.inputs
    sizes = {v: (n, k)[d] for d, s in enumerate(x.shape) for v in s.vars}
    return build_nest(kernel.program.specialize(sizes))


def name(of: Nest) -> str:
    return order_class(of).removeprefix("t: ")


def test_one_after_another() -> None:
    assert name(nest()) == "sum[k<96]: serial(k)"


def test_splitting_and_spatial_tiling_change_nothing() -> None:
    s = split(split(nest(), "t", "k", 24), "t", "k.i", 5, tail="peel")
    s = set_role(split(s, "t", "i", 4), "t", "i.i", "vectorize")
    s = reorder(s, "t", ["i.o", "k.o", "k.i.o", "k.i.i", "i.i"])
    assert name(s) == name(nest()) or name(s).startswith("sum[k<96]: serial(k//")  # 24 is no multiple of 5
    assert name(split(split(nest(), "t", "k", 24), "t", "k.i", 8)) == name(nest())


def test_lanes_and_unrolled_accumulators() -> None:
    s = set_role(split(nest(), "t", "k", 8), "t", "k.i", "vectorize")
    assert name(s) == "sum[k<96]: serial(k//8) lanes(k%8)"
    s = split(nest(), "t", "k", 32)
    s = split(s, "t", "k.i", 8, "u", "v")
    s = set_role(set_role(s, "t", "u", "unroll"), "t", "v", "vectorize")
    assert name(s) == "sum[k<96]: serial(k//32) unroll(k//8%4) lanes(k%8)"
    assert summation_orders(s)[0].depth == 3 + 2 + 3


def test_a_reduction_from_the_back_of_its_digits() -> None:
    s = reorder(split(nest(), "t", "k", 8), "t", ["i", "k.i", "k.o"])
    assert name(s) == "sum[k<96]: serial(k%8) serial(k//8)"


def test_two_axes_and_their_fusion() -> None:
    plain = nest(box)
    assert name(plain) == "sum[i<6, k<96]: serial(i) serial(k)"
    assert name(reorder(plain, "t", ["k", "i"])) == "sum[i<6, k<96]: serial(k) serial(i)"
    fused = fuse(plain, "t", "i", "k", "ik")
    assert name(fused) == "sum[i<6, k<96]: serial((i,k))"
    assert summation_orders(fused)[0].depth == summation_orders(plain)[0].depth == 6 * 96


def test_partial_results_are_named_with_their_chunks() -> None:
    s, part = rfactor(split(nest(), "t", "k", 32), "t", "k.o")
    assert order_class(s).splitlines() == ["t.part: sum.partial[k.i<32]: serial(k.i)", "t: sum.merge[k.o<3]: serial(k.o)"]
    assert part == "t.part" and chain_lengths(s, ["t"]) == {"t": 32 + 3}


def test_steps_that_combine_their_tile_at_once() -> None:
    s = set_role(split(nest(), "t", "k", 8), "t", "k.i", "vectorize")
    each = annotate(s, "t", "reduce_each", True)
    assert name(each) == name(s) + ", each step combined"
    assert summation_orders(each)[0].depth == 12 * (1 + 3)


def test_what_no_order_can_change_has_no_name() -> None:
    @dlc.kernel
    def exact(x: i32[N, K], y: f32[N, K]):
        return dlc.sum(x, 1), dlc.max(y, 1)

    assert order_class(build_nest(exact.program.specialize({v: 4 for v in exact.program.dims}))) == ""


@pytest.mark.parametrize(("digit", "text"), [
    (Digit("k", 1, None, 5), "serial(k)"), (Digit("k", 8, None, 5, "lanes"), "lanes(k//8)"),
    (Digit("k", 8, 4, 4, "unroll"), "unroll(k//8%4)")])
def test_digits_are_arithmetic(digit: Digit, text: str) -> None:
    assert str(digit) == text


def test_a_reduction_that_was_merged_into_another_counts_as_the_longest() -> None:
    assert chain_lengths(nest(), ["t", "gone"]) == {"t": 96, "gone": 3 * 96}

"""Which grids have points of unequal work."""

import dlc
from codegen.analysis.balance import growth
from codegen.heuristics import default_schedule
from codegen.pipelines import make_tile
from codegen.target import by_name
from dlc import f32
from dsl.stages import build_nest

M, N, D = dlc.dims("M N D")


def masked(q: f32[M, D], k: f32[N, D], v: f32[N, D], allowed):
    s = q @ k.T
    s = dlc.compute((M, N), lambda i, j: dlc.where(allowed(i, j), s[i, j], float("-inf")))
    return dlc.softmax(s) @ v


def growths(allowed, m=1024, n=1024):
    @dlc.kernel
    def attention(q: f32[M, D], k: f32[N, D], v: f32[N, D]):
        return masked(q, k, v, allowed)

    program = attention.program.specialize(dict(zip(attention.program.dims, (m, 64, n))))
    target = by_name("x86-64-avx2")
    nest = default_schedule(build_nest(program), target, {})
    return [growth(p) for p in make_tile(nest, {}, "attention", target).program.phases if p.grid]


def test_rows_under_a_diagonal_have_more_and_more_work():
    assert growths(lambda i, j: j <= i) == [1]


def test_rows_over_a_diagonal_have_less_and_less():
    assert growths(lambda i, j: j >= i) == [-1]


def test_a_ragged_end_is_no_unequal_work():
    assert growths(lambda i, j: j < 100000, m=1000) == [0]

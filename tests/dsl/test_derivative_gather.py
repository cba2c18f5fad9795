"""Adjoints of reads: every affine map becomes a dense gather, the rest a comparison; all against central differences."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from dsl.algebra import walk
from dsl.carrier import SUM
from dsl.check import prove_bounds
from dsl.derivative import vjp
from dsl.derivative.smith import multiply, smith, triangular
from dsl.dim import tmax, tmin
from dsl.dtype import f64, i64
from dsl.expr import Op, Read, Where, op, where
from dsl.ops.conv import conv_transpose1d
from dsl.program import Program, compute, dims, reduce_axis, reduce_over, trace
from dsl.text import show_compute
from tests.dsl.gradcheck import check, gradients, guards, reductions

M, N, K, H, W, B, C, D = dims("M N K H W B C D")


def total(e, *axes):
    return reduce_over(SUM, (e,), axes)


def text(program: Program) -> list[str]:
    return [show_compute(c) for c in program.computes]


def scatters(program: Program) -> bool:
    """Whether any selection compares what is read from memory with a position."""
    return any(isinstance(e, Read) for w in guards(program) for e in walk(w.args[0]))


# -- the integer algebra -------------------------------------------------------------------------------------------
def test_smith_form_divides_and_is_unimodular() -> None:
    for _ in range(500):
        rows, cols = random.randint(1, 3), random.randint(1, 5)
        a = [[random.randint(-6, 6) for _ in range(cols)] for _ in range(rows)]
        u, s, v = smith(a)
        d = multiply(multiply(u, a), v)
        assert all(d[i][j] == (s[i] if i == j and i < len(s) else 0) for i in range(rows) for j in range(cols))
        assert all(y % x == 0 for x, y in zip(s, s[1:])) and all(x > 0 for x in s)
        assert abs(round(np.linalg.det(np.array(u)))) == 1 and abs(round(np.linalg.det(np.array(v)))) == 1


def test_triangular_basis_spans_the_same_lattice() -> None:
    for _ in range(300):
        n, f = random.randint(2, 4), 2
        basis = [[random.randint(-3, 3) for _ in range(f)] for _ in range(n)]
        chosen = random.sample(range(n), f)
        det = round(np.linalg.det(np.array([basis[r] for r in chosen])))
        out = triangular(basis, chosen)
        if det == 0:
            assert out is None
            continue
        assert out is not None and out[chosen[0]][1] == 0 and out[chosen[0]][0] > 0 and out[chosen[1]][1] > 0
        assert out[chosen[0]][0] * out[chosen[1]][1] == abs(det)


# -- exact forms ---------------------------------------------------------------------------------------------------
def test_matmul_is_two_matmuls_and_a_row_sum(rng: np.random.Generator) -> None:
    def linear(x: f64[M, K], w: f64[N, K], b: f64[N]):
        k = reduce_axis(K)
        return compute((M, N), lambda i, j: total(x[i, k] * w[j, k], k) + b[j], name="y")

    backward = check(linear, rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5), rng=rng, order=2)
    assert text(backward) == [
        "d_x[i, k] = sum[j](d_y[i, j] * w[j, k])", "d_w[j, k] = sum[i](d_y[i, j] * x[i, k])", "d_b[j] = sum[i](d_y[i, j])"]
    assert [t.name for t in backward.inputs] == ["x", "w", "d_y"]


def test_permutations_broadcasts_flips_and_slices_have_no_guards(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N], r: f64[N]):
        t = compute((N, M), lambda j, i: x[i, j] * r[j], name="t")
        return compute((N, M), lambda j, i: t[N - 1 - j, i] * 2 + t[j, M - 1 - i], name="y")

    backward = check(kernel, rng.standard_normal((3, 4)), rng.standard_normal(4), rng=rng, order=2)
    assert not guards(backward) and len(reductions(backward)) == 1


def test_padded_window_reads_lose_their_forward_guard(rng: np.random.Generator) -> None:
    def kernel(x: f64[N]):
        return compute((N,), lambda i: where((i >= 1) & (i <= N), x[i - 1], 0.0) * 3, name="y")

    backward = check(kernel, rng.standard_normal(6), rng=rng)
    (guard,) = guards(backward)
    assert not reductions(backward) and "and" not in {e.name for e in walk(guard.args[0]) if isinstance(e, Op)}


@pytest.mark.parametrize("stride,dilation,pad,taps",
                         [(1, 1, 0, 3), (1, 1, 1, 3), (2, 1, 1, 3), (2, 1, 0, 2), (3, 1, 0, 2), (2, 2, 1, 3), (3, 2, 2, 4)])
def test_conv1d(stride: int, dilation: int, pad: int, taps: int, rng: np.random.Generator) -> None:
    def conv(x: f64[B, C, H], w: f64[D, C, taps]):
        c, r = reduce_axis(C, name="c"), reduce_axis(taps, name="r")

        def body(b, o, y):
            h = y * stride + r * dilation - pad
            return total(where((h >= 0) & (h < H), x[b, c, h], 0.0) * w[o, c, r], c, r)
        return compute((B, D, (H + 2 * pad - dilation * (taps - 1) - 1) // stride + 1), body, name="y")

    backward = check(conv, rng.standard_normal((2, 3, 11)), rng.standard_normal((2, 3, taps)), rng=rng, order=2)
    d_x = next(e for e in reductions(backward) if "o" in {a.name for a in e.axes})
    step = stride // math.gcd(stride, dilation)
    assert len(reductions(backward)) == 2 and math.prod(a.size for a in d_x.axes if a.name != "o") == -(-taps // step)


def test_conv2d_grouped_strided(rng: np.random.Generator) -> None:
    def conv(x: f64[B, 4, H, W], w: f64[6, 2, 3, 2]):
        c, r, s = reduce_axis(2, name="c"), reduce_axis(3, name="r"), reduce_axis(2, name="s")

        def body(b, o, y, z):
            h, v = y * 2 + r - 1, z * 3 + s * 2 - 1
            inside = (h >= 0) & (h < H) & (v >= 0) & (v < W)
            return total(where(inside, x[b, o // 3 * 2 + c, h, v], 0.0) * w[o, c, r, s], c, r, s)
        return compute((B, 6, (H - 1) // 2 + 1, (W - 1) // 3 + 1), body, name="y")

    backward = check(conv, rng.standard_normal((2, 4, 5, 7)), rng.standard_normal((6, 2, 3, 2)), rng=rng, order=2)
    assert len(reductions(backward)) == 2 and not scatters(backward)


def test_pooling(rng: np.random.Generator) -> None:
    def pool(x: f64[H, W]):
        r, s = reduce_axis(2, name="r"), reduce_axis(3, name="s")
        return compute((H // 2, W // 2 - 1), lambda i, j: total(x[i * 2 + r, j * 2 + s] / 6, r, s), name="y")

    backward = check(pool, rng.standard_normal((7, 9)), rng=rng, order=2)
    assert not reductions(backward)  # the first window never overlaps; the second by one: two terms, which are written out


AFFINE = {
    "step": lambda x, i, j: x[i * 3 + 1, j],
    "diagonal": lambda x, i, j: x[i, i] * x[j, j],
    "skew": lambda x, i, j: x[i + j, i],
    "sum and difference": lambda x, i, j: x[i + j, i - j + 4],
    "row": lambda x, i, j: x[2, j] * x[i, 3],
    "two strides": lambda x, i, j: x[2 * i + 3 * j, j],
    "coprime": lambda x, i, j: x[2 * i + 3 * j, 0],
    "even": lambda x, i, j: x[2 * i + 4 * j, i],
    "shared": lambda x, i, j: x[i, j] * x[j, i] + x[i, j] ** 2,
    "repeat": lambda x, i, j: x[i // 2, j // 3],
    "tile": lambda x, i, j: x[i % 3, j % 2],
    "roll": lambda x, i, j: x[(i + 2) % 5, (j - 1) % 4],
    "reshape": lambda x, i, j: x[(i * 4 + j) // 5, (i * 4 + j) % 5],
    "block": lambda x, i, j: x[i // 2 + 3 * (i % 2), j],
    "backwards": lambda x, i, j: x[12 - 3 * i, 3 - j],
    "clamped": lambda x, i, j: x[tmin(i.term + 1, 3), tmax(j.term - 1, 0)],
}


@pytest.mark.parametrize("name", AFFINE)
def test_index_maps(name: str, rng: np.random.Generator) -> None:
    fn = AFFINE[name]

    def kernel(x: f64[24, 24]):
        return compute((5, 4), lambda i, j: op("sin", fn(x, i, j)) * (i * 1.0 + 1) * (j + 0.5), name="y")

    backward = check(kernel, rng.standard_normal((24, 24)), rng=rng, order=2, tol=1e-5)
    assert not scatters(backward)


def affine(a, shape, sizes, bound) -> Program:
    """A product of a tensor read through the rows of ``a`` and one read plainly, the first ``bound`` variables summed over."""
    low = [sum(min(c * (s - 1), 0) for c, s in zip(row, sizes)) for row in a]

    def kernel(x, v):
        axes = [reduce_axis(s, name=f"k{m}") for m, s in enumerate(sizes[:bound])]

        def body(*out):
            z = [*axes, *out]
            value = x[tuple(sum(c * q for c, q in zip(row, z)) - lo for row, lo in zip(a, low))] * v[tuple(z)]
            return total(value, *axes) if axes else value
        return compute(tuple(sizes[bound:]), body, name="y")

    kernel.__annotations__ = {"x": f64[shape], "v": f64[tuple(sizes)]}
    return trace(kernel)


def test_random_affine_maps(rng: np.random.Generator) -> None:
    pick = random.Random(7)
    for _ in range(80):
        rank, n = pick.randint(1, 2), pick.randint(1, 3)
        sizes = [pick.randint(1, 4) for _ in range(n)]
        a = [[pick.choice([-2, -1, 0, 0, 1, 1, 2, 3]) for _ in range(n)] for _ in range(rank)]
        shape = tuple(sum(abs(c) * (s - 1) for c, s in zip(row, sizes)) + pick.randint(1, 2) for row in a)
        program = affine(a, shape, sizes, pick.randint(0, n - 1))
        backward = check(program, rng.standard_normal(shape), rng.standard_normal(sizes), rng=rng)
        assert not scatters(backward)
        assert all(math.prod(x.size for x in e.axes) <= math.prod(sizes) for e in reductions(backward))


# -- symbolic sizes ------------------------------------------------------------------------------------------------
def test_symbolic_reshapes_are_renamings(rng: np.random.Generator) -> None:
    def merge(x: f64[M, N]):
        return compute((M * N,), lambda f: x[f // N, f % N], name="y")

    def divide(x: f64[M * N, K], like: f64[M, N]):
        return compute((M, N, K), lambda i, j, k: x[i * N + j, k] * like[i, j], name="y")

    one = check(merge, rng.standard_normal((3, 4)), rng=rng, order=2)
    assert not guards(one) and not reductions(one)
    two = check(divide, rng.standard_normal((6, 2)), rng.standard_normal((3, 2)), rng=rng, order=2)
    assert not guards(two) and len(reductions(two)) == 1


def test_symbolic_regrouping(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, N, K]):
        return compute((N, K * M), lambda a, f: x[(a * K * M + f) // (N * K), (a * K * M + f) // K % N, (a * K * M + f) % K] * 2, name="y")

    check(kernel, rng.standard_normal((3, 4, 2)), rng=rng)


def test_symbolic_roll(rng: np.random.Generator) -> None:
    def kernel(x: f64[N]):
        return compute((N,), lambda i: x[(i + 3) % N] * 2, name="y")

    backward = check(kernel, rng.standard_normal(5), rng=rng, order=2)
    assert not guards(backward) and not reductions(backward)


def test_concat_and_split_have_no_guards(rng: np.random.Generator) -> None:
    def kernel(x: f64[M, K], y: f64[N, K]):
        return compute((M + N, K), lambda i, k: where(i < M, x[i, k], y[i - M, k]) * 2, name="z")

    backward = check(kernel, rng.standard_normal((2, 3)), rng.standard_normal((4, 3)), rng=rng, order=2)
    assert not guards(backward) and not reductions(backward)


@pytest.mark.parametrize("stride, dilation, taps", [(2, 2, 3), (4, 2, 3), (2, 4, 3), (3, 3, 2), (6, 4, 5), (4, 6, 4)])
def test_transposed_convolutions_whose_steps_share_a_factor(stride: int, dilation: int, taps: int) -> None:
    """The backward is in bounds for all sizes at once, and its sums skip the outputs that receive nothing."""
    def spread(x: f64[N, C, W], w: f64[C, D, taps]):
        return conv_transpose1d(x, w, stride=stride, padding=1, dilation=dilation)

    backward = vjp(trace(spread))
    prove_bounds(backward)
    of_x = next(c for c in backward.computes if c.name == "d_x")
    assert math.prod(int(v.extent) for v in of_x.body.axes if v.extent.is_const) < 2 * taps


def test_loops_end_where_a_condition_does(rng: np.random.Generator) -> None:
    def every_third(x: f64[N]):
        return compute((3 * N,), lambda i: where(i % 3 < 1, x[i // 3] ** 2, 0.0))

    backward = check(every_third, rng.standard_normal(5), rng=rng)
    assert not reductions(backward)


def test_triangular_loops(rng: np.random.Generator) -> None:
    def kernel(x: f64[N, N], v: f64[N]):
        k = reduce_axis(N)
        return compute((N,), lambda i: total(where(k <= i, x[i, k] * v[k], 0.0), k), name="y")

    check(kernel, rng.standard_normal((5, 5)), rng.standard_normal(5), rng=rng, order=2)


# -- indices from memory -------------------------------------------------------------------------------------------
def test_embedding(rng: np.random.Generator) -> None:
    def kernel(table: f64[N, K], ids: i64[M]):
        return compute((M, K), lambda i, k: table[ids[i], k] * 2, name="y")

    ids = np.array([3, 0, 3, 1], np.int64)
    g = rng.standard_normal((4, 3))
    got = gradients(kernel, rng.standard_normal((5, 3)), ids, cotangents=[g])
    expected = np.zeros((5, 3))
    np.add.at(expected, ids, 2 * g)
    np.testing.assert_allclose(got["d_table"], expected)
    backward = check(kernel, rng.standard_normal((5, 3)), ids, rng=rng, order=2)
    (form,) = reductions(backward)
    assert isinstance(form.args[0], Where) and isinstance(form.args[0].args[0].args[0], Read)


def test_masks_from_memory_stay_in_bounds(rng: np.random.Generator) -> None:
    def kernel(x: f64[N], keep: i64[N]):
        def body(i):
            return where(i >= 2, where(keep[i] > 0, x[i - 2] * x[i], 0.0), x[i])
        return compute((N,), body, name="y")

    check(kernel, rng.standard_normal(6), np.array([1, 0, 1, 1, 0, 1]), rng=rng, order=2)


def test_data_dependent_strides_next_to_affine_ones(rng: np.random.Generator) -> None:
    def kernel(x: f64[N, W], ids: i64[M]):
        r = reduce_axis(2, name="r")
        return compute((M, W // 2), lambda i, j: total(x[ids[i], j * 2 + r], r), name="y")

    check(kernel, rng.standard_normal((4, 6)), np.array([2, 2, 0]), rng=rng, order=2)


def test_every_reader_is_visited_once() -> None:
    """The adjoint of a sum of windows counts the windows that cover each element, whatever their stride and dilation."""
    n, out = 13, 5

    def windows(s: int, d: int, k: int, p: int) -> Program:
        def kernel(x: f64[N], like: f64[K]):
            r = reduce_axis(k, name="r")

            def body(y):
                at = y * s + r * d - p
                return total(where((at >= 0) & (at < N), x[at], 0.0), r)
            return compute((K,), body)
        return trace(kernel)

    for s, d, k, p in itertools.product((1, 2, 3, 4), (1, 2, 3), (1, 2, 3), (0, 1)):
        got = gradients(windows(s, d, k, p), np.zeros(n), np.zeros(out), wrt=["x"], cotangents=[np.ones(out)])["d_x"]
        expected = np.zeros(n)
        for y, r in itertools.product(range(out), range(k)):
            if 0 <= y * s + r * d - p < n:
                expected[y * s + r * d - p] += 1
        np.testing.assert_array_equal(got, expected)


def test_loops_run_over_what_conditions_on_them_leave(rng: np.random.Generator) -> None:
    def held(x: f64[H]):
        return compute((2 * H,), lambda i: where((i + 1) // 2 < H, x[(i + 1) // 2], x[H - 1] * 3), name="y")

    backward = check(held, rng.standard_normal(5), rng=rng)
    assert not reductions(backward)  # the last element has one more reader, which is known

"""Proofs of bounds: what real programs need is proved, what is wrong is refused with a point that reads outside."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl.bounds import prove_bounds, runtime_checks
from dsl.carrier import ARGMAX, SUM
from dsl.dim import Var, as_term
from dsl.dtype import bool_, f32, i32, i64, u8
from dsl.errors import BoundsError
from dsl.expr import Compute, Expr, Input, cast, const, index, op, read, reduce, where
from dsl.interp import evaluate
from dsl.program import Program, compute, dims, reduce_axis, reduce_over, trace
from tests.strategies import random_case

M, N, K = dims("M N K")


def refused(fn: Callable[..., Any]) -> str:
    with pytest.raises(BoundsError) as e:
        prove_bounds(trace(fn))
    return f"{e.value.title}: {e.value.reason}"


def proved(fn: Callable[..., Any]) -> None:
    prove_bounds(trace(fn))
    assert runtime_checks(trace(fn)) == []


# -- refused, with a witness -----------------------------------------------------------------------------------------
def test_symbolic_witness() -> None:
    def ahead(x: f32[M]):
        return compute(M, lambda i: x.read(i + 1))

    assert refused(ahead) == "x[i + 1] is out of bounds: i = M - 1 reads x[M], but x has M elements"


def test_concrete_witness() -> None:
    def ahead(x: f32[100]):
        return compute(100, lambda i: x.read(i + 1))

    assert refused(ahead) == "x[i + 1] is out of bounds: i = 99 reads x[100], but x has 100 elements"


def test_the_message_shows_the_line_and_a_remedy() -> None:
    def behind(x: f32[M, N]):
        return compute((M, N), lambda i, j: x.read(i, j - 1))

    with pytest.raises(BoundsError) as e:
        prove_bounds(trace(behind))
    assert str(e.value) == (
        "bounds error: x[i, j - 1] is out of bounds\n"
        f"  --> {__file__}:{behind.__code__.co_firstlineno + 1}\n"
        f"   {behind.__code__.co_firstlineno + 1} | return compute((M, N), lambda i, j: x.read(i, j - 1))\n"
        "  because: j = 0 reads x[i, -1], but x has N elements in dimension 1\n"
        "  instead: guard the read: dlc.where(condition on the index, element, 0), or shrink the shape")


def test_sizes_that_need_not_agree() -> None:
    def cross(x: f32[M], y: f32[N]):
        return compute(N, lambda i: x.read(i) * y.read(i))

    assert refused(cross) == "x[i] is out of bounds: with M = 1, N = 2, i = 1 reads x[1], but x has 1 element"


def test_a_guard_that_is_off_by_one() -> None:
    def shifted(x: f32[M]):
        return compute(M, lambda i: where(i < M, x.read(i + 1), 0.0) + where(i > 1, x.read(i - 2), 0.0))

    assert refused(shifted) == "x[i + 1] is out of bounds: i = M - 1 reads x[M], but x has M elements"


def test_the_branch_not_meant() -> None:
    def swapped(x: f32[M]):
        return compute(M, lambda i: where(i > 0, 0.0, x.read(i - 1)))

    assert refused(swapped) == "x[i - 1] is out of bounds: i = 0 reads x[-1], but x has M elements"


def test_a_window_that_is_too_wide() -> None:
    def window(x: f32[N]):
        k = reduce_axis(3, name="k")
        return compute(N // 2, lambda i: reduce_over(SUM, (x.read(2 * i + k),), (k,)))

    assert refused(window) == "x[2*i + k] is out of bounds: with N = 2, k = 2, i = 0 reads x[2], but x has 2 elements"


def test_a_condition_on_data_says_nothing() -> None:
    def masked(x: f32[M], m: bool_[M]):
        return compute(M, lambda i: where(m.read(i), x.read(i + 1), 0.0))

    assert refused(masked) == ("x[i + 1] is out of bounds: i = M - 1 reads x[M], but x has M elements\n"
                               "the condition `m[i]` depends on data, so it says nothing about the index")


def test_neither_proof_nor_witness() -> None:
    def even(x: f32[1]):
        return compute(M, lambda i: where(i > 0, x.read((i * i + i) % 2), 0.0))

    assert refused(even) == ("x[(i + i*i) % 2] cannot be proved in bounds: "
                             "(i + i*i) % 2 < 1 is not shown by the ranges of i in [0, M) and the conditions around it")


def test_used_guarded_and_unguarded() -> None:
    def both(x: f32[M]):
        return compute(M, lambda i: where(i < M - 1, x.read(i + 1), 0.0) * x.read(i + 1))

    assert refused(both).startswith("x[i + 1] is out of bounds")


# -- proved ----------------------------------------------------------------------------------------------------------
def test_padded_strided_convolution() -> None:
    def conv(x: f32[M, N], w: f32[3, 3]):
        r, s = reduce_axis(3), reduce_axis(3)

        def at(i: Any, j: Any) -> Any:
            y, z = 2 * i + r - 1, 2 * j + s - 1
            return reduce_over(SUM, (where((y >= 0) & (y < M) & (z >= 0) & (z < N), x.read(y, z), 0.0) * w.read(r, s),), (r, s))
        return compute(((M + 1) // 2, (N + 1) // 2), at)

    proved(conv)


def test_transposed_convolution_and_dilation() -> None:
    def spread(x: f32[M], w: f32[4]):
        r = reduce_axis(4)

        def at(i: Any) -> Any:
            q = (i + 1 - r) // 2
            inside = ((i + 1 - r) % 2 == index(0)) & (q >= 0) & (q < M)
            return reduce_over(SUM, (where(inside, x.read(q), 0.0) * w.read(r),), (r,))
        return compute(2 * M, at)

    def dilated(x: f32[M], w: f32[3]):
        r = reduce_axis(3)
        return compute(M - 4, lambda i: reduce_over(SUM, (x.read(i + 2 * r) * w.read(r),), (r,)))

    proved(spread)
    proved(dilated)


def test_shapes_moved_about() -> None:
    def moved(x: f32[M, N], y: f32[K, N]):
        joined = compute((M + K, N), lambda i, j: where(i < M, x.read(i, j), y.read(i - M, j)))
        flat = compute(M * N, lambda i: x.read(i // N, i % N))
        rolled = compute((M, N), lambda i, j: x.read((i + 3) % M, where(j + 1 < N, j + 1, j + 1 - N)))
        upsampled = compute((2 * M, 3 * N), lambda i, j: x.read(i // 2, j // 3))
        flipped = compute((M, N), lambda i, j: x.read(M - 1 - i, N - 1 - j))
        return joined, flat, rolled, upsampled, flipped

    proved(moved)


def test_negations_disjunctions_and_equalities() -> None:
    def edges(x: f32[M]):
        outside = compute(M, lambda i: where((i < 1) | (i >= M - 1), 0.0, x.read(i - 1) + x.read(i + 1)))
        negated = compute(M, lambda i: where(~((i >= 1) & (i < M)), 0.0, x.read(i - 1)))
        unequal = compute(M, lambda i: where(i != 0, x.read(i - 1), 0.0))
        pinned = compute(M + 5, lambda i: where(op("eq", i, index(0)), x.read(i), 0.0))
        nested = compute(M, lambda i: where(i > 0, where(i > 1, x.read(i - 2), x.read(i - 1)), 0.0))
        return outside, negated, unequal, pinned, nested

    proved(edges)


def test_ragged_and_empty() -> None:
    def triangle(x: f32[M]):
        def at(i: Any) -> Any:
            k = reduce_axis(0, i + 1)
            return reduce_over(SUM, (x.read(k) * x.read(i - k),), (k,))
        return compute(M, at)

    def nothing(x: f32[3]):
        k = reduce_axis(0)
        return compute(0, lambda i: x.read(i + 7)), compute(3, lambda i: reduce_over(SUM, (x.read(i + k + 9),), (k,)))

    proved(triangle)
    proved(nothing)


def test_a_specialised_program_with_an_empty_axis() -> None:
    def row(x: f32[M, N]):
        k = reduce_axis(N)
        return compute(M, lambda i: reduce_over(SUM, (x.read(i, k),), (k,)))

    program = trace(row)
    prove_bounds(program.specialize({program.dims[0]: 0, program.dims[1]: 3}))
    prove_bounds(program.specialize({program.dims[0]: 3, program.dims[1]: 0}))


# -- gathers ---------------------------------------------------------------------------------------------------------
def gathered(make: Callable[[Any, Any], Any], dtype: Any = i64) -> list[str]:
    idx = Input("idx", (as_term(M),), dtype)
    x = Input("x", (as_term(N),), f32)
    i = Var("i", M)
    body = make(x, idx.read(i))
    return [str(c) for c in runtime_checks(Program("g", (x, idx), (Compute("y", (i,), body),)))]


ZERO, LAST = const(0, i64), index(N.term - 1)


def test_plain_gathers_are_checked_at_run_time() -> None:
    assert gathered(lambda x, e: x.read(e)) == ["0 <= idx[i] < N in x[idx[i]]"]

    def embed(table: f32[N, K], idx: i32[M]):
        return compute((M, K), lambda i, j: table.read(idx.read(i), j))

    (check,) = runtime_checks(trace(embed))
    assert (check.source, check.dimension, str(check.size)) == (trace_input(check), 0, "N")


def trace_input(check: Any) -> Any:
    return check.index.tensor


def test_clamps_guards_and_remainders_prove_gathers() -> None:
    assert gathered(lambda x, e: x.read(op("min", op("max", e, ZERO), LAST))) == []
    assert gathered(lambda x, e: x.read(op("max", op("min", e, LAST), ZERO))) == []
    assert gathered(lambda x, e: x.read(op("mod", e, index(N)))) == []
    assert gathered(lambda x, e: where((e >= 0) & (e < index(N)), x.read(e), 0.0)) == []
    assert gathered(lambda x, e: where((e < 0) | (e >= index(N)), 0.0, x.read(e))) == []
    assert gathered(lambda x, e: x.read(where((e >= 0) & (e < index(N)), e, ZERO))) == []
    assert gathered(lambda x, e: x.read(where(e < 0, op("mod", e, index(N)), op("min", e, LAST)))) == []
    assert gathered(lambda x, e: x.read(op("min", cast(e, i64), LAST)), u8) == []


def test_half_a_clamp_is_not_a_proof() -> None:
    assert len(gathered(lambda x, e: x.read(op("max", e, ZERO)))) == 1
    assert len(gathered(lambda x, e: where(e >= 0, x.read(e), 0.0))) == 1
    assert len(gathered(lambda x, e: x.read(op("min", cast(e, i64), LAST)), i32)) == 1


def test_wrapping_arithmetic_is_not_trusted() -> None:
    assert gathered(lambda x, e: where((e >= 0) & (e < index(N) - 1), x.read(cast(e, i64) + 1), 0.0), i32) == []
    assert len(gathered(lambda x, e: where(e >= 0, x.read(op("min", e + 1, cast(LAST, i32))), 0.0), i32)) == 1


def test_indices_that_were_computed() -> None:
    def pick(x: f32[M, N]):
        k = reduce_axis(N)
        best = compute(M, lambda i: reduce_over(ARGMAX, (x.read(i, k), k), (k,), 1))
        safe = compute(M, lambda i: op("min", op("max", best.read(i) + 1, const(0, i64)), index(N - 1)))
        return compute(M, lambda i: x.read(i, best.read(i)) + x.read(i, safe.read(i)))

    proved(pick)


def test_checks_carry_their_guards() -> None:
    idx, x = Input("idx", (as_term(M),), i64), Input("x", (as_term(N),), f32)
    i = Var("i", M)
    e = idx.read(i)
    body = where(e >= 0, x.read(e), 0.0)
    (check,) = runtime_checks(Program("g", (x, idx), (Compute("y", (i,), body),)))
    assert check.source is None
    assert [(str(c), holds) for c, holds in check.guards] == [(str(e >= 0), True)]


# -- against the interpreter -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(80))
def test_random_programs_are_proved(seed: int) -> None:
    case = random_case(seed, symbolic=seed % 2 == 0)
    prove_bounds(case.program)
    assert runtime_checks(case.program) == []


def _random_read(rng: random.Random) -> tuple[Program, Input]:
    """One read with a random index under a random guard, over static sizes."""
    x = Input("x", (as_term(rng.choice([3, 5, 8])),), f32)
    i, k = Var("i", rng.choice([1, 4, 6])), Var("k", rng.choice([2, 3]))

    def term() -> Any:
        t = as_term(i) * rng.randint(-1, 2) + as_term(k) * rng.randint(-1, 1) + rng.randint(-1, 4)
        return rng.choice([t, t, t // 2, t % 4])

    def condition(depth: int) -> Expr:
        if depth and rng.random() < 0.6:
            c = op(rng.choice(["and", "or"]), condition(depth - 1), condition(depth - 1))
            return op("not", c) if rng.random() < 0.3 else c
        return op(rng.choice(["lt", "le", "gt", "ge", "eq", "ne"]), index(term()), index(term() if rng.random() < 0.5 else rng.randint(0, 5)))

    at = term()
    value: Expr = read(x, (at,))
    if rng.random() < 0.7:
        inside = op("and", op("ge", index(at), index(0)), op("lt", index(at), index(x.shape[0])))
        guard = rng.choice([condition(2), inside, op("or", inside, condition(1)), op("and", inside, condition(1))])
        value = where(guard, value, const(0.0)) if rng.random() < 0.8 else where(op("not", guard), const(0.0), value)
    return Program("r", (x,), (Compute("y", (i,), reduce(SUM, (value,), (k,))),)), x


def test_proofs_agree_with_the_interpreter() -> None:
    wrong, unproved = [], 0
    for seed in range(1500):
        program, x = _random_read(random.Random(seed))
        try:
            evaluate(program, np.zeros(int(x.shape[0]), np.float32))
            inside = True
        except BoundsError:
            inside = False
        try:
            prove_bounds(program)
            said = "inside"
        except BoundsError as e:
            said = "outside" if "is out of bounds" in e.title else "unknown"
        unproved += said == "unknown"
        if said != "unknown" and (said == "inside") != inside:
            wrong.append((seed, said))
    assert not wrong
    assert unproved <= 30  # the proof is incomplete, not idle

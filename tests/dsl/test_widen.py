"""What widening does to each kind of node, as text; that it is idempotent and keeps the meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl.algebra import walk
from dsl.carrier import ARGMAX, MAX, SUM
from dsl.dtype import ALL, Dtype, bf16, bool_, f8e4m3, f16, f32, f64, i8, i32, i64, u8
from dsl.expr import Const, Op, Read, Reduce, Scan, Where, cast, const, index, op, where
from dsl.interp import evaluate
from dsl.numerics import NUMPY, cast_array
from dsl.program import compute, dims, reduce_axis, reduce_over, trace
from dsl.widen import contains, fold, widen
from tests.strategies import random_case

M, N, K = dims("M N K")


def bodies(fn: Callable[..., Any]) -> list[str]:
    return [f"{c.dtype} {c.body}" for c in widen(trace(fn)).computes]


def test_reads_of_low_inputs_are_widened() -> None:
    def product(x: bf16[N], y: f16[N], z: f32[N]):
        return compute(N, lambda i: x.read(i) * y.read(i) + z.read(i))

    assert bodies(product) == ["f32 f32(x[i]) * f32(y[i]) + z[i]"]


def test_an_output_is_rounded_once_and_an_intermediate_not_at_all() -> None:
    def chain(x: bf16[N]):
        t = compute(N, lambda i: x.read(i) * x.read(i))
        return compute(N, lambda i: t.read(i) + 1.0)

    assert bodies(chain) == ["f32 f32(x[i]) * f32(x[i])", "bf16 bf16(t[i] + 1.0)"]


def test_an_output_that_is_read_is_split() -> None:
    def both(x: bf16[N]):
        y = compute(N, lambda i: x.read(i) * x.read(i), name="y")
        return y, compute(N, lambda i: y.read(i) + 1.0)

    assert bodies(both) == ["f32 f32(x[i]) * f32(x[i])", "bf16 bf16(y_held[i])", "bf16 bf16(y_held[i] + 1.0)"]


def test_an_f32_output_that_is_read_is_left_alone() -> None:
    def both(x: f32[N]):
        y = compute(N, lambda i: x.read(i) * x.read(i))
        return y, compute(N, lambda i: y.read(i) + 1.0)

    program = trace(both)
    assert widen(program) is program


def test_explicit_roundings_stay() -> None:
    def rounded(x: f32[N], y: bf16[N]):
        return compute(N, lambda i: cast(x.read(i), bf16) * y.read(i) + cast(cast(y.read(i), f16), f32))

    assert bodies(rounded) == ["f32 f32(bf16(x[i])) * f32(y[i]) + f32(f16(f32(y[i])))"]


def test_exact_casts_go() -> None:
    def through(x: f8e4m3[N], m: bool_[N], n: i8[N], k: i32[N]):
        return compute(N, lambda i: cast(cast(x.read(i), f16), f32) + cast(cast(m.read(i), bf16), f32)), compute(
            N, lambda i: cast(cast(n.read(i), bf16), f32) + cast(cast(k.read(i), bf16), f32))

    assert bodies(through) == ["f32 f32(x[i]) + f32(m[i])", "f32 f32(n[i]) + f32(bf16(k[i]))"]


def test_reductions_and_selections_are_held() -> None:
    def rows(x: bf16[M, N]):
        k = reduce_axis(N, name="k")
        total = compute(M, lambda i: reduce_over(SUM, (x.read(i, k),), (k,)))
        return compute(M, lambda i: where(total.read(i) > 0, total.read(i), -x.read(i, 0))), compute(
            M, lambda i: reduce_over(ARGMAX, (x.read(i, k), k), (k,), 1))

    assert bodies(rows) == ["f32 sum[k](f32(x[i, k]))", "bf16 bf16(where(t[i] > 0.0, t[i], -f32(x[i, 0])))",
                            "i64 argmax[k](f32(x[i, k]), k)[1]"]


@pytest.mark.parametrize("seed", range(120))
def test_nothing_low_is_computed_and_a_second_time_changes_nothing(seed: int) -> None:
    case = random_case(seed, dtypes=(f32, bf16, f16, f8e4m3))
    wide = widen(case.program)
    assert widen(wide) is wide
    assert [(o.name, o.dtype, o.shape) for o in wide.outputs] == [(o.name, o.dtype, o.shape) for o in case.program.outputs]
    for c in wide.computes:
        assert not c.dtype.is_low or any(c is o for o in wide.outputs)
        assert c.body.dtype == c.dtype
        assert not [n for n in walk(c.body) if isinstance(n, (Op, Where, Reduce, Scan, Const)) and n.dtype.is_low]
        assert not [n for n in walk(c.body) if isinstance(n, Op) for a in n.args if isinstance(a, Read) and a.dtype.is_low]


@pytest.mark.parametrize("seed", range(40))
def test_widening_keeps_the_float64_meaning(seed: int) -> None:
    case = random_case(seed, dtypes=(f32, bf16))
    wide = evaluate(widen(case.program), *case.arrays, float64=True)
    for a, b in zip(wide, evaluate(case.program, *case.arrays, float64=True)):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("wide", list(ALL.values()))
@pytest.mark.parametrize("narrow", list(ALL.values()))
def test_contains_is_what_round_trips(rng: np.random.Generator, wide: Dtype, narrow: Dtype) -> None:
    bits = np.arange(256, dtype=np.uint8) if narrow.bits == 8 else rng.integers(0, 256, 4096, dtype=np.uint8)
    values = bits.view(NUMPY[narrow]) if narrow is not bool_ else bits < 128
    if not narrow.is_float and narrow is not bool_:
        info = np.iinfo(values.dtype)
        values = np.concatenate([values, [info.min, info.max, info.max - 1]]).astype(values.dtype)
    back = cast_array(cast_array(values, wide), narrow)
    same = np.array_equal(back.astype(np.float64), values.astype(np.float64), equal_nan=True)
    assert same or not contains(wide, narrow)


def test_constants_fold() -> None:
    assert fold(op("add", const(2, i64), const(3, i64))) is const(5, i64)
    assert fold(op("mul", const(2**30, i32), const(8, i32))) is const(0, i32)
    assert fold(op("sqrt", const(2.0))).value == 2**0.5  # type: ignore[attr-defined]
    assert fold(cast(index(7), f32)) is const(7.0, f32)
    assert fold(where(const(True), const(1.0), const(2.0))) is const(1.0)
    assert fold(op("div", const(0.0), const(0.0))) is const(float("nan"))
    assert fold(op("lt", const(1, u8), const(2, u8))) is const(True)
    assert fold(cast(const(1e10), i32)) is const(2**31 - 1, i32)


def test_a_literal_rounded_to_bf16_is_a_rounded_literal() -> None:
    def third(x: f32[N]):
        return compute(N, lambda i: x.read(i) * cast(cast(const(1 / 3), bf16), f32))

    assert bodies(third) == ["f32 x[i] * 0.333984375"]


def test_a_scalar_keeps_its_precision_beside_a_low_tensor() -> None:
    def tenth(x: bf16[N]):
        return compute(N, lambda i: x.read(i) * 0.1)

    assert bodies(tenth) == ["bf16 bf16(f32(x[i]) * 0.1)"]


def test_f64_stays() -> None:
    def wide(x: f64[N], y: bf16[N]):
        k = reduce_axis(N)
        return compute((), lambda: reduce_over(MAX, (x.read(k) * y.read(k),), (k,)))

    assert bodies(wide) == ["f64 max[k](x[k] * f64(f32(y[k])))"]

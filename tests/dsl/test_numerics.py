"""Casts and pointwise operations against torch, element for element."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from dsl import dtype as dt
from dsl.dtype import Dtype
from dsl.numerics import NUMPY, NumpyAlgebra, apply_op, cast_array, dtype_of
from dsl.opset import OPS

TORCH = {
    dt.bool_: torch.bool, dt.u8: torch.uint8, dt.i8: torch.int8, dt.i16: torch.int16, dt.i32: torch.int32, dt.i64: torch.int64,
    dt.f16: torch.float16, dt.bf16: torch.bfloat16, dt.f32: torch.float32, dt.f64: torch.float64,
}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, np.inf, -np.inf, np.nan, 1e-30, 65504.0, 65520.0, -1e30, 3.3895e38, 2.0**-149,
           1 + 2.0**-8, 1 + 3 * 2.0**-8]


def as_f64(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


def torch_f64(x: torch.Tensor) -> np.ndarray:
    return x.double().numpy()


@pytest.mark.parametrize("target", [dt.f16, dt.bf16, dt.f64])
def test_float_casts_round_as_torch(rng: np.random.Generator, target: Dtype) -> None:
    bits = rng.integers(0, 1 << 32, 3000, dtype=np.uint32)
    x = np.concatenate([np.float32(SPECIAL), rng.standard_normal(1000).astype(np.float32), bits.view(np.float32)])
    want = torch_f64(torch.tensor(x).to(TORCH[target]))
    np.testing.assert_array_equal(as_f64(cast_array(x, target)), want)


def test_bf16_rounds_to_nearest_even_at_every_tie() -> None:
    high = np.arange(0x3F80, 0x4080, dtype=np.uint32) << 16
    ties = (high | 0x8000).view(np.float32)
    got = cast_array(ties, dt.bf16).view(np.uint16)
    assert (got % 2 == 0).all()
    np.testing.assert_array_equal(got.astype(np.float64), torch.tensor(ties).bfloat16().view(torch.int16).double().numpy())


def test_fp8_overflow_saturates_e4m3_and_overflows_e5m2() -> None:
    x = np.float32([1000, 449, -1e9, np.nan, 0.3])
    np.testing.assert_array_equal(as_f64(cast_array(x, dt.f8e4m3)), [448, 448, -448, np.nan, 0.3125])
    np.testing.assert_array_equal(as_f64(cast_array(np.float32([1e6, -1e6, 57344]), dt.f8e5m2)), [np.inf, -np.inf, 57344])


def test_fp8_round_trip_is_exact() -> None:
    for target in (dt.f8e4m3, dt.f8e5m2):
        all_values = np.arange(256, dtype=np.uint8).view(NUMPY[target])
        again = cast_array(cast_array(all_values, dt.f32), target)
        np.testing.assert_array_equal(as_f64(all_values), as_f64(again))


@pytest.mark.parametrize("source", [dt.f16, dt.bf16, dt.f32, dt.f64])
@pytest.mark.parametrize("target", [dt.i8, dt.i16, dt.i32, dt.i64, dt.u8, dt.bool_])
def test_float_to_int_agrees_with_torch_where_it_is_defined(rng: np.random.Generator, source: Dtype, target: Dtype) -> None:
    top = 1 if target is dt.bool_ else min(2.0 ** (target.bits - 2), 60000.0)
    x = rng.uniform(0 if not target.signed else -top, top, 500).astype(NUMPY[source])
    want = torch.tensor(as_f64(x)).to(TORCH[source]).to(TORCH[target])
    np.testing.assert_array_equal(as_f64(cast_array(x, target)), torch_f64(want))


def test_float_to_int_saturates_and_nan_gives_zero() -> None:
    x = np.float32([1e10, -1e10, np.inf, -np.inf, np.nan, 2.0**31, -(2.0**31)])
    top = 2**31 - 1
    np.testing.assert_array_equal(cast_array(x, dt.i32), [top, -top - 1, top, -top - 1, 0, top, -top - 1])
    np.testing.assert_array_equal(cast_array(np.float32([-1, 300]), dt.u8), [0, 255])
    assert cast_array(np.float64([2.0**63, -(2.0**63), 1e300]), dt.i64).tolist() == [2**63 - 1, -(2**63), 2**63 - 1]


@pytest.mark.parametrize("source", [dt.bool_, dt.u8, dt.i8, dt.i32, dt.i64])
@pytest.mark.parametrize("target", list(TORCH))
def test_integer_casts_wrap_as_torch(rng: np.random.Generator, source: Dtype, target: Dtype) -> None:
    x = rng.integers(-(1 << 40), 1 << 40, 300).astype(NUMPY[source])
    want = torch.from_numpy(x).to(TORCH[target])
    np.testing.assert_array_equal(as_f64(cast_array(x, target)), torch_f64(want))


def test_float64_keeps_every_float_exact() -> None:
    x = np.float64([0.1, 1e300])
    assert cast_array(x, dt.bf16, float64=True) is x
    assert cast_array(np.int64([3]), dt.f16, float64=True).dtype == np.float64


_TORCH_OPS = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "floordiv": torch.floor_divide, "mod": torch.remainder,
    "pow": torch.pow, "atan2": torch.atan2, "min": torch.minimum, "max": torch.maximum, "neg": torch.neg, "abs": torch.abs,
    "sign": torch.sign, "floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc,
    "eq": torch.eq, "ne": torch.ne, "lt": torch.lt,
    "le": torch.le, "gt": torch.gt, "ge": torch.ge, "isnan": torch.isnan, "isinf": torch.isinf, "isfinite": torch.isfinite,
    "fma": lambda a, b, c: (a.double() * b.double() + c.double()).to(a.dtype),
} | {n: getattr(torch, n) for n, o in OPS.items() if o.rule == "float" and o.arity == 1}
_INT_OPS = {
    "and": torch.bitwise_and, "or": torch.bitwise_or, "xor": torch.bitwise_xor, "not": torch.bitwise_not,
    "shl": torch.bitwise_left_shift, "shr": torch.bitwise_right_shift,
}


@pytest.mark.parametrize("name", sorted(_TORCH_OPS))
@pytest.mark.parametrize("dtype", [dt.f32, dt.f64])
def test_float_operations_agree_with_torch(rng: np.random.Generator, name: str, dtype: Dtype) -> None:
    special = [] if name in ("floordiv", "mod") else [SPECIAL, rng.permutation(SPECIAL)]  # torch's own differ where a / b overflows
    args = tuple(np.concatenate([rng.standard_normal(400) * 3, *special]).astype(NUMPY[dtype]) for _ in range(OPS[name].arity))
    got = apply_op(name, args)
    want = _TORCH_OPS[name](*map(torch.from_numpy, args)).numpy()
    assert got.dtype == want.dtype
    # Both round once; torch's own functions may be off by a few units in the last place.
    exact = OPS[name].rule in ("bool", "same", "num") and name not in ("pow", "mod")
    rtol, atol = (0, 0) if exact else (1e-5, 1e-6) if dtype is dt.f32 else (1e-12, 1e-14)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


_WRAPPING = ["add", "sub", "mul", "floordiv", "mod", "min", "max", "neg", "abs", "sign", "eq", "lt", "floor", "round", *sorted(_INT_OPS)]


@pytest.mark.parametrize("name", _WRAPPING)
@pytest.mark.parametrize("dtype", [dt.i8, dt.u8, dt.i32, dt.i64])
def test_integer_operations_wrap_as_torch(rng: np.random.Generator, name: str, dtype: Dtype) -> None:
    args = [rng.integers(-(1 << 62), 1 << 62, 300).astype(NUMPY[dtype]) for _ in range(OPS[name].arity)]
    if name in ("floordiv", "mod"):
        args[1][args[1] == 0] = 3
    if name in ("shl", "shr"):
        args[1] = rng.integers(0, dtype.bits, 300).astype(NUMPY[dtype])
    if name == "abs" and dtype is dt.u8:
        pytest.skip("torch has no abs of uint8")
    want = (_TORCH_OPS | _INT_OPS)[name](*map(torch.from_numpy, args)).numpy()
    np.testing.assert_array_equal(apply_op(name, tuple(args)), want)


def test_integer_corner_cases_are_total() -> None:
    a, b = np.int32([7, -7, 5]), np.int32([0, 0, 2])
    np.testing.assert_array_equal(apply_op("floordiv", (a, b)), [-1, -1, 2])
    np.testing.assert_array_equal(apply_op("mod", (a, b)), [7, -7, 1])
    np.testing.assert_array_equal(apply_op("pow", (np.int32([2, 1, -1, -1, 3]), np.int32([-1, -5, -3, -2, 4]))), [0, 1, -1, 1, 81])
    np.testing.assert_array_equal(apply_op("shl", (np.int32([1, 1, 1]), np.int32([31, 32, -1]))), [-(2**31), 0, 0])
    np.testing.assert_array_equal(apply_op("shr", (np.int32([-8, 8]), np.int32([40, 40]))), [-1, 0])
    assert apply_op("mulhi", (np.uint32([2**31]), np.uint32([6]))).tolist() == [3]


def test_float32_functions_are_rounded_once(rng: np.random.Generator) -> None:
    x = rng.uniform(-5, 5, 2000).astype(np.float32)
    np.testing.assert_array_equal(apply_op("exp", (x,)), np.exp(x.astype(np.float64)).astype(np.float32))


def test_dtype_of_knows_every_dtype_and_no_other() -> None:
    assert all(dtype_of(np.zeros(1, n)) is d for d, n in NUMPY.items())
    assert dtype_of(np.zeros(1, np.complex64)) is None
    assert dtype_of(np.zeros(1, ml_dtypes.bfloat16)) is dt.bf16


def test_algebra_constants_take_the_dtype() -> None:
    a = NumpyAlgebra()
    assert a.dtype(a.const(float("-inf"), dt.f32)) is dt.f32
    assert a.const(2**63 - 1, dt.i64) == 2**63 - 1
    assert NumpyAlgebra(float64=True).const(0.1, dt.bf16) == 0.1

"""The table of operations: rules of dtypes, meanings at the edges, and what the other levels take from it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dsl.dtype import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8
from dsl.opset import COMMUTATIVE, MARKS, OPS, PRECISIONS, result_dtype


@pytest.mark.parametrize(("name", "operands", "expected"), [
    ("add", [i8, u8], (i16, i16)), ("add", [i32, f16], (f16, f16)), ("mul", [bf16, f16], (f32, f32)),
    ("add", [bool_, bool_], (bool_, bool_)), ("div", [i64, i64], (f32, f32)), ("exp", [bool_], (f32, f32)), ("exp", [f64], (f64, f64)),
    ("lt", [i8, f32], (f32, bool_)), ("isnan", [f16], (f16, bool_)), ("xor", [i8, i64], (i64, i64)), ("not", [bool_], (bool_, bool_)),
])
def test_dtypes_follow_the_rule(name, operands, expected) -> None:
    assert result_dtype(name, operands) == expected


@pytest.mark.parametrize(("name", "operands", "says"), [
    ("sub", [bool_, bool_], "`sub` is not defined for bool"), ("neg", [bool_], "`neg` is not defined for bool"),
    ("and", [f32, i32], "`and` needs integers or bools, not f32"), ("shl", [f16, f16], "needs integers or bools"),
])
def test_what_is_not_defined_is_told_in_a_sentence(name, operands, says) -> None:
    assert says in str(result_dtype(name, operands))


def test_every_entry_is_whole() -> None:
    for name, info in OPS.items():
        assert info.name == name and info.rule in ("same", "float", "bool", "int", "num") and info.arity in (1, 2, 3)
        ones = [np.full(2, 1, np.uint32 if name == "mulhi" else np.int64 if info.rule == "int" else np.float64)] * info.arity
        ones = [n / 2 for n in ones] if name == "atanh" else ones
        assert np.asarray(info.numpy(*ones)).shape == (2,), name
        assert info.flops >= 1 or name in MARKS or name == "detach"
    assert set(PRECISIONS) <= MARKS <= set(OPS)


def test_what_commutes_does() -> None:
    rng = np.random.default_rng(0)
    for name in COMMUTATIVE:
        kind = np.uint32 if name == "mulhi" else np.int64
        a, b = (rng.integers(0, 1 << 31, 50).astype(kind) for _ in range(2))
        assert np.array_equal(OPS[name].numpy(a, b), OPS[name].numpy(b, a)), name
        assert OPS[name].arity == 2


def test_meanings_at_the_edges() -> None:
    values = np.array([-np.inf, -2.0, -0.5, 0.0, 3.0, np.inf, np.nan])
    assert OPS["sign"].numpy(values).tolist() == [-1, -1, -1, 0, 1, 1, 0]
    assert np.isinf(OPS["lgamma"].numpy(values[[0, 1, 3, 5]])).all()
    assert OPS["lgamma"].numpy(np.array([5.0]))[0] == pytest.approx(math.log(24))
    with np.errstate(all="ignore"):
        sigmoid = OPS["sigmoid"].numpy(np.array([-1e4, 0.0, 1e4]))
    assert sigmoid.tolist() == [0, 0.5, 1]
    n, zero = np.array([-7, 0, 7]), np.zeros(3, np.int64)
    assert OPS["floordiv"].numpy(n, zero).tolist() == [-1, -1, -1] and OPS["mod"].numpy(n, zero).tolist() == [-7, 0, 7]
    assert OPS["floordiv"].numpy(n, zero + 2).tolist() == [-4, 0, 3] and OPS["mod"].numpy(n, zero + 2).tolist() == [1, 0, 1]
    high = OPS["mulhi"].numpy(np.array([0xFFFFFFFF], np.uint32), np.array([0xFFFFFFFF], np.uint32))
    assert high.tolist() == [0xFFFFFFFE]

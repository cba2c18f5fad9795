"""Promotion and result dtypes are torch's: every pair, every scalar, every reduction."""

import itertools

import numpy as np
import pytest
import torch

import dlc
from dsl import dtype as dt
from dsl.dtype import ALL, by_name, promote, promote_scalar
from dsl.errors import DtypeError
from dsl.expr import Input, as_expr
from dsl.program import dims

TORCH = {"bool": torch.bool, "u8": torch.uint8, "u32": torch.uint32, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32,
         "i64": torch.int64, "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64,
         "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2}
OURS = {t: by_name(n) for n, t in TORCH.items()}
COMMON = [n for n in TORCH if n not in ("u32", "f8e4m3", "f8e5m2")]
N = dims("N")


def tensor(name, rank=1):
    return Input("x", (N.term,) * rank, by_name(name))


def torch_pairs():
    for a, b in itertools.product(TORCH, repeat=2):
        try:
            yield a, b, torch.promote_types(TORCH[a], TORCH[b])
        except RuntimeError:  # torch does not combine uint32 and float8 with most others
            continue


def test_every_dtype_of_torch_is_covered():
    assert set(TORCH) == set(ALL)


@pytest.mark.parametrize(("a", "b", "want"), list(torch_pairs()), ids=lambda v: str(v).replace("torch.", ""))
def test_promotion_of_pairs(a, b, want):
    assert promote(by_name(a), by_name(b)) == OURS[want]


@pytest.mark.parametrize("a", COMMON)
@pytest.mark.parametrize("scalar", [True, 3, 2.5])
def test_promotion_with_python_numbers(a, scalar):
    want = OURS[torch.result_type(torch.ones(2, dtype=TORCH[a]), scalar)]
    assert promote_scalar(by_name(a), scalar) == want
    assert dlc.mul(tensor(a), scalar).dtype == want


@pytest.mark.parametrize("a", COMMON)
@pytest.mark.parametrize("b", COMMON)
def test_tensors_with_tensors_of_rank_0(a, b):
    want = torch.result_type(torch.ones(2, dtype=TORCH[a]), torch.ones((), dtype=TORCH[b]))
    assert dlc.mul(tensor(a), tensor(b, 0)).dtype == OURS[want]


@pytest.mark.parametrize("name", ["add", "mul", "div", "floor_divide", "remainder", "pow", "maximum", "atan2", "eq", "lt", "bitwise_and",
                                  "fmod", "sub"])
@pytest.mark.parametrize(("a", "b"),
                         [("i32", "f16"), ("u8", "i8"), ("bool", "i16"), ("f32", "f64"), ("bf16", "f16"), ("i64", "i32"), ("bool", "bool")])
def test_results_of_operations(name, a, b):
    x, y = torch.ones(2, dtype=TORCH[a]), torch.ones(2, dtype=TORCH[b])
    try:
        want = OURS[getattr(torch, name)(x, y).dtype]
    except RuntimeError:
        return
    if name in ("floor_divide", "remainder", "pow", "fmod") and a == b == "bool":
        return
    assert getattr(dlc, name)(tensor(a), tensor(b)).dtype == want


@pytest.mark.parametrize("name", ["sum", "prod", "amax", "amin", "argmax", "argmin", "any", "all", "count_nonzero", "cumsum", "cumprod",
                                  "mean", "var", "std", "logsumexp"])
@pytest.mark.parametrize("a", COMMON)
def test_results_of_reductions(name, a):
    x = torch.ones(2, dtype=TORCH[a])
    try:
        want = OURS[(getattr(torch, name)(x) if name not in ("cumsum", "cumprod", "logsumexp") else getattr(torch, name)(x, 0)).dtype]
    except (RuntimeError, NotImplementedError):
        with pytest.raises(DtypeError):
            getattr(dlc, name)(tensor(a))
        return
    assert getattr(dlc, name)(tensor(a)).dtype == want


@pytest.mark.parametrize("name", ["exp", "sqrt", "sin", "sigmoid", "erf", "abs", "neg", "floor", "sign", "square", "isnan", "logical_not",
                                  "bitwise_not", "relu", "reciprocal", "trunc", "isfinite"])
@pytest.mark.parametrize("a", COMMON)
def test_results_of_functions(name, a):
    x = torch.ones(2, dtype=TORCH[a])
    try:
        want = OURS[getattr(torch, name)(x).dtype]
    except (RuntimeError, NotImplementedError):
        return
    assert getattr(dlc, name)(tensor(a)).dtype == want


def test_literals_of_python():
    assert [as_expr(v).dtype for v in (True, 3, 2.5)] == [dt.bool_, dt.i64, dt.f32]
    assert dlc.full((2,), np.float32(1.5)).dtype == dt.f32


def test_unknown_names_are_refused():
    with pytest.raises(DtypeError) as e:
        by_name("float33")
    assert "dtype error: unknown dtype 'float33'" in str(e.value) and "instead: one of bool, u8" in str(e.value)


@pytest.mark.parametrize(("call", "title"), [
    (lambda x: dlc.neg(x), "`neg` is not defined for bool; cast to an integer first"),
    (lambda x: x - x, "`sub` is not defined for bool; cast to an integer first"),
    (lambda x: dlc.mean(x), "mean of bool"), (lambda x: dlc.argmax(x), "argmax of bool"), (lambda x: dlc.var(x), "var of bool")])
def test_what_torch_refuses_of_bools(call, title):
    with pytest.raises(DtypeError) as e:
        call(tensor("bool"))
    assert str(e.value).splitlines()[0] == f"dtype error: {title}"


def test_bits_of_floats_are_refused():
    with pytest.raises(DtypeError) as e:
        tensor("f32") & tensor("i32")
    assert str(e.value).splitlines()[0] == "dtype error: `and` needs integers or bools, not f32"
    with pytest.raises(DtypeError) as e:
        tensor("i32") ** -1
    assert str(e.value).splitlines()[0] == "dtype error: integers cannot be raised to the negative power -1"

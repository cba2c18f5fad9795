"""What expressions are: their dtypes, their free axes, what may be an index, and what Python would misunderstand."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch

from dlc import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8
from dsl.carrier import SUM
from dsl.dim import Var, as_term
from dsl.dtype import ALL, Dtype
from dsl.errors import DlcError, DtypeError, IndexingError, UserError
from dsl.expr import Input, Reduce, as_expr, cast, const, index, op, read, reduce, where
from dsl.numerics import NUMPY

TORCH = {f64: torch.float64, f32: torch.float32, f16: torch.float16, bf16: torch.bfloat16, i64: torch.int64, i32: torch.int32,
         i16: torch.int16, i8: torch.int8, u8: torch.uint8, bool_: torch.bool}
BINARY = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv, "floordiv": operator.floordiv,
          "mod": operator.mod, "lt": operator.lt, "and_": operator.and_}
i, j = Var("i", 4), Var("j", 5)


def element(dtype: Dtype, name: str = "x"):
    return read(Input(name, (as_term(4), as_term(5)), dtype), (index(i), index(j)))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("a", TORCH, ids=str)
@pytest.mark.parametrize("b", [*TORCH, 2, 2.5, True], ids=str)
def test_operators_promote_as_in_torch(name: str, a: Dtype, b: Dtype | float) -> None:
    ours, theirs = (element(b, "y"), torch.ones((1,), dtype=TORCH[b])) if isinstance(b, Dtype) else (b, b)
    try:
        want = BINARY[name](torch.ones((1,), dtype=TORCH[a]), theirs).dtype
    except (RuntimeError, TypeError):
        want = None
    try:
        got = BINARY[name](element(a), ours).dtype
    except DlcError:
        got = None
    assert want is None or got is None or TORCH[got] == want, (a, b)
    assert want is None or got is not None or (name == "sub" and bool_ in (a, b)) or name == "and_", "torch can, so can we"


@pytest.mark.parametrize("dtype", ALL.values(), ids=str)
def test_literals_take_the_dtype_beside_them(dtype: Dtype) -> None:
    x = element(dtype)
    assert as_expr(1, x).dtype == (dtype if dtype is not bool_ else as_expr(1, x).dtype)
    assert cast(x, dtype) is x and cast(x, f32 if dtype is not f32 else f64).dtype in (f32, f64)
    assert NUMPY[dtype].itemsize == dtype.itemsize


def test_axes_that_are_free_and_bound() -> None:
    k = Var("k", 5)
    x = Input("x", (as_term(4), as_term(5)), f32)
    total = reduce(SUM, (read(x, (index(i), index(k))),), (k,))
    assert isinstance(total, Reduce) and total.free == {i} and total.args[0].free == {i, k}
    assert (total + element(f32)).free == {i, j}


def test_truth_values_are_refused() -> None:
    """``if``, ``and``, ``or`` and chained comparisons ask for a truth value that is not known yet."""
    x = element(f32)
    for use in (lambda: 1 if x > 0 else 2, lambda: x > 0 and x < 1, lambda: 0 < x < 1, lambda: not x, lambda: bool(x)):
        with pytest.raises(UserError):
            use()
    for use in (lambda: float(x), lambda: int(x), lambda: len(x), lambda: np.sin(x), lambda: iter(x)):
        with pytest.raises((UserError, TypeError)):
            use()


@pytest.mark.parametrize("bad", [1.5, "0", None, const(2.0, f32), const(True, bool_), np.float32(1)])
def test_what_is_no_index(bad: object) -> None:
    with pytest.raises((IndexingError, DtypeError)) as e:
        read(Input("x", (as_term(4),), f32), (bad,))
    assert e.value.loc.file == __file__


def test_a_wrong_number_of_indices() -> None:
    with pytest.raises((IndexingError, UserError), match="index|indices|dimension"):
        read(Input("x", (as_term(4), as_term(5)), f32), (index(i),))


def test_branches_have_one_dtype() -> None:
    assert where(element(bool_), element(i32), 1.5).dtype == f32 and where(element(bool_), element(f16), element(f64)).dtype == f64
    with pytest.raises(DtypeError):
        op("and", element(f32), element(f32))


def test_expressions_print_as_mathematics() -> None:
    x, y = element(f32), element(f32, "y")
    assert str((x + y) * x - 2.0) == "(x[i, j] + y[i, j]) * x[i, j] - 2.0" and str(-(x // y)) == "-(x[i, j] // y[i, j])"

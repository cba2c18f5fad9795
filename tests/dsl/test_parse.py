"""Text back to programs: what is printed reads back to the same mathematics; what is wrong is refused at its line and column."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dlc
from dlc import bf16, f16, f32, f64, i32
from dsl.canonical import canonical
from dsl.derivative import vjp
from dsl.dim import Var, as_term
from dsl.errors import TextError, UserError
from dsl.expr import Input, index
from dsl.parse import parse, parse_expr
from dsl.text import show, show_expr
from tests.dlc import gpu_cases
from tests.strategies import random_case

DTYPES = ((f32,), (f64,), (f32, i32), (bf16, f32), (f16, f32))

LINEAR = """\
M, N, K = dims("M N K")

def linear(x: f32[M, K], w: f32[N, K], b: f32[N]):
    y[i < M, j < N] = max(sum[k < K](x[i, k] * w[j, k]) + b[j], 0.0)
    return y
"""


def returns(program) -> None:
    text = show(program)
    again = parse(text)
    assert canonical(again) == canonical(program), text
    assert show(again) == text


@pytest.mark.parametrize("seed", range(120))
def test_random_programs_return(seed: int) -> None:
    program = random_case(seed, dtypes=DTYPES[seed % 5], symbolic=seed % 3 > 0).program
    returns(program)
    if seed % 6 == 0:
        try:
            backward = vjp(program)
        except UserError:
            return
        returns(backward)


@pytest.mark.parametrize("name", gpu_cases.CASES)
def test_kernels_return(name: str) -> None:
    returns(gpu_cases.CASES[name][0].program)


def test_a_text_is_a_kernel() -> None:
    x, w, b = torch.randn(5, 4), torch.randn(3, 4), torch.randn(3)
    linear = dlc.parse(LINEAR)
    torch.testing.assert_close(linear(x, w, b), torch.relu(x @ w.T + b))
    assert linear.source("expr") == LINEAR == repr(linear)


def test_scalars_outputs_and_casts() -> None:
    text = """\
M = dims("M")

def several(x: bf16[M], s: f32):
    total: f32 = sum[i < M](f32(x[i]) * s)
    y[i < M]: bf16 = f32(x[i]) / total
    return total, y
"""
    program = parse(text)
    assert show(program) == text and not program.single and [t.dtype for t in program.outputs] == [f32, bf16]
    assert not parse(text.replace("return total, y", "return y,")).single


def test_extents_of_axes_may_use_other_axes() -> None:
    program = parse("""\
M = dims("M")

def triangle(x: f32[M, M]):
    y[i < M] = sum[k < i + 1](x[i, k])
    return y
""")
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    np.testing.assert_allclose(dlc.Kernel.of(program).reference(x, float64=False), np.tril(x).sum(1), rtol=1e-6)


def test_one_expression() -> None:
    i, k = Var("i", 8), Var("k", 5)
    x = Input("x", (as_term(8), as_term(5)), f32)
    e = dlc.sum(x.read(index(i), index(k)) * 2.0 + index(i), index(k))
    assert parse_expr(show_expr(e), {"x": x, "i": i, "k": k}) is e
    assert parse_expr("sum[r < 5](x[i, r])", {"x": x, "i": i}).dtype is f32


WRONG = {
    "y[i < M] = x[i] +": (4, 22, "invalid syntax"),
    "y[i < M] = x[i] * z": (4, 23, "nothing is called `z` here"),
    "y[i < M] = x[i, i]": (4, 16, "x has 1 dimensions and is read with 2 indices"),
    "y[i] = x[i]": (4, 7, "`i` is not an axis with its extent: i < N"),
    "y[i < L] = x[i]": (4, 11, "`L` is not an index"),
    "y[i < M] = sum[k](x[k])": (4, 20, "`k` is not an axis with its extent: k < K"),
    "y[i < M] = total[k < M](x[k])": (4, 16, "there is no reduction `total`"),
    "y[i < M] = x[i] & x[i]": (4, 16, "`and` needs integers or bools, not f32"),
    "y[i < M] = frobnicate(x[i])": (4, 16, "`frobnicate` of 1 operands has no meaning here"),
    "y[i < M]: f31 = x[i]": (4, 15, "`f31` is not a dtype"),
    "y[i < M] = sum[k < M](x[k]) + max[k < 3](x[k])": (4, 39, "`k` has another extent elsewhere in the definition"),
    "y[i < M] = sum[k < M](x[i]) + x[k]": (4, 16, "axis `k` is used where nothing binds it"),
    "x[i < M] = 1.0": (4, 5, "`x` is defined twice"),
    "y[i < M] = moments[k < M](x[k])[2]": (4, 16, "moments has 2 results, and number 2 is asked for"),
    "y[i < M] = scan.sum[k < M](x[k])": (4, 16, "a scan of one axis says how far it goes"),
    "for i in y: pass": (4, 5, "neither `y[i < M] = ...`"),
}


@pytest.mark.parametrize("line", WRONG)
def test_errors_have_line_column_and_caret(line: str) -> None:
    number, column, why = WRONG[line]
    with pytest.raises(TextError) as e:
        parse(f'M = dims("M")\n\ndef wrong(x: f32[M]):\n    {line}\n    return y\n')
    assert e.value.title.startswith(f"line {number}, column {column}: {why}"), e.value.title
    shown, caret = e.value.reason.splitlines()
    assert line in shown and caret.index("^") == column - 1


@pytest.mark.parametrize("text, why", [
    ("", "a program is `def name"), ("x = 3\ndef f(x: f32):\n    return x", "sizes are declared before"),
    ("def f(x: f32):\n    y: f32 = x", "the program returns nothing"), ("def f(x):\n    return x", "`x` has no type"),
    ("def f(x: f32):\n    return x", "`x` is not a definition"),
    ('N = dims("M")\ndef f(x: f32):\n    return x', "the sizes 'M' are called N"),
])
def test_programs_that_are_none(text: str, why: str) -> None:
    with pytest.raises(TextError, match="line 1|line 2"):
        parse(text)
    with pytest.raises(TextError, match=why):
        parse(text)

"""The verifier: each rule of the expression IR, broken once."""

from __future__ import annotations

from typing import Any

import pytest

from dsl.carrier import ARGMAX, SUM
from dsl.check import verify
from dsl.dim import Var, as_term
from dsl.dtype import bf16, bool_, f32, i32, i64
from dsl.errors import InternalError
from dsl.expr import Cast, Compute, Const, Expr, Index, Input, Op, Param, Read, Reduce, Scan, Where, const, index
from dsl.program import Program
from dsl.widen import widen
from tests.strategies import random_case

N, M = Var("N", kind="dim"), Var("M", kind="dim")
X, IDX = Input("x", (as_term(N),), f32), Input("idx", (as_term(N),), i32)
I = Var("i", N)  # noqa: E741
K = Var("k", N)
AT = as_term(I)
ELEMENT = Read((), (X, (AT,)), f32)
YES = const(True)


def program(body: Expr, axes: tuple[Var, ...] = (I,), **options: Any) -> Program:
    return Program("p", (X, IDX), (Compute("y", axes, body, **options),))


@pytest.mark.parametrize("seed", range(60))
def test_traced_and_widened_programs_are_well_formed(seed: int) -> None:
    case = random_case(seed, dtypes=(f32, bf16))
    verify(case.program)
    verify(widen(case.program))
    verify(case.program.specialize(case.sizes))


BROKEN: dict[str, tuple[Expr, str]] = {
    "literal": (Const((), (91,), f32), "a literal of f32 holds 91"),
    "index dtype": (Index((), (AT,), i32), "an index is an i64 term"),
    "rank": (Read((), (X, (AT, AT)), f32), "is read with 2 indices"),
    "slots": (Read((ELEMENT,), (X, (AT,)), f32), "an index is a term, or the next operand"),
    "float index": (Read((ELEMENT,), (X, (None,)), f32), "an index is not an integer"),
    "element": (Read((), (X, (AT,)), bf16), "the element is f32"),
    "operands": (Op((ELEMENT, const(1.0, bf16)), ("add",), f32), "its operands differ in dtype"),
    "operation": (Op((ELEMENT,), ("frobnicate",), f32), "no such operation"),
    "arity": (Op((ELEMENT,), ("add",), f32), "not of this arity"),
    "bool result": (Op((ELEMENT, ELEMENT), ("lt",), f32), "its result is bool"),
    "float only": (Op((index(I),), ("exp",), i64), "it is not defined for i64"),
    "no bool": (Op((YES,), ("neg",), bool_), "it is not defined for bool"),
    "integers only": (Op((ELEMENT, ELEMENT), ("shl",), f32), "it is not defined for f32"),
    "idle cast": (Cast((ELEMENT,), (), f32), "a cast changes the dtype"),
    "condition": (Where((ELEMENT, ELEMENT, ELEMENT), (), f32), "a selection has a bool"),
    "branches": (Where((YES, ELEMENT, const(1.0, bf16)), (), f32), "its branches differ"),
    "carrier arity": (Reduce((ELEMENT,), (ARGMAX, (K,), 0), f32), "argmax takes 2 inputs"),
    "carrier result": (Reduce((ELEMENT,), (SUM, (K,), 1), f32), "sum has 1 results"),
    "carrier dtype": (Reduce((ELEMENT,), (SUM, (K,), 0), i64), "its result is f32"),
    "axes": (Reduce((ELEMENT,), (SUM, (K, K), 0), f32), "it needs distinct axes"),
    "extents": (Reduce((ELEMENT,), (SUM, (K, Var("q", K)), 0), f32), "depends on one bound beside it"),
    "scan": (Scan((ELEMENT,), (SUM, K, AT, 0, 0, False), f32), "a scan has an axis, a position"),
    "placeholder": (Param((), (0,), f32), "Param is not a node of a program"),
    "unbound": (Read((), (X, (as_term(K),)), f32), "uses the unbound axis k"),
    "stranger": (Read((), (Input("z", (as_term(N),), f32), (AT,)), f32), "z is not an input of the program"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule(name: str) -> None:
    body, message = BROKEN[name]
    with pytest.raises(InternalError, match=message):
        verify(program(body))


def test_rules_of_definitions() -> None:
    with pytest.raises(InternalError, match="y is bf16 with a body of f32"):
        verify(program(ELEMENT, dtype=bf16))
    with pytest.raises(InternalError, match="y has an axis twice"):
        verify(program(ELEMENT, (I, I)))
    with pytest.raises(InternalError, match="y has an axis in its shape"):
        verify(program(ELEMENT, (I, Var("j", I))))
    with pytest.raises(InternalError, match="y has a shape that is not its extents|without extent"):
        verify(program(ELEMENT, (I, Var("j"))))
    c = Compute("y", (I,), ELEMENT)
    with pytest.raises(InternalError, match="p has an output twice"):
        verify(Program("p", (X,), (c, c)))
    with pytest.raises(InternalError, match="p has an input twice"):
        verify(Program("p", (X, X), (c,)))

"""Sizes beside numbers: ``x.shape[-1] * 0.5``, ``D ** -0.5``, ``1 / D``.

A size is an index term, whose sums and products with integers are index terms again. Everything else gives a value: a Python number
where the size is known, else a scalar expression with the dtypes of torch (a quotient of integers is f32).
"""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

from dsl.dim import Term, as_term
from dsl.expr import index, op


def _beside(size: Term, name: str, other: Any, swap: bool = False) -> Any:
    """``size name other``, or the other way round, where the result is no index."""
    if isinstance(other, Term) and other.is_const:
        other = other.const
    if name == "pow" and not swap and isinstance(other, int) and other >= 0:
        return math.prod([size] * other, start=as_term(1))
    if size.is_const and isinstance(other, numbers.Real):
        return getattr(operator, name)(*((other, size.const) if swap else (size.const, other)))
    if hasattr(other, "__dlc_array__"):
        return NotImplemented
    name = "div" if name == "truediv" else name
    return op(name, other, index(size)) if swap else op(name, index(size), other)


def _abs(size: Term) -> Any:
    return size if size.bounds[0] >= 0 else op("abs", index(size))


def _install_operators() -> None:
    for name, made in {"beside": _beside, "__abs__": _abs}.items():
        setattr(Term, name, made)
    for name in ("pow", "truediv"):
        setattr(Term, f"__{name}__", lambda self, other, n=name: self.beside(n, other))
        setattr(Term, f"__r{name}__", lambda self, other, n=name: self.beside(n, other, swap=True))
    for name in ("lt", "le", "gt", "ge"):
        setattr(Term, f"__{name}__", lambda self, other, n=name: self.beside(n, other))


_install_operators()

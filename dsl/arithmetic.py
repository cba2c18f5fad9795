"""The operators of scalar expressions and of sizes, as types: what ``a + 1`` or ``-a`` gives. Modules above fill them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

E = TypeVar("E")


class Arithmetic(Generic[E]):
    """Operators whose other operand is an expression, an index or a number, and whose result is an expression: :mod:`dsl.expr`."""

    __slots__ = ()

    __add__: Callable[[Any, Any], E]
    __radd__: Callable[[Any, Any], E]
    __sub__: Callable[[Any, Any], E]
    __rsub__: Callable[[Any, Any], E]
    __mul__: Callable[[Any, Any], E]
    __rmul__: Callable[[Any, Any], E]
    __truediv__: Callable[[Any, Any], E]
    __rtruediv__: Callable[[Any, Any], E]
    __floordiv__: Callable[[Any, Any], E]
    __mod__: Callable[[Any, Any], E]
    __pow__: Callable[[Any, Any], E]
    __and__: Callable[[Any, Any], E]
    __or__: Callable[[Any, Any], E]
    __lt__: Callable[[Any, Any], E]
    __le__: Callable[[Any, Any], E]
    __gt__: Callable[[Any, Any], E]
    __ge__: Callable[[Any, Any], E]
    __neg__: Callable[[Any], E]
    __abs__: Callable[[Any], E]
    __invert__: Callable[[Any], E]


class SizeArithmetic(Generic[E]):
    """Operators of index terms that need more than their structure.

    :mod:`dsl.dim` divides and substitutes. What is a value and no index any more is made by :mod:`dsl.sizes`.
    """

    __slots__ = ()

    __floordiv__: Callable[[Any, Any], E]
    __rfloordiv__: Callable[[Any, Any], E]
    __mod__: Callable[[Any, Any], E]
    __rmod__: Callable[[Any, Any], E]
    subs: Callable[[Any], E]

    beside: Callable[..., E]  # typed as the operators are, for indices
    __pow__: Callable[[Any, Any], Any]
    __rpow__: Callable[[Any, Any], Any]
    __truediv__: Callable[[Any, Any], Any]
    __rtruediv__: Callable[[Any, Any], Any]
    __lt__: Callable[[Any, Any], Any]
    __le__: Callable[[Any, Any], Any]
    __gt__: Callable[[Any, Any], Any]
    __ge__: Callable[[Any, Any], Any]
    __abs__: Callable[[Any], Any]

"""The operators of tensors: each records the operation of the language that it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsl.ops.matmul import matmul
from dsl.ops.pointwise import (
    abs,
    add,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    equal,
    floordiv,
    greater,
    greater_equal,
    left_shift,
    less,
    less_equal,
    mul,
    neg,
    not_equal,
    pow,
    remainder,
    right_shift,
    sub,
    true_divide,
)


class Operators:
    """Arithmetic, comparisons and logic, element by element, and ``@``."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __dlc_function__(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Record an operation."""
        raise NotImplementedError

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any:
            """The operations of the language as methods."""

    def __add__(self, other: Any) -> Any:
        return self.__dlc_function__(add, (self, other), {})

    def __radd__(self, other: Any) -> Any:
        return self.__dlc_function__(add, (other, self), {})

    def __sub__(self, other: Any) -> Any:
        return self.__dlc_function__(sub, (self, other), {})

    def __rsub__(self, other: Any) -> Any:
        return self.__dlc_function__(sub, (other, self), {})

    def __mul__(self, other: Any) -> Any:
        return self.__dlc_function__(mul, (self, other), {})

    def __rmul__(self, other: Any) -> Any:
        return self.__dlc_function__(mul, (other, self), {})

    def __truediv__(self, other: Any) -> Any:
        return self.__dlc_function__(true_divide, (self, other), {})

    def __rtruediv__(self, other: Any) -> Any:
        return self.__dlc_function__(true_divide, (other, self), {})

    def __floordiv__(self, other: Any) -> Any:
        return self.__dlc_function__(floordiv, (self, other), {})

    def __rfloordiv__(self, other: Any) -> Any:
        return self.__dlc_function__(floordiv, (other, self), {})

    def __mod__(self, other: Any) -> Any:
        return self.__dlc_function__(remainder, (self, other), {})

    def __rmod__(self, other: Any) -> Any:
        return self.__dlc_function__(remainder, (other, self), {})

    def __pow__(self, other: Any) -> Any:
        return self.__dlc_function__(pow, (self, other), {})

    def __rpow__(self, other: Any) -> Any:
        return self.__dlc_function__(pow, (other, self), {})

    def __matmul__(self, other: Any) -> Any:
        return self.__dlc_function__(matmul, (self, other), {})

    def __rmatmul__(self, other: Any) -> Any:
        return self.__dlc_function__(matmul, (other, self), {})

    def __and__(self, other: Any) -> Any:
        return self.__dlc_function__(bitwise_and, (self, other), {})

    def __rand__(self, other: Any) -> Any:
        return self.__dlc_function__(bitwise_and, (other, self), {})

    def __or__(self, other: Any) -> Any:
        return self.__dlc_function__(bitwise_or, (self, other), {})

    def __ror__(self, other: Any) -> Any:
        return self.__dlc_function__(bitwise_or, (other, self), {})

    def __xor__(self, other: Any) -> Any:
        return self.__dlc_function__(bitwise_xor, (self, other), {})

    def __rxor__(self, other: Any) -> Any:
        return self.__dlc_function__(bitwise_xor, (other, self), {})

    def __lshift__(self, other: Any) -> Any:
        return self.__dlc_function__(left_shift, (self, other), {})

    def __rlshift__(self, other: Any) -> Any:
        return self.__dlc_function__(left_shift, (other, self), {})

    def __rshift__(self, other: Any) -> Any:
        return self.__dlc_function__(right_shift, (self, other), {})

    def __rrshift__(self, other: Any) -> Any:
        return self.__dlc_function__(right_shift, (other, self), {})

    def __eq__(self, other: Any) -> Any:
        return self.__dlc_function__(equal, (self, other), {})

    def __ne__(self, other: Any) -> Any:
        return self.__dlc_function__(not_equal, (self, other), {})

    def __lt__(self, other: Any) -> Any:
        return self.__dlc_function__(less, (self, other), {})

    def __le__(self, other: Any) -> Any:
        return self.__dlc_function__(less_equal, (self, other), {})

    def __gt__(self, other: Any) -> Any:
        return self.__dlc_function__(greater, (self, other), {})

    def __ge__(self, other: Any) -> Any:
        return self.__dlc_function__(greater_equal, (self, other), {})

    def __neg__(self) -> Any:
        return self.__dlc_function__(neg, (self,), {})

    def __abs__(self) -> Any:
        return self.__dlc_function__(abs, (self,), {})

    def __invert__(self) -> Any:
        return self.__dlc_function__(bitwise_not, (self,), {})

"""Methods: the operations of the language on tensors, by the names that users of torch and numpy look for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dsl
from dlc.tensor.tensor import Tensor, record

#: Names of the language that make no sense as methods, or that the class has with another meaning.
_NOT_METHODS = frozenset({"where", "glu", "geglu", "swiglu", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "meshgrid",
                          "broadcast_tensors", "einsum", "embedding", "scaled_dot_product_attention"})
_REDUCTIONS = ("sum", "mean", "max", "min", "prod", "any", "all", "argmax", "argmin", "logsumexp", "amax", "amin")


def install(cls: type[Tensor]) -> None:
    """Give the class its methods."""
    for name in dsl.__all__:
        fn = getattr(dsl, name)
        if callable(fn) and hasattr(fn, "__wrapped__") and name not in _NOT_METHODS and not hasattr(cls, name):
            setattr(cls, name, _reduction(fn) if name in _REDUCTIONS else _method(fn))


def _method(fn: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return record(fn, (self, *args), kwargs)

    method.__name__, method.__doc__ = fn.__name__, fn.__doc__
    return method


def _reduction(fn: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, axis: Any = None, keepdims: bool = False, **kwargs: Any) -> Any:
        for own, torchs in (("axis", "dim"), ("keepdims", "keepdim")):
            if torchs in kwargs:
                axis, keepdims = (kwargs.pop(torchs), keepdims) if own == "axis" else (axis, kwargs.pop(torchs))
        return record(fn, (self,), {"axis": axis, "keepdims": keepdims, **kwargs})

    method.__name__, method.__doc__ = fn.__name__, fn.__doc__
    return method

"""Array operations, written in the language; importing this gives tensors their operators."""

from __future__ import annotations

from typing import Any

from dsl.expr import Tensor
from dsl.ops import pointwise as p
from dsl.ops import reduction as r
from dsl.ops.activation import *  # noqa: F403
from dsl.ops.conv import conv1d, conv2d, conv3d
from dsl.ops.matmul import linear, matmul
from dsl.ops.norm import layer_norm, log_softmax, rms_norm, softmax
from dsl.ops.slicing import getitem, view


def transpose(x: Tensor, *axes: int) -> Any:
    """The tensor with its axes permuted; reversed when none are named."""
    order = axes or tuple(reversed(range(x.ndim)))
    back = {a % x.ndim: n for n, a in enumerate(order)}
    return view(x, "transpose", [x.shape[a] for a in order], lambda *at: [at[back[n]] for n in range(x.ndim)])


def _install() -> None:
    two = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide", "mod": "remainder", "pow": "pow"}
    for dunder, name in two.items():
        fn = getattr(p, name, None)
        if fn is not None:
            setattr(Tensor, f"__{dunder}__", lambda self, other, fn=fn: fn(self, other))
            setattr(Tensor, f"__r{dunder}__", lambda self, other, fn=fn: fn(other, self))
    Tensor.__matmul__ = lambda self, other: matmul(self, other)  # type: ignore[attr-defined]
    Tensor.__getitem__ = getitem  # type: ignore[attr-defined]
    Tensor.T = property(transpose)  # type: ignore[attr-defined]
    for name in ("sum", "mean", "max", "min", "prod", "argmax", "argmin", "var", "std"):
        setattr(Tensor, name, lambda self, axis=None, keepdims=False, fn=getattr(r, name): fn(self, axis=axis, keepdims=keepdims))


_install()
__all__ = ["conv1d", "conv2d", "conv3d", "layer_norm", "linear", "log_softmax", "matmul", "p", "r", "rms_norm", "softmax", "transpose"]

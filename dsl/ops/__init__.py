"""Array operations, written in the language; importing this gives tensors their operators."""

from __future__ import annotations

from typing import Any

from dsl.expr import Tensor
from dsl.ops import pointwise as p
from dsl.ops import reduction as r
from dsl.ops.activation import *  # noqa: F403
from dsl.ops.conv import conv1d, conv2d, conv3d
from dsl.ops.cumulative import cummax, cummin, cumprod, cumsum, logcumsumexp, scan
from dsl.ops.matmul import linear, matmul
from dsl.ops.norm import layer_norm, log_softmax, rms_norm, softmax
from dsl.ops.slicing import getitem, view


def transpose(x: Tensor, *axes: int) -> Any:
    """The tensor with its axes permuted; reversed when none are named."""
    order = axes or tuple(reversed(range(x.ndim)))
    back = {a % x.ndim: n for n, a in enumerate(order)}
    return view(x, "transpose", [x.shape[a] for a in order], lambda *at: [at[back[n]] for n in range(x.ndim)])


def _install() -> None:
    two = {"add": p.add, "sub": p.sub, "mul": p.mul, "truediv": p.div, "floordiv": p.floordiv, "mod": p.remainder, "pow": p.pow,
           "and": p.bitwise_and, "or": p.bitwise_or, "xor": p.bitwise_xor, "lshift": p.left_shift, "rshift": p.right_shift}
    for dunder, fn in two.items():
        setattr(Tensor, f"__{dunder}__", lambda self, other, fn=fn: fn(self, other))
        setattr(Tensor, f"__r{dunder}__", lambda self, other, fn=fn: fn(other, self))
    for dunder, fn in {"eq": p.equal, "ne": p.not_equal, "lt": p.less, "le": p.less_equal, "gt": p.greater, "ge": p.greater_equal}.items():
        if dunder not in ("eq", "ne"):  # tensors have identity: they are keys of dictionaries; use dlc.equal
            setattr(Tensor, f"__{dunder}__", lambda self, other, fn=fn: fn(self, other))
    for dunder, fn in {"neg": p.neg, "abs": p.abs, "invert": p.bitwise_not}.items():
        setattr(Tensor, f"__{dunder}__", lambda self, fn=fn: fn(self))
    Tensor.__matmul__ = lambda self, other: matmul(self, other)  # type: ignore[attr-defined]
    Tensor.__getitem__ = getitem  # type: ignore[attr-defined]
    Tensor.T = property(transpose)  # type: ignore[attr-defined]
    for fn in (r.sum, r.mean, r.max, r.min, r.prod, r.argmax, r.argmin, r.var, r.std):
        setattr(Tensor, fn.__name__, lambda self, axis=None, keepdims=False, fn=fn: fn(self, axis=axis, keepdims=keepdims))


_install()
__all__ = ["conv1d", "conv2d", "conv3d", "cummax", "cummin", "cumprod", "cumsum", "layer_norm", "linear", "log_softmax", "logcumsumexp", "matmul", "p", "r",
           "rms_norm", "scan", "softmax", "transpose"]

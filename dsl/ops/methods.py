"""Operators and methods of tensors inside kernels: ``x @ w``, ``x[:, ::2]``, ``x.sum(1)``, ``x.T``, as a torch user writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dsl import dtype as dt
from dsl.dim import Term, product
from dsl.dtype import Dtype
from dsl.errors import UserError
from dsl.expr import Expr, Tensor
from dsl.ops import activation, compound, cumulative, indexing, joining, matmul, norm, pointwise, reduction, shape
from dsl.ops.slicing import getitem, length

_BINARY = {"add": pointwise.add, "sub": pointwise.sub, "mul": pointwise.mul, "truediv": pointwise.true_divide,
           "floordiv": pointwise.floordiv, "mod": pointwise.remainder, "pow": pointwise.pow, "and": pointwise.bitwise_and,
           "or": pointwise.bitwise_or, "xor": pointwise.bitwise_xor, "lshift": pointwise.left_shift, "rshift": pointwise.right_shift,
           "matmul": matmul.matmul}
# `==` and `!=` keep their meaning of identity: tensors are keys of dictionaries. Use dlc.equal.
_COMPARED = {"lt": pointwise.less, "le": pointwise.less_equal, "gt": pointwise.greater, "ge": pointwise.greater_equal}
_UNARY = {"neg": pointwise.neg, "abs": pointwise.abs, "invert": pointwise.bitwise_not, "pos": lambda x: x, "round": pointwise.round,
          "floor": pointwise.floor, "ceil": pointwise.ceil, "trunc": pointwise.trunc}

_METHODS: dict[Any, str] = {
    pointwise: "abs absolute acos acosh add arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh bitwise_and "
               "bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor cast ceil clamp clamp_max clamp_min clip cos "
               "cosh detach div divide eq erf erfc exp exp2 expm1 fix floor floor_divide fmod ge greater greater_equal gt isfinite isinf "
               "isnan le less less_equal lgamma log log10 log1p log2 logical_and logical_not logical_or logical_xor lt maximum minimum mul "
               "multiply ne neg negative not_equal pow reciprocal remainder round rsqrt sigmoid sign sin sinh sqrt square sub subtract tan "
               "tanh true_divide trunc",
    compound: "addcdiv addcmul copysign deg2rad digamma frac heaviside hypot isclose lerp logaddexp logaddexp2 logit nan_to_num rad2deg "
              "signbit sinc xlogy",
    activation: "relu",
    reduction: "all amax amin aminmax any argmax argmin count_nonzero logsumexp max mean min norm prod std sum var",
    cumulative: "cummax cummin cumprod cumsum logcumsumexp",
    matmul: "addmm addmv baddbmm bmm dot kron matmul mm mv outer",
    norm: "log_softmax softmax",
    shape: "broadcast_to expand expand_as flatten flip moveaxis permute ravel repeat repeat_interleave reshape roll rot90 squeeze swapaxes "
           "tile transpose unflatten unsqueeze",
    joining: "chunk narrow select split tensor_split unbind",
    indexing: "diag diag_embed diagonal diff gather index_select masked_fill take take_along_dim tril triu",
}
_RENAMED: dict[str, Callable[..., Any]] = {
    "view": shape.reshape, "unfold": shape.unfold_axis, "trace": indexing.trace_of, "movedim": shape.moveaxis, "swapdims": shape.swapaxes,
    "astype": pointwise.cast, "type": pointwise.cast, "t": shape.transpose, "contiguous": lambda x: x,
}
_CONVERSIONS = {"float": dt.f32, "double": dt.f64, "half": dt.f16, "bfloat16": dt.bf16, "int": dt.i32, "long": dt.i64, "short": dt.i16,
                "char": dt.i8, "byte": dt.u8, "bool": dt.bool_}


def install() -> None:
    """Give :class:`dsl.expr.Tensor` its operators and methods, and elements their ``**``."""
    for dunder, fn in _BINARY.items():
        _set(f"__{dunder}__", _forward(fn))
        _set(f"__r{dunder}__", _swapped(fn))
    setattr(Expr, "__pow__", pointwise.power)  # noqa: B010  (a slot of a generic class)
    for dunder, fn in _COMPARED.items():
        _set(f"__{dunder}__", _forward(fn))
    for dunder, fn in _UNARY.items():
        _set(f"__{dunder}__", _alone(fn))
    for module, names in _METHODS.items():
        for name in names.split():
            _set(name, getattr(module, name))
    for name, fn in _RENAMED.items():
        _set(name, fn)
    for name, dtype in _CONVERSIONS.items():
        _set(name, _converter(dtype))
    for name, value in {"__getitem__": getitem, "__iter__": _iterate, "__len__": length, "__array_ufunc__": None,
                        "T": property(shape.transpose), "mT": property(shape.matrix_transpose), "to": _to, "size": _size, "dim": _rank,
                        "numel": _count, "type_as": _as_type}.items():
        _set(name, value)
    for kind in (Tensor, Expr):
        setattr(kind, "__torch_function__", classmethod(_torch_called))  # noqa: B010  (a protocol of torch's)


def _set(name: str, value: Any) -> None:
    setattr(Tensor, name, value)


def _forward(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: fn(self, other)


def _swapped(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: fn(other, self)


def _alone(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: fn(self)


def _converter(dtype: Dtype) -> Callable[..., Any]:
    def convert(self: Tensor) -> Any:
        return pointwise.cast(self, dtype)

    convert.__doc__ = f"Converted to {dtype}."
    return convert


def _torch_called(kind: type, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """What a function of torch gives on a tensor or element of a definition: an error that says so.

    A number of torch's beside an operator leaves it to the other side, which takes the number.
    """
    if type(function).__name__.endswith("_descriptor"):
        return NotImplemented
    name = getattr(function, "__name__", "a function").strip("_")
    raise UserError(f"torch's {name} in a definition", "a definition is traced on symbols, before there are numbers",
                    f"the language's own: dlc.{name}")


def _iterate(self: Tensor) -> Iterator[Any]:
    """The slices along the first axis; its size must be a number."""
    return iter(joining.unbind(self, 0))


def _to(self: Tensor, dtype: Any) -> Any:
    """Converted to a dtype, or to that of another tensor."""
    if isinstance(dtype, Tensor):
        dtype = dtype.dtype
    if not isinstance(dtype, Dtype):
        raise UserError(f"x.to({dtype!r}) inside a kernel", "a kernel's tensors have no device", "a dtype of dlc: x.to(dlc.f32)")
    return pointwise.cast(self, dtype)


def _as_type(self: Tensor, other: Tensor) -> Any:
    """Converted to the dtype of another tensor."""
    return pointwise.cast(self, other.dtype)


def _size(self: Tensor, axis: int | None = None) -> Any:
    """The shape, or one of its sizes."""
    return self.shape if axis is None else self.shape[axis]


def _rank(self: Tensor) -> int:
    """The number of dimensions."""
    return self.ndim


def _count(self: Tensor) -> Term:
    """The number of elements."""
    return product(self.shape)

"""Softmax and normalisations, written as the textbook has them."""

from __future__ import annotations

from typing import Any

from dsl.dim import product
from dsl.dtype import Dtype
from dsl.errors import DtypeError, ShapeError
from dsl.expr import Expr, Tensor, cast, index
from dsl.ops import reduction as r
from dsl.ops.dispatch import axis_number, lift, operation, same_size, show_shape, static, tensor
from dsl.ops.pointwise import cast as cast_tensor
from dsl.ops.pointwise import exp, log, maximum, rsqrt
from dsl.ops.shape import reshape
from dsl.program import as_size

_FINEST = {"f64": 2.220446049250313e-16, "f32": 1.1920928955078125e-07, "f16": 0.0009765625, "bf16": 0.0078125}


@operation
def softmax(x: Tensor, axis: int = -1, dtype: Dtype | None = None) -> Any:
    """``exp(x - max) / sum(exp(x - max))`` along an axis."""
    x = _floats(x, "softmax", dtype)
    e = exp(x - r.max(x, axis=axis, keepdims=True))
    return e / r.sum(e, axis=axis, keepdims=True)


@operation
def softmin(x: Tensor, axis: int = -1, dtype: Dtype | None = None) -> Any:
    """The softmax of ``-x``."""
    return softmax(-_floats(x, "softmin", dtype), axis)


@operation
def log_softmax(x: Tensor, axis: int = -1, dtype: Dtype | None = None) -> Any:
    """``x - max - log(sum(exp(x - max)))`` along an axis."""
    x = _floats(x, "log_softmax", dtype)
    shifted = x - r.max(x, axis=axis, keepdims=True)
    return shifted - log(r.sum(exp(shifted), axis=axis, keepdims=True))


def _floats(x: Any, what: str, dtype: Dtype | None = None) -> Any:
    t = tensor(x, what)
    if dtype is not None:
        t = cast_tensor(t, dtype)
    if not t.dtype.is_float:
        raise DtypeError(f"{what} of {t.dtype}", f"`{t.name}` is {t}", "cast first: dlc.cast(x, dlc.f32)")
    return t


# -- along the last axes -------------------------------------------------------------------------------------------
@operation
def layer_norm(x: Tensor, normalized_shape: Any = None, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Zero mean and unit variance along the last axes, then ``* weight + bias``; the variance is biased.

    ``layer_norm(x, (N,), weight, bias)`` as in torch, or ``layer_norm(x, weight, bias)``: then ``weight`` says how many axes
    (one without it).

    Raises:
        ShapeError: the shape is not that of the last axes, or the weight or bias has another.
    """
    shape, weight, bias, eps = _arguments(normalized_shape, weight, bias, eps)
    x = _floats(x, "layer_norm")
    axes = _last(x, shape, weight, bias, "layer_norm")
    centred = x - r.mean(x, axis=axes, keepdims=True)
    y = centred * rsqrt(r.mean(centred * centred, axis=axes, keepdims=True) + eps)
    return _affine(y, weight, bias)


@operation
def rms_norm(x: Any, normalized_shape: Any = None, weight: Any = None, eps: float | None = None) -> Any:
    """``x / sqrt(mean(x**2) + eps)`` along the last axes, then ``* weight``.

    ``rms_norm(x, (N,), weight, eps)`` as in torch, where an ``eps`` of None is the machine's for the dtype; or
    ``rms_norm(x, weight, eps)``, along the axes that ``weight`` has (one without it), with an ``eps`` of 1e-6.
    """
    if normalized_shape is None or isinstance(normalized_shape, Tensor):
        if isinstance(weight, float):
            weight, eps = None, weight
        weight, normalized_shape = normalized_shape if isinstance(normalized_shape, Tensor) else weight, None
        eps = 1e-6 if eps is None else eps
    x = _floats(x, "rms_norm")
    axes = _last(x, normalized_shape, weight, None, "rms_norm")
    y = x * rsqrt(r.mean(x * x, axis=axes, keepdims=True) + (_FINEST.get(x.dtype.name, _FINEST["f32"]) if eps is None else eps))
    return _affine(y, weight, None)


def _arguments(shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any, float]:
    """The short form ``(x, weight, bias, eps)`` as the long one."""
    if not isinstance(shape, Tensor):
        return shape, weight, bias, eps
    return (None, shape, weight if weight is not None else bias if isinstance(bias, Tensor) else None,
            bias if isinstance(bias, float) else eps)


def _last(x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, what: str) -> tuple[int, ...]:
    """The axes that are normalised, their sizes checked."""
    given = [t for t in (weight, bias) if t is not None]
    if shape is None:
        sizes = list(given[0].shape) if given else list(x.shape[-1:])
    else:
        sizes = [as_size(s, "a size of normalized_shape") for s in (shape if isinstance(shape, (tuple, list)) else (shape,))]
    if not sizes or len(sizes) > x.ndim or list(x.shape[-len(sizes):]) != sizes:
        raise ShapeError(f"{what}: {show_shape(sizes)} are not the last dimensions of `{x.name}` {show_shape(x.shape)}",
                         remedy="normalized_shape and the weights have the shape of the dimensions to normalise")
    for t in given:
        if list(t.shape) != sizes:
            raise ShapeError(f"{what}: `{t.name}` {show_shape(t.shape)} does not fit the normalised dimensions {show_shape(sizes)}",
                             f"of `{x.name}` {show_shape(x.shape)}")
    return tuple(range(x.ndim - len(sizes), x.ndim))


def _affine(y: Any, weight: Any, bias: Any) -> Any:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


# -- along batches and planes --------------------------------------------------------------------------------------
@operation
def batch_norm(x: Tensor, running_mean: Any = None, running_var: Any = None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> Any:
    """Each channel (dimension 1) with zero mean and unit variance, then ``* weight + bias``.

    The statistics are the running ones, or those of the batch when ``training`` or when there are none. Nothing is updated in place:
    in training with running statistics the result is ``(y, new running mean, new running variance)``.

    Raises:
        ShapeError: there is no channel dimension, or a vector does not have its size.
    """
    x = _floats(x, "batch_norm")
    if x.ndim < 2:
        raise ShapeError(f"batch_norm of `{x.name}` {show_shape(x.shape)}", "dimension 1 has the channels", "x is [batch, channels, ...]")
    for t in (running_mean, running_var, weight, bias):
        if t is not None:
            same_size(t.shape[0], x.shape[1], f"`{t.name}` {show_shape(t.shape)}", f"the channels of `{x.name}` {show_shape(x.shape)}",
                      "batch_norm")
    if (running_mean is None) != (running_var is None):
        raise ShapeError("batch_norm with a running mean or variance alone", remedy="give both, or none")
    axes = tuple(n for n in range(x.ndim) if n != 1)
    if running_mean is not None and running_var is not None and not training:
        return _normalised(x, running_mean, running_var, weight, bias, eps)
    mean, var = r.mean(x, axis=axes), r.var(x, axis=axes, correction=0)
    y = _normalised(x, mean, var, weight, bias, eps)
    if running_mean is None or running_var is None:
        return y
    count = product(x.shape[n] for n in axes)

    def corrected(v: Expr) -> Expr:
        return v * (cast(index(count), v.dtype) / cast(index(count - 1), v.dtype))

    unbiased = lift(corrected, "unbiased", (var,))
    return y, running_mean * (1 - momentum) + mean * momentum, running_var * (1 - momentum) + unbiased * momentum


def _normalised(x: Tensor, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with vectors along dimension 1."""
    def column(t: Any) -> Any:
        return None if t is None else reshape(t, (t.shape[0], *[1] * (x.ndim - 2)))

    return _affine((x - column(mean)) * rsqrt(column(var) + eps), column(weight), column(bias))


@operation
def group_norm(x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Any:
    """Zero mean and unit variance over the channels of each group and all positions, then ``* weight + bias`` by channel.

    Raises:
        ShapeError: the channels do not part into the groups.
    """
    x = _floats(x, "group_norm")
    if x.ndim < 2:
        raise ShapeError(f"group_norm of `{x.name}` {show_shape(x.shape)}", "dimension 1 has the channels", "x is [batch, channels, ...]")
    channels = static(x.shape[1], "the number of channels of group_norm") if num_groups > 1 else x.shape[1]
    if isinstance(channels, int) and channels % num_groups:
        raise ShapeError(f"group_norm: {channels} channels of `{x.name}` {show_shape(x.shape)} do not part into {num_groups} groups",
                         f"{channels} is not a multiple of {num_groups}")
    each = channels // num_groups
    parts = reshape(x, (x.shape[0], num_groups, each, *x.shape[2:]))
    axes = tuple(range(2, parts.ndim))
    centred = parts - r.mean(parts, axis=axes, keepdims=True)
    y = centred * rsqrt(r.mean(centred * centred, axis=axes, keepdims=True) + eps)
    vectors = (None if t is None else reshape(t, (num_groups, each, *[1] * (x.ndim - 2))) for t in (weight, bias))
    return reshape(_affine(y, *vectors), x.shape)


@operation
def instance_norm(x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5) -> Any:
    """Zero mean and unit variance over the positions of each sample and channel, then ``* weight + bias`` by channel.

    With ``use_input_stats=False`` the running statistics are taken instead.
    """
    x = _floats(x, "instance_norm")
    if x.ndim < 3:
        raise ShapeError(f"instance_norm of `{x.name}` {show_shape(x.shape)}", "there are no positions", "x is [batch, channels, ...]")
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    axes = tuple(range(2, x.ndim))
    centred = x - r.mean(x, axis=axes, keepdims=True)
    y = centred * rsqrt(r.mean(centred * centred, axis=axes, keepdims=True) + eps)
    return _affine(y, *(None if t is None else reshape(t, (t.shape[0], *[1] * (x.ndim - 2))) for t in (weight, bias)))


@operation
def normalize(x: Tensor, p: float = 2.0, axis: int = 1, eps: float = 1e-12) -> Any:
    """``x`` divided by its norm along an axis, or by ``eps`` where the norm is less."""
    x = _floats(x, "normalize")
    d = axis_number(axis, x.ndim, "normalize")
    return x / maximum(r.norm(x, p, axis=d, keepdims=True), eps)

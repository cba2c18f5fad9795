"""Planes at another size: interpolation, pixel shuffles, and images as the matrices of their windows."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from dsl.carrier import SUM
from dsl.dim import Term, as_term, product
from dsl.dtype import Dtype, f32
from dsl.errors import ShapeError
from dsl.expr import Expr, Tensor, cast, const, index, op, where
from dsl.ops.dispatch import build, lift, names_of, operation, require, static, tensor
from dsl.ops.padding import pad_constant
from dsl.ops.slicing import view
from dsl.ops.windows import check_count, count, each
from dsl.program import as_size, reduce_axis, reduce_over

_MODES = {"nearest": None, "nearest-exact": None, "linear": 1, "bilinear": 2, "trilinear": 3}


@operation
def interpolate(x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None,
                recompute_scale_factor: bool | None = None) -> Any:
    """The planes of ``(N, C, ...)`` at another size.

    Positions are exact quotients of integers: nothing is lost to a rounded scale.

    Args:
        x: one, two or three spatial dimensions after batch and channels.
        size: of the result, one number or one for each spatial dimension.
        scale_factor: instead of ``size``.
        mode: ``nearest``, ``nearest-exact``, or linear in each dimension: ``linear``, ``bilinear``, ``trilinear``.
        align_corners: for the linear modes: whether the corner elements keep their places.
        recompute_scale_factor: whether the scale is that of the sizes rather than the one given.

    Raises:
        ShapeError: a mode that does not fit the rank, or neither or both of size and scale.
    """
    t = tensor(x, "interpolate")
    rank = t.ndim - 2
    require(mode in _MODES, f"interpolate: there is no mode {mode!r}", remedy="one of " + ", ".join(_MODES))
    if not 1 <= rank <= 3 or _MODES[mode] not in (None, rank):
        raise ShapeError(f"interpolate: mode {mode!r} of {t}", f"it has {rank} spatial dimensions", "x is [batch, channels, ...]")
    require(align_corners is None or "nearest" not in mode, f"interpolate: align_corners has no meaning in mode {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ShapeError(f"interpolate of {t}", "either size or scale_factor says how large the result is", "give one of them")
    targets = _targets(t, rank, size, scale_factor)
    whole = t.dtype if "nearest" not in mode and not t.dtype.is_float else None  # computed in f32, rounded once
    if whole is not None:
        t = lift(lambda e: cast(e, f32), "wide", (t,))
    for d, (out, ratio) in enumerate(targets):
        kept = None if recompute_scale_factor else ratio
        if "nearest" in mode:
            t = _nearest(t, d + 2, out, kept, mode == "nearest-exact")
        else:
            t = _linear(t, d + 2, out, kept, bool(align_corners))
    return t if whole is None else lift(lambda e: cast(op("floor", e + 0.5), whole), "rounded", (t,))


def _targets(t: Tensor, rank: int, size: Any, scale: Any) -> list[tuple[Term, Fraction | None]]:
    """The new size and the scale, if it was given, of each spatial dimension."""
    given = size if size is not None else scale
    entries = list(given) if isinstance(given, (tuple, list)) else [given] * rank
    require(len(entries) == rank, f"interpolate: {given!r} does not have {rank} entries")
    if size is not None:
        return [(as_size(s, "a size in interpolate"), None) for s in entries]
    ratios = [Fraction(e).limit_denominator(1 << 16) for e in entries]
    require(all(f > 0 for f in ratios), f"interpolate: scale_factor is {scale!r}", remedy="positive numbers")
    return [(t.shape[d + 2] * f.numerator // f.denominator, f) for d, f in enumerate(ratios)]


def _quotient(t: Tensor, d: int, out: Term, ratio: Fraction | None) -> tuple[Term, Term]:
    """Numerator and denominator of the step in the input for one in the output."""
    if ratio is not None:
        return as_term(ratio.denominator), as_term(ratio.numerator)
    return t.shape[d], out


def _nearest(t: Tensor, d: int, out: Term, ratio: Fraction | None, centred: bool) -> Tensor:
    up, down = _quotient(t, d, out, ratio)
    last = t.shape[d] - 1
    exact = ratio is None or (out * up + down - 1) // down == t.shape[d]

    def body(*at: Any) -> Expr:
        i = at[d]
        place = (i * 2 + 1) * index(up) // index(down * 2) if centred else i * index(up) // index(down)

        def read(p: Any) -> Expr:
            return t.read(*at[:d], p, *at[d + 1:])

        return read(place) if exact else where(place <= index(last), read(place), read(index(last)))

    return build("nearest", [*t.shape[:d], out, *t.shape[d + 1:]], body, names_of(t))


def _linear(t: Tensor, d: int, out: Term, ratio: Fraction | None, corners: bool) -> Tensor:
    """``x[p] * (1 - w) + x[p + 1] * w`` where ``num / den = p + w`` is the place of an output; held at both ends."""
    size = t.shape[d]

    def body(*at: Any) -> Expr:
        num, den = _place(at[d], size, out, _quotient(t, d, out, ratio), corners)
        p = num // den
        weight = _fraction(num - p * den, den, t.dtype)

        def read(i: Any) -> Expr:
            return t.read(*at[:d], i, *at[d + 1:])

        inner = read(p) * (const(1, weight.dtype) - weight) + read(p + 1) * weight
        value = where(p + 1 < index(size), cast(inner, t.dtype), read(index(size - 1)))
        return value if corners else where(p >= 0, value, read(index(0)))

    return build("linear", [*t.shape[:d], out, *t.shape[d + 1:]], body, names_of(t))


def _place(i: Any, size: Term, out: Term, step: tuple[Term, Term], corners: bool) -> tuple[Any, Any]:
    up, down = step
    if corners:
        return (i * index(size - 1), index(out - 1)) if out != 1 else (index(0), index(1))
    return (i * 2 + 1) * index(up) - index(down), index(down * 2)  # (i + 1/2) * step - 1/2


def _fraction(num: Any, den: Any, dtype: Dtype) -> Expr:
    held = dtype.held
    return cast(num, held) / cast(den, held)


# -- channels as pixels --------------------------------------------------------------------------------------------
def _planes(x: Tensor, what: str) -> Tensor:
    t = tensor(x, what)
    if t.ndim < 3:
        raise ShapeError(f"{what} of {t}", f"it has {t.ndim} dimensions", "x is [.., channels, rows, columns]")
    return t


@operation
def pixel_shuffle(x: Tensor, upscale_factor: int) -> Any:
    """``(.., C * r * r, H, W) -> (.., C, H * r, W * r)``: groups of channels become blocks of pixels."""
    t, r = _planes(x, "pixel_shuffle"), upscale_factor
    channels = t.shape[-3]
    if channels % (r * r) != 0:
        raise ShapeError(f"pixel_shuffle: the {channels} channels of {t} do not part into blocks of {r} x {r}",
                         f"{channels} is not a multiple of {r * r}")
    shape = [*t.shape[:-3], channels // (r * r), t.shape[-2] * r, t.shape[-1] * r]
    return view(t, "pixel_shuffle", shape, lambda *at: [*at[:-3], at[-3] * (r * r) + at[-2] % r * r + at[-1] % r, at[-2] // r, at[-1] // r],
                names_of(t))


@operation
def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Any:
    """``(.., C, H * r, W * r) -> (.., C * r * r, H, W)``: blocks of pixels become channels."""
    t, r = _planes(x, "pixel_unshuffle"), downscale_factor
    for d in (-2, -1):
        if t.shape[d] % r != 0:
            raise ShapeError(f"pixel_unshuffle: {t} does not part into blocks of {r} x {r}",
                             f"its size {t.shape[d]} is not a multiple of {r}")
    shape = [*t.shape[:-3], t.shape[-3] * (r * r), t.shape[-2] // r, t.shape[-1] // r]
    return view(t, "pixel_unshuffle", shape, lambda *at: [
        *at[:-3], at[-3] // (r * r), at[-2] * r + at[-3] % (r * r) // r, at[-1] * r + at[-3] % r], names_of(t))


# -- windows -------------------------------------------------------------------------------------------------------
@operation
def unfold(x: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """``(N, C, H, W) -> (N, C * r * s, windows)``: every window of the planes as a column (im2col); zeros are padded."""
    t = tensor(x, "unfold")
    if t.ndim not in (3, 4):
        raise ShapeError(f"unfold takes (N, C, H, W) or (C, H, W), not {t}", remedy="windows along one axis: x.unfold(axis, size, step)")
    kernel, gaps = each(kernel_size, 2, "unfold: kernel_size"), each(dilation, 2, "unfold: dilation")
    steps, pads = each(stride, 2, "unfold: stride"), each(padding, 2, "unfold: padding", 0)
    sizes = [count(s, (p, p), k, q, g) for s, p, k, q, g in zip(t.shape[-2:], pads, kernel, steps, gaps)]
    check_count(sizes, "unfold", str(t))
    source = pad_constant(t, {t.ndim - 2 + n: (p, p) for n, p in enumerate(pads)})
    area = kernel[0] * kernel[1]

    def place(*at: Any) -> list[Any]:
        row, col = at[-2], at[-1]
        ry, rx = row % area // kernel[1], row % kernel[1]
        y, x_ = col // index(sizes[1]), col % index(sizes[1])
        return [*at[:-2], row // area, y * steps[0] + ry * gaps[0], x_ * steps[1] + rx * gaps[1]]

    return view(source, "unfold", [*t.shape[:-3], t.shape[-3] * area, product(sizes)], place)


@operation
def fold(x: Tensor, output_size: Sequence[int], kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """The adjoint of :func:`unfold`: columns are windows whose overlaps are added, ``(N, C * r * s, windows) -> (N, C, H, W)``."""
    t = tensor(x, "fold")
    kernel, gaps, steps = each(kernel_size, 2, "fold: kernel_size"), each(dilation, 2, "fold: dilation"), each(stride, 2, "fold: stride")
    pads, out = each(padding, 2, "fold: padding", 0), [as_size(s, "an output size") for s in output_size]
    area = kernel[0] * kernel[1]
    sizes = [count(s, (p, p), k, q, g) for s, p, k, q, g in zip(out, pads, kernel, steps, gaps)]
    rows = static(t.shape[-2], "the rows of fold")
    if t.ndim not in (2, 3) or rows % area or t.shape[-1] != product(sizes):
        raise ShapeError(f"fold: {t} are not the windows of {tuple(kernel)} of an image {tuple(map(str, out))}",
                         f"it needs (N, C * {area}, {product(sizes)})")

    def body(*at: Any) -> Expr:
        offsets = [reduce_axis(k, name=f"r{a}") for k, a in zip(kernel, "yx")]
        shifted = [o + p - r * g for o, p, r, g in zip(at[-2:], pads, offsets, gaps)]
        places = [s // q for s, q in zip(shifted, steps)]
        ok = [c for s, q, p, n in zip(shifted, steps, places, sizes) for c in (s % q < 1, p >= 0, p < index(n))]
        inside = ok[0]
        for c in ok[1:]:
            inside = inside & c
        row = (at[-3] * kernel[0] + offsets[0]) * kernel[1] + offsets[1]
        element = t.read(*at[:-3], row, places[0] * index(sizes[1]) + places[1])
        return reduce_over(SUM, (where(inside, element, const(0, t.dtype)),), tuple(offsets))

    return build("fold", (*t.shape[:-2], rows // area, *out), body)


__all__ = ["fold", "interpolate", "pixel_shuffle", "pixel_unshuffle", "unfold"]

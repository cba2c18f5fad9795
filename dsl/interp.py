"""The numpy meaning of a program: the oracle every other level is compared with.

A definition is evaluated over its whole box at once, in chunks of the leading axes so that memory stays bounded. A scalar
expression becomes a :class:`dsl.evaluator.Named` array, with one dimension per index variable that it depends on; operands are aligned by
name. Indices are clipped, and a read that was out of bounds is an error only where the enclosing ``where`` takes its branch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dsl.algebra import walk
from dsl.bind import bind_sizes
from dsl.dim import Var
from dsl.errors import DtypeError
from dsl.evaluator import Evaluator, Ranges, contracted, use_counts
from dsl.expr import Compute, Input, Tensor
from dsl.numerics import Array, cast_array, dtype_of, numpy_dtype
from dsl.program import Program
from dsl.widen import widen

CHUNK_POINTS = 1 << 22


def evaluate(program: Program, *arrays: Any, float64: bool = False) -> tuple[Array, ...]:
    """The outputs of ``program`` for these arguments.

    Args:
        program: widened or not; its meaning is that of ``widen(program)``.
        arrays: one per parameter, numpy arrays (ml_dtypes for bf16 and fp8) or Python numbers. A float array of another
            float dtype is converted to the declared one.
        float64: evaluate every float in float64, without any rounding to a narrower dtype: the reference for errors.

    Returns:
        One array per output, of the declared dtype (float64 for every float output when ``float64``).

    Raises:
        ShapeError: the shapes do not fit the declarations, see :func:`dsl.bind.bind_sizes`.
        DtypeError: an argument of another kind than declared.
        BoundsError: a read outside its tensor that no ``where`` masks, with the point that reads it.
    """
    given = [np.asarray(a) for a in arrays]
    sizes = bind_sizes(program, [a.shape for a in given])
    meant = program if float64 else widen(program)
    values: dict[Tensor, Array] = {t: _argument(t, a, float64) for t, a in zip(program.inputs, given)}
    with np.errstate(all="ignore"):
        for c in meant.computes:
            values[c] = _compute(c, values, sizes, float64)
    return tuple(values[c] for c in meant.outputs)


def _argument(t: Input, a: Array, float64: bool) -> Array:
    if a.dtype == numpy_dtype(t.dtype, float64):
        return a
    source = dtype_of(a)
    kinds = (source.kind, t.dtype.kind) if source is not None else ()
    if kinds and (kinds[0] == kinds[1] or a.ndim == 0 and kinds != ("float", "int")):
        return cast_array(a, t.dtype, float64)
    raise DtypeError(f"`{t.name}` is {a.dtype}, not {t.dtype}", f"it is declared {t}", f"convert it to {t.dtype} first", loc=t.loc)


def _compute(c: Compute, values: Mapping[Tensor, Array], sizes: Mapping[Var, int], float64: bool) -> Array:
    """All elements of one definition."""
    shape = tuple(_extent(a, sizes) for a in c.axes)
    out = np.empty(shape, numpy_dtype(c.dtype, float64))
    if out.size == 0:
        return out
    order = {a: n for n, a in enumerate(c.axes)}
    for ranges in _chunks(c, shape, sizes, float64):
        value = Evaluator(values, sizes, ranges, order, float64).body(c.body)
        full = tuple(ranges[a] for a in c.axes)
        box = tuple(hi - lo for lo, hi in full)
        out[tuple(slice(lo, hi) for lo, hi in full)] = np.broadcast_to(value.over(c.axes), box)
    return out


def _extent(a: Var, sizes: Mapping[Var, int]) -> int:
    assert a.extent is not None
    return max(int(a.extent.eval(sizes)), 0)


def _chunks(c: Compute, shape: tuple[int, ...], sizes: Mapping[Var, int], float64: bool) -> Iterator[Ranges]:
    """Boxes of the compute axes, cut along the leading ones so that no array holds too many points at once."""
    arrays = _arrays(c, sizes, float64)
    steps = []
    for n, (a, size) in enumerate(zip(c.axes, shape)):
        rest = [points * math.prod(s for v, s in zip(c.axes[n + 1:], shape[n + 1:]) if v in own)
                for own, points in arrays.items() if a in own]
        steps.append(min(max(CHUNK_POINTS // max(rest, default=1), 1), size))
    cuts = [[(lo, min(lo + step, size)) for lo in range(0, size, step)] for size, step in zip(shape, steps)]
    for box in itertools.product(*cuts):
        yield dict(zip(c.axes, box))


def _arrays(c: Compute, sizes: Mapping[Var, int], float64: bool) -> dict[frozenset[Var], int]:
    """The arrays an evaluation makes: for each set of the definition's own axes that one has, the most points of bound axes beside them."""
    box = Evaluator({}, sizes, {a: (0, max(_extent(a, sizes), 1)) for a in c.axes}, {}, False)
    nodes = list(walk(c.body))
    never = set(contracted(nodes, use_counts(nodes)).values()) if float64 else set()
    out = {frozenset(c.axes): 1}
    for free in {e.free for e in nodes if e not in never}:
        own = free & frozenset(c.axes)
        points = math.prod(max(box.range(v)[1], 1) for v in free - own if v.kind == "axis")
        out[own] = max(out.get(own, 1), points)
    return out

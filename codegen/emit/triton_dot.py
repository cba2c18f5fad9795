"""Products of tiles: ``tl.dot`` on operands brought to (batch, rows, contracted) and (batch, contracted, columns)."""

from __future__ import annotations

import math

from codegen.emit.triton_terms import Axes, Terms
from codegen.emit.triton_types import TL, typed
from codegen.emit.writer import atom
from codegen.tile.ir import Dot
from dsl.dim import Var
from dsl.dtype import Dtype, i64

_SMALLEST = {8: 32, 16: 16, 32: 8, 64: 4}  # contracted elements a matrix unit takes at least, by operand bits
_FP8_EXACT = 128  # contracted elements after which fp8 partial sums move from the matrix unit to f32 registers


def dot(terms: Terms, op: Dot) -> str:
    """The expression of ``acc + a @ b``, over the result's axes in order."""
    result = terms.sorted(op.results[0].axes)
    contracted = terms.sorted(op.axes)
    both = set(op.a.axes) & set(op.b.axes)
    batch = tuple(a for a in result if a in both)
    sides = [(v, tuple(a for a in terms.sorted(v.axes) if a not in both)) for v in (op.a, op.b)]
    if sides[0][1] and sides[1][1] and terms.order[sides[0][1][0]] > terms.order[sides[1][1][0]]:
        sides.reverse()  # b.T @ a.T is (a @ b).T
    (a, rows), (b, columns) = sides
    if not _fits(op.a.dtype, contracted):
        return _by_hand(terms, op, result, contracted)
    left = _matrix(terms, terms.value(a, terms.sorted(a.axes)).typed, terms.sorted(a.axes), (batch, rows, contracted))
    right = _matrix(terms, terms.value(b, terms.sorted(b.axes)).typed, terms.sorted(b.axes), (batch, contracted, columns))
    groups = (batch, rows, columns)
    facts = _facts(op)
    acc = terms.values[op.acc]
    wide = op.acc.dtype == i64
    if acc.value == 0 or wide:
        text = f"tl.dot({left}, {right}{facts})"
    else:
        whole = acc.typed
        if set(op.acc.axes) != set(result):
            whole = f"tl.broadcast_to({terms.value(op.acc, result).typed}, {terms.shape(result)})"
        text = f"tl.dot({left}, {right}, {_matrix(terms, whole, result, groups)}{facts})"
    text = _tile(terms, text, groups, result)
    return f"{terms.value(op.acc, result).text} + {text}.to(tl.int64)" if wide else text


def _fits(dtype: Dtype, contracted: Axes) -> bool:
    """Whether a matrix unit takes this product; 32- and 64-bit integers have none."""
    return (dtype.is_float or dtype.bits == 8) and math.prod(a.size for a in contracted) >= _SMALLEST[dtype.bits]


def _facts(op: Dot) -> str:
    if op.a.dtype.is_int:
        return ", out_dtype=tl.int32"
    if op.a.dtype.bits == 32:
        return f', input_precision="{op.precision}"'
    if op.a.dtype.bits == 8:
        return f", max_num_imprecise_acc={min(math.prod(a.size for a in op.axes), _FP8_EXACT)}"
    return ", out_dtype=tl.float64" if op.a.dtype.bits == 64 else ""


def _matrix(terms: Terms, text: str, axes: Axes, groups: tuple[Axes, Axes, Axes]) -> str:
    """A tile as (batch,) rows, columns: dimensions permuted, then each group of them made one."""
    wanted = tuple(a for g in groups for a in g)
    text = permute(text, axes, wanted)
    shape = [math.prod(a.size for a in g) for g in groups]
    if not groups[0]:
        shape = shape[1:]
    return text if len(shape) == len(wanted) else f"tl.reshape({text}, {shape})"


def _tile(terms: Terms, text: str, groups: tuple[Axes, Axes, Axes], result: Axes) -> str:
    """The way back."""
    axes = tuple(a for g in groups for a in g)
    if len(axes) != len([g for g in groups[1:]]) + bool(groups[0]):
        text = f"tl.reshape({text}, [{', '.join(str(a.size) for a in axes)}])"
    return permute(text, axes, result)


def permute(text: str, axes: tuple[Var, ...], wanted: tuple[Var, ...]) -> str:
    """Exchange dimensions."""
    if axes == wanted:
        return text
    if len(axes) == 2:
        return f"tl.trans({text})"
    return f"tl.permute({text}, {[axes.index(a) for a in wanted]})"


def _by_hand(terms: Terms, op: Dot, result: Axes, contracted: Axes) -> str:
    """A product too short for the matrix unit, or of wide integers: multiply and add up."""
    axes = terms.sorted({*op.a.axes, *op.b.axes})
    to = op.acc.dtype
    a, b = (f"{atom(terms.value(v, axes).typed)}.to(tl.{TL[to.name]})" for v in (op.a, op.b))
    text = f"{a} * {b}"
    for axis in reversed(contracted):
        text = f"tl.sum({text}, axis={axes.index(axis)})"
        axes = tuple(x for x in axes if x is not axis)
    acc = terms.value(op.acc, result)
    if acc.value == 0:
        return text
    return f"{atom(acc.typed) if acc.value is None else typed(acc.value, to)} + {text}"

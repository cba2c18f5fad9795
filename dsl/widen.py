"""The normalisation that makes held precision explicit: before lowering, and before the numpy meaning is taken.

A kernel over f16, bf16 or fp8 computes in f32 and rounds where its text says ``cast`` and where a result is stored. The tracer
leaves that implicit: ``x[i] * y[i]`` over bf16 is an operation of dtype bf16. :func:`widen` writes it out.
"""

from __future__ import annotations

import numpy as np

from dsl import dtype as dt
from dsl.algebra import walk
from dsl.dim import as_term
from dsl.dtype import Dtype
from dsl.expr import Cast, Compute, Const, Expr, Index, Op, Read, Reduce, Scan, Tensor, Where, const
from dsl.numerics import Array, NumpyAlgebra, apply_op, cast_array, numpy_dtype
from dsl.opset import PRECISIONS
from dsl.program import Program


def widen(program: Program, permissions: bool = False) -> Program:
    """The same program with every low-precision value held in f32 and every rounding an explicit cast.

    Args:
        program: what was traced.
        permissions: keep the user's permissions to multiply less exactly (``dlc.precision``), and write out those that a low dtype gives:
            a factor of a sum of products that is declared f16 or bf16 and held in f32 may be rounded to its dtype on the way into a matrix
            unit. Without, they are dropped.

    Before: operations, selections and reductions of low floats; after: none. Reads of low inputs become
    ``f32(read)``; a cast to a low dtype stays and is widened again (``f32(bf16(x))``); a cast that cannot change the
    value goes, and so does one marked ``unrounded``. Computes of low dtype are held, unrounded, in f32; an output keeps its dtype by a
    last cast, and is split in two when another definition reads it: that one reads the held value. Constants are folded, and
    ``detach``, which only derivatives see, goes. Definitions
    that need no change keep their identity, so the function is idempotent.
    """
    marks = _marks(program, permissions)
    outputs = set(program.outputs)
    read = {r.tensor for c in program.computes for r in walk(c.body) if isinstance(r, Read)}
    held: dict[Tensor, Compute] = {}
    final: dict[Tensor, Compute] = {}
    for c in program.computes:
        if not c.dtype.is_low:
            held[c] = _compute(c, _widen_body(c.body, held, marks))
        elif c not in outputs:
            held[c] = Compute(c.name, c.axes, _widen_body(c.body, held, marks), c.loc)
        elif c not in read:
            final[c] = _compute(c, round_to(_widen_body(c.body, held, marks), c.dtype))
        else:
            inner = Compute(f"{c.name}_held", c.axes, _widen_body(c.body, held, marks), c.loc)
            held[c] = inner
            element = Read((), (inner, tuple(as_term(a) for a in c.axes)), inner.dtype, c.loc)
            final[c] = Compute(c.name, c.axes, round_to(element, c.dtype), c.loc)
    done = tuple(final[c] if c in final else held[c] for c in program.outputs)
    if all(a is b for a, b in zip(done, program.outputs)):
        return program
    return Program(program.name, program.inputs, done, program.single, program.loc)


def _compute(c: Compute, body: Expr) -> Compute:
    return c if body is c.body else Compute(c.name, c.axes, body, c.loc)


def _widen_body(body: Expr, held: dict[Tensor, Compute], marks: bool | None) -> Expr:
    memo: dict[Expr, Expr] = {}
    for node in walk(body):
        args = tuple(memo[a] for a in node.args)
        if marks is False and isinstance(node, Op) and node.name in PRECISIONS:
            memo[node] = args[0]
            continue
        if marks and isinstance(node, Reduce) and node.carrier.name == "sum":
            args = (_permit(node.args[0], args[0]),)
        memo[node] = fold(_widen_node(node, args, held))
    return memo[body]


def _marks(program: Program, permissions: bool) -> bool | None:
    """Whether permissions are written out (True) or dropped (False); None where there is nothing to drop."""
    if permissions:
        return True
    return False if any(isinstance(e, Op) and e.name in PRECISIONS for c in program.computes for e in walk(c.body)) else None


def _permit(said: Expr, wide: Expr) -> Expr:
    """A summed product whose factors of a low dtype, held in f32, may be rounded to it."""
    if not (isinstance(said, Op) and said.name == "mul" and isinstance(wide, Op) and wide.name == "mul"):
        return wide
    factors = tuple(Op((w,), (_PERMITTED[s.dtype.name],), w.dtype, w.loc) if s.dtype.name in _PERMITTED and not _origin(w).is_low else w
                    for s, w in zip(said.args, wide.args))
    return wide if all(f is w for f, w in zip(factors, wide.args)) else Op(factors, wide.data, wide.dtype, wide.loc)


_PERMITTED = {"bf16": "as_bf16", "f16": "as_f16"}


def _widen_node(node: Expr, args: tuple[Expr, ...], held: dict[Tensor, Compute]) -> Expr:
    """One node over widened operands; its dtype is ``node.dtype.held``."""
    if isinstance(node, Cast):
        if not node.dtype.is_low:
            return _convert(args[0], node.dtype)
        exact = contains(node.dtype, _origin(args[0]))
        return _convert(args[0] if exact else Cast(args, (), node.dtype), node.dtype.held)
    if isinstance(node, Read):
        tensor: Tensor = held.get(node.tensor, node.tensor)
        same = tensor is node.tensor and all(a is b for a, b in zip(args, node.args))
        value = node if same else Read(args, (tensor, node.data[1]), tensor.dtype, node.loc)
        return _convert(value, node.dtype.held)
    if isinstance(node, Const):
        return const(node.value, node.dtype.held)
    if isinstance(node, Op) and node.name == "detach":
        return args[0]
    if isinstance(node, Op) and node.name == "unrounded":
        return _unrounded(args[0])
    if all(a is b for a, b in zip(args, node.args)) and not node.dtype.is_low:
        return node
    if isinstance(node, (Reduce, Scan)):
        carrier, out = node.data[0], node.data[2] if isinstance(node, Reduce) else node.data[3]
        return type(node)(args, node.data, carrier.result(tuple(a.dtype for a in args))[out], node.loc)
    return type(node)(args, node.data, node.dtype.held, node.loc)


def _unrounded(e: Expr) -> Expr:
    """The value under a rounding that was held."""
    rounded = e.args[0] if isinstance(e, Cast) else e
    return rounded.args[0] if isinstance(rounded, Cast) and rounded.dtype.is_low and rounded.args[0].dtype == e.dtype else e


def round_to(e: Expr, dtype: Dtype) -> Expr:
    """``e`` as a value of the low ``dtype``; the value under a widening cast when it is of that dtype already."""
    if isinstance(e, Cast) and e.args[0].dtype == dtype and e.dtype == dtype.held:
        return e.args[0]
    return Cast((e,), (), dtype)


def _convert(e: Expr, dtype: Dtype) -> Expr:
    """``e`` cast to ``dtype``; undoes an exact cast from it."""
    if e.dtype == dtype:
        return e
    if isinstance(e, Cast) and e.args[0].dtype == dtype and contains(e.dtype, dtype):
        return e.args[0]
    return Cast((e,), (), dtype)


def _origin(e: Expr) -> Dtype:
    """The narrowest dtype that is known to hold the value of ``e``: the one under exact casts."""
    while isinstance(e, Cast) and contains(e.dtype, e.args[0].dtype):
        e = e.args[0]
    return e.dtype


def contains(wide: Dtype, narrow: Dtype) -> bool:
    """Whether every value of ``narrow`` is a value of ``wide``, so that a cast is exact."""
    if wide == narrow or (narrow is dt.bool_ and wide is not dt.bool_):
        return True
    if wide is dt.bool_ or (narrow.is_float and not wide.is_float):
        return False
    if wide.is_float and not narrow.is_float:
        return narrow.bits - narrow.signed <= wide.mantissa + 1 and wide.bits >= 16
    if wide.is_float:
        return wide.bits > narrow.bits and wide.mantissa >= narrow.mantissa
    return wide.bits > narrow.bits and (wide.signed or not narrow.signed)


# -- constant folding ----------------------------------------------------------------------------------------------
def fold(e: Expr) -> Expr:
    """A literal when the operands of ``e`` are literals, else ``e``. Floats of 32 bits or more are folded in float64 and not rounded."""
    if isinstance(e, Where) and isinstance(e.args[0], Const):
        return e.args[1] if e.args[0].value else e.args[2]
    if not isinstance(e, (Op, Cast)) or not e.args:
        return e
    values = [_literal(a) for a in e.args]
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return e
    if isinstance(e, Cast):
        return e if e.dtype.is_low else _as_const(_fold_cast(e.args[0], known[0], e.dtype), e.dtype)
    return _as_const(apply_op(e.name, tuple(known)), e.dtype)


def _literal(e: Expr) -> Array | None:
    """The value of a literal: a constant, a constant index, or one of them rounded to a low dtype."""
    if isinstance(e, Const):
        return NumpyAlgebra(float64=True).const(e.value, e.dtype)
    if isinstance(e, Index) and e.term.is_const:
        return np.asarray(e.term.const, np.int64)
    if isinstance(e, Cast) and e.dtype.is_low:
        return _literal(e.args[0])
    return None


def _fold_cast(source: Expr, value: Array, dtype: Dtype) -> Array:
    if source.dtype.is_low:
        value = cast_array(value.astype(np.float32), source.dtype).astype(np.float64)
    return cast_array(value, dtype, float64=True)


def _as_const(value: Array, dtype: Dtype) -> Expr:
    return const(value.astype(numpy_dtype(dtype, True)).item(), dtype)

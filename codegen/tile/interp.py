"""The meaning of tile programs in numpy: every emitter is compared with :func:`run`.

Floats are computed in their own dtype, f32 in f32; low floats only move, are cast, and are multiplied by a dot, which
accumulates in the accumulator's dtype. Memory that nobody wrote is poisoned (NaN, or an odd integer), and so are masked-off
elements that an operation promised not to look at. Grid points run in order, but every access is checked against those of other
points in the same phase, so a race is an error here even when its result would be right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from codegen.tile.ir import (
    Block,
    Broadcast,
    Check,
    Const,
    Dot,
    For,
    If,
    Iota,
    Load,
    Map,
    Phase,
    Predicate,
    Prefetch,
    Reduce,
    Rename,
    Scan,
    Seek,
    Store,
    TileOp,
    TileProgram,
    Value,
)
from codegen.tile.memory import NUMPY, Memory, poison
from dsl.dim import Term, Var
from dsl.dtype import Dtype, bool_
from dsl.errors import BoundsError, InternalError
from dsl.opset import OPS, result_dtype

Array = Any
Axes = tuple[Var, ...]
_DTYPES = {np.dtype(n): d for d, n in NUMPY.items()}


def run(program: TileProgram, arrays: Mapping[str, Array], sizes: Mapping[Var, int]) -> dict[str, Array]:
    """Run a program.

    Args:
        program: a verified tile program.
        arrays: one per input: of the buffer's shape, or the flat memory its strides refer to; bf16 and fp8 as ml_dtypes or raw bits.
        sizes: a value for every run-time integer of the program.

    Returns:
        The outputs by name, dense, of their buffers' shapes.

    Raises:
        BoundsError: an access outside its buffer that no mask guards, or a failed run-time check.
        InternalError: two grid points of one phase touch the same element and one writes it.
    """
    env = {v: int(sizes[v]) for v in program.sizes}
    memory = {b.name: Memory(b, env, arrays[b.name] if b.scope == "input" else None) for b in program.buffers}
    with np.errstate(all="ignore"):
        for phase in program.phases:
            _run_phase(program, phase, env, memory)
    return {b.name: memory[b.name].logical() for b in program.buffers if b.scope == "output"}


def _run_phase(program: TileProgram, phase: Phase, env: dict[Var, int], shared: dict[str, Memory]) -> None:
    for memory in shared.values():
        memory.start_phase()
    extents = [range(int(extent.eval(env))) for _, extent in phase.grid]
    for point, at in enumerate(itertools.product(*extents)):
        private = {b.name: Memory(b, env, None) for b in phase.scratch}
        _Point(program, shared | private, point).block(phase.body, env | dict(zip((v for v, _ in phase.grid), at)), {})


class _Point:
    """The execution of one grid point."""

    def __init__(self, program: TileProgram, memory: dict[str, Memory], point: int) -> None:
        self.program, self.memory, self.point = program, memory, point

    def block(self, block: Block, env: dict[Var, int], values: dict[Value, Array]) -> None:
        """Run the operations of a block; ``values`` grows by their results."""
        for op in block.ops:
            results = _RUN[type(op)](self, op, env, values)
            for value, result in zip(op.results, results):
                values[value] = _of_type(value, result)

    # -- memory --------------------------------------------------------------------------------------------------
    def _mask(self, op: Load | Store | Check, axes: Axes, env: dict[Var, int], values: dict[Value, Array]) -> Array:
        keep = np.ones(_shape(axes), bool)
        for term in op.mask:
            keep &= evaluate(term, axes, env) >= 0
        for cond in op.conds:
            keep &= align(values[cond], cond.axes, axes)
        return keep

    def _places(self, op: Load | Store, axes: Axes, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        places = [align(values[i], i.axes, axes) if isinstance(i, Value) else evaluate(i, axes, env) for i in op.indices]
        return [np.broadcast_to(np.asarray(p, np.int64), _shape(axes)) for p in places]

    def load(self, op: Load, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Unmasked elements from memory; the others zero, or poison where nobody may look."""
        axes = op.results[0].axes
        keep = self._mask(op, axes, env, values)
        fill = poison(op.buffer.dtype) if op.undefined else 0
        out = np.full(_shape(axes), fill).astype(NUMPY[op.buffer.dtype])
        out[keep] = self.memory[op.buffer.name].read([p[keep] for p in self._places(op, axes, env, values)], int(keep.sum()), self.point)
        return [out]

    def store(self, op: Store, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Unmasked elements to memory."""
        axes = index_axes(op.indices, env)
        keep = self._mask(op, axes, env, values)
        value = np.broadcast_to(align(values[op.value], op.value.axes, axes), _shape(axes))
        self.memory[op.buffer.name].write([p[keep] for p in self._places(op, axes, env, values)], value[keep], self.point)
        return []

    def check(self, op: Check, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Stop at the first element outside ``[0, size)``."""
        size, value = int(op.size.eval(env)), values[op.value]
        axes = op.value.axes
        bad = self._mask(op, axes, env, values) & ((value < 0) | (value >= size))
        if bad.any():
            what = self.program.checks[op.code - 1]
            raise BoundsError(str(what), f"the index is {value[bad].flat[0]} and must be in [0, {size})")
        return []

    # -- control -------------------------------------------------------------------------------------------------
    def loop(self, op: For, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Carry values through the body."""
        carried = [_spread(values[i], i.axes, p.axes) for i, p in zip(op.inits, op.body.params)]
        for n in range(int(op.lo.eval(env)), int(op.hi.eval(env))):
            inner = values | dict(zip(op.body.params, carried))
            self.block(op.body, env | {op.var: n}, inner)
            carried = [_spread(inner[y], y.axes, p.axes) for y, p in zip(op.body.yields, op.body.params)]
        return carried

    def seek(self, op: Seek, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Run the body for one value of the variable if it is in the range."""
        at = int(values[op.value])
        if int(op.lo.eval(env)) <= at < int(op.hi.eval(env)):
            self.block(op.body, env | {op.var: at}, dict(values))
        return []

    def branch(self, op: If, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Run the body or nothing."""
        if all(t.eval(env) >= 0 for t in op.terms) and all(bool(values[c]) for c in op.conds):
            self.block(op.body, env, dict(values))
        return []

    # -- values --------------------------------------------------------------------------------------------------
    def const(self, op: Const, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """A scalar."""
        return [np.asarray(op.value).astype(NUMPY[op.results[0].dtype])]

    def iota(self, op: Iota, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Index values."""
        axes = op.results[0].axes
        return [np.broadcast_to(np.asarray(evaluate(op.term, axes, env), np.int64), _shape(axes))]

    def predicate(self, op: Predicate, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Whether all terms are non-negative."""
        keep = np.ones(_shape(op.results[0].axes), bool)
        for term in op.terms:
            keep &= evaluate(term, op.results[0].axes, env) >= 0
        return [keep]

    def map(self, op: Map, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """A pointwise operation."""
        result = op.results[0]
        return [pointwise(op.name, [align(values[a], a.axes, result.axes) for a in op.args], result.dtype)]

    def reduce(self, op: Reduce, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Neighbours are combined in pairs until one is left: the order of the axes is kept."""
        kept = op.results[0].axes
        state = [_spread(values[s], s.axes, (*op.axes, *kept)).reshape(-1, *_shape(kept)) for s in op.states]
        while len(state[0]) > 1:
            even = len(state[0]) // 2 * 2
            merged = op.carrier.combine(NUMPY_ALGEBRA, tuple(s[0:even:2] for s in state), tuple(s[1:even:2] for s in state))
            state = [np.concatenate([np.asarray(m, s.dtype), s[even:]]) for m, s in zip(merged, state)]
        return [s[0] for s in state]

    def scan(self, op: Scan, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Serial prefix combination; in reverse the later elements come second all the same."""
        axes = op.results[0].axes
        rest = tuple(a for a in axes if a is not op.axis)
        state = tuple(_spread(values[s], s.axes, (op.axis, *rest)) for s in op.states)
        order = range(op.axis.size)[::-1] if op.reverse else range(op.axis.size)
        so_far: tuple[Array, ...] | None = None
        out = [np.empty_like(s) for s in state]
        for n in order:
            here = tuple(s[n] for s in state)
            pair = (here, so_far) if op.reverse else (so_far, here)
            so_far = here if so_far is None else op.carrier.combine(NUMPY_ALGEBRA, *pair)
            for o, s in zip(out, so_far):
                o[n] = s
        return [align(o, (op.axis, *rest), axes) for o in out]

    def dot(self, op: Dot, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """A product of tiles in the accumulator's dtype."""
        result = op.results[0]
        letters = {a: chr(97 + n) for n, a in enumerate(dict.fromkeys((*op.a.axes, *op.b.axes)))}
        text = ["".join(letters[a] for a in axes) for axes in (op.a.axes, op.b.axes, result.axes)]
        a, b = (values[v].astype(NUMPY[result.dtype]) for v in (op.a, op.b))
        product = np.einsum(f"{text[0]},{text[1]}->{text[2]}", a, b, optimize=True)
        return [align(values[op.acc], op.acc.axes, result.axes) + product]

    def rename(self, op: Rename, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """The same elements."""
        new = dict(op.axes)
        return [align(values[op.value], tuple(new.get(a, a) for a in op.value.axes), op.results[0].axes)]

    def broadcast(self, op: Broadcast, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """Repeated along new axes."""
        return [_spread(values[op.value], op.value.axes, op.results[0].axes)]

    def prefetch(self, op: Prefetch, env: dict[Var, int], values: dict[Value, Array]) -> list[Array]:
        """No meaning."""
        return []


_RUN: dict[type[TileOp], Callable[..., list[Array]]] = {
    Load: _Point.load, Store: _Point.store, Check: _Point.check, For: _Point.loop, Seek: _Point.seek, If: _Point.branch,
    Const: _Point.const, Iota: _Point.iota, Predicate: _Point.predicate, Map: _Point.map, Reduce: _Point.reduce, Scan: _Point.scan,
    Dot: _Point.dot,
    Broadcast: _Point.broadcast, Rename: _Point.rename, Prefetch: _Point.prefetch,
}


# -- tiles as arrays -----------------------------------------------------------------------------------------------
def index_axes(indices: tuple[Term | Value, ...], bound: Mapping[Var, Any]) -> Axes:
    """The tile axes of an access: the variables of its indices that nothing binds, and the axes of its index values."""
    found: set[Var] = set()
    for i in indices:
        found |= set(i.axes) if isinstance(i, Value) else {v for v in i.vars if v not in bound}
    return tuple(sorted(found, key=lambda v: v.uid))


def evaluate(term: Term, axes: Axes, env: Mapping[Var, int]) -> Array:
    """An index term over tile axes, broadcastable to their shape."""
    ranges = {a: np.arange(a.size, dtype=np.int64).reshape([-1 if b is a else 1 for b in axes]) for a in axes if a in term.vars}
    return term.eval({**env, **ranges})


def align(array: Array, axes: Axes, to: Axes) -> Array:
    """A view with the dimensions in the order of ``to``, of length one where ``axes`` lacks one."""
    order = [axes.index(a) for a in to if a in axes]
    shape = [a.size if a in axes else 1 for a in to]
    return np.asarray(array).transpose(order).reshape(shape)


def _spread(array: Array, axes: Axes, to: Axes) -> Array:
    return np.broadcast_to(align(array, axes, to), _shape(to))


def _shape(axes: Axes) -> tuple[int, ...]:
    return tuple(a.size for a in axes)


def _of_type(value: Value, result: Array) -> Array:
    array = np.asarray(result)
    if array.dtype != NUMPY[value.dtype]:
        raise InternalError(f"an operation gave {array.dtype} for {value!r} of {value.dtype}")
    return np.broadcast_to(array, _shape(value.axes))


# -- pointwise operations ------------------------------------------------------------------------------------------
def pointwise(name: str, args: list[Array], dtype: Dtype) -> Array:
    """An operation of the opset, ``where`` or ``cast``, on arrays of its operand dtype; the result is of ``dtype``."""
    if name == "cast":
        return convert(args[0], dtype)
    if name == "where":
        return np.where(*args)
    if any(_DTYPES[a.dtype].is_low for a in args):
        raise InternalError(f"`{name}` computes in a low float", "cast to f32 first")
    return np.asarray(OPS[name].numpy(*args)).astype(NUMPY[dtype])


def convert(x: Array, dtype: Dtype) -> Array:
    """Conversion: floats round to nearest even, float to int truncates and saturates (NaN is 0), to bool tests ``!= 0``."""
    if dtype is bool_:
        return x != np.zeros((), x.dtype)
    if not dtype.is_int or not _DTYPES[x.dtype].is_float:
        return x.astype(NUMPY[dtype])
    lo, hi = np.iinfo(NUMPY[dtype]).min, np.iinfo(NUMPY[dtype]).max
    wide = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf)
    inside = np.where((wide > float(lo) - 1) & (wide < float(hi)), wide, 0.0).astype(NUMPY[dtype])
    return np.where(wide >= float(hi), np.asarray(hi, NUMPY[dtype]), np.where(wide <= float(lo), np.asarray(lo, NUMPY[dtype]), inside))


class NumpyAlgebra:
    """The :class:`dsl.carrier.Algebra` whose values are arrays."""

    def op(self, name: str, *args: Array) -> Array:
        """A pointwise operation with the opset's promotion."""
        rule = result_dtype(name, [self.dtype(a) for a in args])
        if isinstance(rule, str):
            raise InternalError(rule)
        return pointwise(name, [self.cast(a, rule[0]) for a in args], rule[1])

    def const(self, value: float, dtype: Dtype) -> Array:
        """A literal."""
        return np.asarray(value, NUMPY[dtype])

    def where(self, cond: Array, a: Array, b: Array) -> Array:
        """Selection."""
        return np.where(cond, a, b)

    def cast(self, x: Array, dtype: Dtype) -> Array:
        """Conversion; nothing when the dtype is right."""
        return x if self.dtype(x) == dtype else convert(x, dtype)

    def dtype(self, x: Array) -> Dtype:
        """The dtype of an array."""
        return _DTYPES[x.dtype]


NUMPY_ALGEBRA = NumpyAlgebra()

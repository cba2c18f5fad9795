"""The tile program: SSA over static-shape tiles with named axes. GPU and CPU meet here.

A :class:`Value` is a tile: a dtype and a tuple of named axes (:class:`dsl.dim.Var` of static extent); a scalar has none.
Broadcasting is by name: an operation on ``{i}`` and ``{j}`` gives ``{i, j}``. Only an emitter decides how a tile is laid out:
on a GPU it is one Triton tensor, on a CPU an array of vector registers (the axis in :attr:`TileProgram.lanes` lies along the
lanes, the others are unrolled).

Addresses and masks stay symbolic: a load or store carries one index per buffer dimension, a :class:`dsl.dim.Term` over loop
variables, sizes and tile axes, or an integer Value (a gather); a mask is a list of terms that must all be ``>= 0`` and of
bool Values. A masked-off element of a load reads as zero; a masked-off element of a store is not written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dsl.carrier import Carrier
from dsl.dim import Term, Var
from dsl.dtype import Dtype
from dsl.loc import Loc


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory a program reads or writes.

    Attributes:
        name: unique in the program; from the user's definition.
        dtype: element type in memory (bool is one byte).
        shape: extent per dimension, terms over sizes.
        strides: elements between neighbours per dimension; terms (constant, or size variables for run-time strides).
        scope: ``"input"``, ``"output"``, ``"workspace"`` (shared by all threads, lives for one call) or
            ``"scratch"`` (private to a thread or program instance).
    """

    name: str
    dtype: Dtype
    shape: tuple[Term, ...]
    strides: tuple[Term, ...]
    scope: str

    def __repr__(self) -> str:
        return self.name


class Value:
    """A tile: ``dtype`` and named ``axes``. ``hint`` is a readable name; ``op`` is what defines it (None for a block parameter)."""

    __slots__ = ("axes", "dtype", "hint", "op")

    def __init__(self, dtype: Dtype, axes: tuple[Var, ...], hint: str = "") -> None:
        self.dtype, self.axes, self.hint = dtype, axes, hint
        self.op: TileOp | None = None

    def __repr__(self) -> str:
        return f"{self.hint or 'v'}{{{', '.join(a.name for a in self.axes)}}}"


Slot = Term | Value


@dataclass(eq=False)
class TileOp:
    """Base of all operations: operand values in, result values out."""

    results: tuple[Value, ...] = field(default=(), init=False)
    loc: Loc | None = field(default=None, init=False)

    def operands(self) -> tuple[Value, ...]:
        """Every value the operation uses, nested blocks excluded."""
        return ()

    def blocks(self) -> tuple[Block, ...]:
        """Nested blocks."""
        return ()


@dataclass(eq=False)
class Block:
    """A list of operations with parameters (loop-carried values) and yielded values."""

    params: tuple[Value, ...] = ()
    ops: list[TileOp] = field(default_factory=list)
    yields: tuple[Value, ...] = ()


@dataclass(eq=False)
class Const(TileOp):
    """A scalar literal."""

    value: bool | int | float = 0


@dataclass(eq=False)
class Iota(TileOp):
    """The value (i64) of an index term, over the tile axes that occur in it."""

    term: Term


@dataclass(eq=False)
class Predicate(TileOp):
    """Bool tile: all ``terms >= 0``."""

    terms: tuple[Term, ...]


@dataclass(eq=False)
class Load(TileOp):
    """Read a tile. The result's axes are the tile axes of the indices; masked-off elements are zero.

    ``undefined`` says that nobody looks at masked-off elements, so an emitter may read any valid address instead.
    """

    buffer: Buffer
    indices: tuple[Slot, ...]
    mask: tuple[Term, ...] = ()
    conds: tuple[Value, ...] = ()
    undefined: bool = False

    def operands(self) -> tuple[Value, ...]:
        """Gather indices and mask values."""
        return tuple(i for i in self.indices if isinstance(i, Value)) + self.conds


@dataclass(eq=False)
class Store(TileOp):
    """Write a tile; ``value``'s axes are among those of the indices. ``streaming`` bypasses the caches."""

    buffer: Buffer
    indices: tuple[Slot, ...]
    value: Value
    mask: tuple[Term, ...] = ()
    conds: tuple[Value, ...] = ()
    streaming: bool = False

    def operands(self) -> tuple[Value, ...]:
        """The value, gather indices and mask values."""
        return (self.value, *(i for i in self.indices if isinstance(i, Value)), *self.conds)


@dataclass(eq=False)
class Map(TileOp):
    """A pointwise operation of ``dsl/opset.py`` by name, or ``"where"`` (cond, a, b), or ``"cast"`` (to the result's dtype)."""

    name: str
    args: tuple[Value, ...]

    def operands(self) -> tuple[Value, ...]:
        """The arguments."""
        return self.args


@dataclass(eq=False)
class Reduce(TileOp):
    """Combine the elements of a carrier's state tiles along ``axes``; the results lack those axes."""

    carrier: Carrier
    states: tuple[Value, ...]
    axes: tuple[Var, ...]

    def operands(self) -> tuple[Value, ...]:
        """The state tiles."""
        return self.states


@dataclass(eq=False)
class Scan(TileOp):
    """Inclusive prefix combination of state tiles along one axis; results have the operands' axes."""

    carrier: Carrier
    states: tuple[Value, ...]
    axis: Var
    reverse: bool = False

    def operands(self) -> tuple[Value, ...]:
        """The state tiles."""
        return self.states


@dataclass(eq=False)
class Dot(TileOp):
    """``acc + sum over axes of a*b``: a matrix product of tiles, batched over axes that ``a`` and ``b`` share besides ``axes``.

    ``precision`` is ``"ieee"``, ``"tf32"`` or ``"bf16x3"`` for f32 operands.
    """

    a: Value
    b: Value
    acc: Value
    axes: tuple[Var, ...]
    precision: str = "ieee"

    def operands(self) -> tuple[Value, ...]:
        """Both factors and the accumulator."""
        return (self.a, self.b, self.acc)


@dataclass(eq=False)
class Broadcast(TileOp):
    """``value`` repeated along the axes that the result has and it lacks (the initial value of a carried tile, say)."""

    value: Value

    def operands(self) -> tuple[Value, ...]:
        """The tile."""
        return (self.value,)


@dataclass(eq=False)
class Rename(TileOp):
    """The same tile under other axis names (extents equal)."""

    value: Value
    axes: tuple[tuple[Var, Var], ...]  # (old, new)

    def operands(self) -> tuple[Value, ...]:
        """The tile."""
        return (self.value,)


@dataclass(eq=False)
class For(TileOp):
    """``for var in range(lo, hi)``: carries ``inits`` through ``body.params`` to ``body.yields``; results are the last yields.

    ``stages`` > 1 asks for software pipelining, ``unroll`` for that many copies of the body.
    """

    var: Var
    lo: Term
    hi: Term
    inits: tuple[Value, ...]
    body: Block
    stages: int = 1
    unroll: int = 1

    def operands(self) -> tuple[Value, ...]:
        """Initial values of the carried tiles."""
        return self.inits

    def blocks(self) -> tuple[Block, ...]:
        """The body."""
        return (self.body,)


@dataclass(eq=False)
class Seek(TileOp):
    """``for var in range(lo, hi)`` of which only the iteration ``var == value`` (an i64 scalar), if there is one, runs; no results."""

    var: Var
    value: Value
    lo: Term
    hi: Term
    body: Block

    def operands(self) -> tuple[Value, ...]:
        """The iteration to go to."""
        return (self.value,)

    def blocks(self) -> tuple[Block, ...]:
        """The body."""
        return (self.body,)


@dataclass(eq=False)
class If(TileOp):
    """Run ``body`` when all ``terms >= 0`` (terms without tile axes) and all of the bool scalars ``conds`` hold; no results."""

    terms: tuple[Term, ...]
    body: Block
    conds: tuple[Value, ...] = ()

    def operands(self) -> tuple[Value, ...]:
        """The conditions that are values."""
        return self.conds

    def blocks(self) -> tuple[Block, ...]:
        """The guarded block."""
        return (self.body,)


@dataclass(eq=False)
class Prefetch(TileOp):
    """Touch the cache line of one element ahead of its use."""

    buffer: Buffer
    indices: tuple[Term, ...]
    level: int = 1


@dataclass(eq=False)
class Check(TileOp):
    """Run-time check of a data-dependent index: every element of ``value`` in ``[0, size)``, else the call reports error ``code``."""

    value: Value
    size: Term
    code: int
    mask: tuple[Term, ...] = ()
    conds: tuple[Value, ...] = ()

    def operands(self) -> tuple[Value, ...]:
        """The index tile and mask values."""
        return (self.value, *self.conds)


@dataclass(eq=False)
class Phase:
    """One parallel launch: ``body`` runs once per point of ``grid``; points are independent.

    Attributes:
        name: from the user's definition.
        grid: (variable, extent) outermost first.
        body: the work of one point.
        scratch: buffers private to a point (CPU: to a thread).
        serial: small enough that starting threads would cost more than it gains.
        warps, stages, group: GPU launch facts (num_warps, num_stages, program-order grouping of the last two grid axes).
    """

    name: str
    grid: tuple[tuple[Var, Term], ...]
    body: Block
    scratch: tuple[Buffer, ...] = ()
    serial: bool = False
    warps: int = 4
    stages: int = 2
    group: int = 0
    loc: Loc | None = None


@dataclass(eq=False)
class TileProgram:
    """Phases run in order over shared buffers.

    Attributes:
        name: the user's kernel name.
        buffers: inputs, then outputs, then workspaces.
        sizes: run-time integers (symbolic dims and strides) in argument order.
        lanes: the tile axes that lie along vector lanes on a CPU.
        checks: texts of the run-time checks, by code.
    """

    name: str
    buffers: tuple[Buffer, ...]
    sizes: tuple[Var, ...]
    phases: tuple[Phase, ...]
    lanes: frozenset[Var] = frozenset()
    checks: tuple[Any, ...] = ()


PURE = (Const, Iota, Predicate, Map, Broadcast, Rename, Load)  # what only makes a value; a load, where nothing is written between


def walk_ops(block: Block) -> Iterator[TileOp]:
    """Every operation in order, nested blocks included."""
    for op in block.ops:
        yield op
        for b in op.blocks():
            yield from walk_ops(b)


def tile_axes_of(term: Term, tile: frozenset[Var] | set[Var]) -> tuple[Var, ...]:
    """The tile axes that occur in a term, in creation order."""
    return tuple(sorted((v for v in term.vars if v in tile), key=lambda v: v.uid))


class Builder:
    """Appends operations to a block; results' dtypes and axes follow from the operands."""

    def __init__(self, block: Block, tile: set[Var]) -> None:
        self.block, self.tile = block, tile
        self.loc: Loc | None = None

    def add(self, op: TileOp, *results: Value) -> Any:
        """Append ``op`` defining ``results``; returns the single result, or the tuple."""
        op.results, op.loc = results, self.loc
        for r in results:
            r.op = op
        self.block.ops.append(op)
        return results[0] if len(results) == 1 else results

    def define(self, op: TileOp, result: Value) -> Value:
        """Append ``op`` defining one value; returns it."""
        self.add(op, result)
        return result

    def const(self, value: bool | int | float, dtype: Dtype) -> Value:
        """A scalar literal."""
        return self.define(Const(value), Value(dtype, ()))

    def map(self, name: str, args: tuple[Value, ...], dtype: Dtype, hint: str = "") -> Value:
        """A pointwise operation; axes are the union of the operands'."""
        return self.define(Map(name, args), Value(dtype, union_axes(*args), hint))


def union_axes(*values: Value) -> tuple[Var, ...]:
    """Every axis of the values, in creation order."""
    return tuple(sorted({a for v in values for a in v.axes}, key=lambda v: v.uid))

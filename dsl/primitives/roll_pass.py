"""The stages of a pass while they are made: definitions over a block of the reduced axis, and the states that a block brings up to date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dsl.algebra import substitute
from dsl.cascade.crossing import Crossing
from dsl.cascade.model import Accumulator, Cascade, Component
from dsl.dim import Term, Var, as_term, cdiv
from dsl.expr import Compute, Const, Expr, Read, Reduce, Tensor, index, op, where
from dsl.nest import Nest, Stage, State
from dsl.primitives.rolled import bare


@dataclass(frozen=True, eq=False)
class Crossed:
    """A sum along the rows of a pass.

    Attributes:
        crossing, acc: which it is.
        state, after: its state, and the definition of its value after a block.
        places: its tensor's axes as the derivation names them.
        axes, value: those axes anew, and the read of ``after`` at a point of the pass and of the axes that the pass lacks.
        alone: the result that is the state itself; None where results are made of it.
    """

    crossing: Crossing
    acc: Accumulator
    state: State
    after: Compute
    places: tuple[Var, ...]
    axes: tuple[Var, ...]
    value: Expr
    alone: Component | None


@dataclass
class Pass:
    """The stages as they are made, over canonical variables: rows, extra axes, the block ``at`` and the point ``inner`` in it.

    Attributes:
        nest, c: what is rolled.
        axis, block: the axis that is cut into blocks, and points in one.
        name: of the rolling stage.
        share: whether values that several states are made of are computed once for a block and kept.
        parts: passes over a share of the blocks each.
        again: whether what elements are made of is computed for the pass alone.
        crossing: sums along the rows that go along.
        made, last, aside: stages of a block; those at its end; those outside of the pass.
        states: (result, state, definition of its value after a block, axes).
        fixed: placeholders of states -> what no block changes.
        before, after: the read of every state's placeholder -> its value before and after a block.
        crossed: those sums as they are made.
        tiles, shifts, means: values made once for a block, by what they are.
    """

    nest: Nest
    c: Cascade
    axis: Var
    block: int
    name: str
    share: bool
    parts: int = 1
    again: bool = False
    crossing: tuple[Crossing, ...] = ()
    made: list[Stage] = field(default_factory=list)
    last: list[Stage] = field(default_factory=list)
    aside: list[Stage] = field(default_factory=list)
    fixed: dict[Expr, Expr] = field(default_factory=dict)
    states: list[tuple[Tensor, State, Compute, tuple[Var, ...]]] = field(default_factory=list)
    crossed: list[Crossed] = field(default_factory=list)
    before: dict[Expr, Expr] = field(default_factory=dict)
    after: dict[Expr, Expr] = field(default_factory=dict)
    tiles: dict[tuple[object, ...], Expr] = field(default_factory=dict)
    shifts: dict[tuple[object, ...], Expr] = field(default_factory=dict)
    means: dict[tuple[object, ...], Compute] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The canonical variables."""
        assert self.axis.extent is not None
        self.each = each = cdiv(cdiv(self.axis.extent, self.block), self.parts)
        self.at = Var(f"{self.axis.name}_b", each)
        self.part = Var(f"{self.axis.name}_p", as_term(self.parts))
        self.inner = Var(self.axis.name, as_term(self.block))
        first = as_term(self.at) + (as_term(self.part) * each if self.parts > 1 else 0)
        self.point = first * self.block + as_term(self.inner)
        self.rows = (self.part, *self.c.rows) if self.parts > 1 else self.c.rows
        self.bound = tuple(self.inner if v is self.axis else v for v in self.c.axes)
        self.whole = self.axis.extent == each * self.parts * self.block

    def local(self, e: Expr) -> Expr:
        """An expression over the reduced axis at a point of the block."""
        return substitute(e, {self.axis: self.point})

    def inside(self, e: Expr, neutral: Expr) -> Expr:
        """The element, and what changes nothing past the end of the axis."""
        assert self.axis.extent is not None
        return e if self.whole else where(op("lt", index(self.point), index(self.axis.extent)), e, neutral)

    def define(self, name: str, axes: Sequence[Var], body: Expr | Sequence[Expr], last: bool = False) -> tuple[Compute, ...]:
        """A stage over the block and some canonical axes, with variables of its own."""
        bodies = list(body) if not isinstance(body, Expr) else [body]
        canonical = (self.at, *axes)
        own = tuple(Var(v.name, v.extent) for v in canonical)
        bound = bodies[0].axes if isinstance(bodies[0], Reduce) else ()
        fresh = tuple(Var(v.name, v.extent) for v in bound)
        env: dict[Var, Term] = {v: as_term(o) for v, o in zip((*canonical, *bound), (*own, *fresh))}
        unique = self.unique(name)
        tensors = []
        for n, b in enumerate(bodies):
            new = substitute(b, env)
            if isinstance(b, Reduce):
                new = Reduce(tuple(substitute(a, env) for a in b.args), (b.carrier, fresh, b.out), b.dtype, b.loc)
            tensors.append(Compute(unique if len(bodies) == 1 else f"{unique}{n}", own, new, self.c.components[0].tensor.loc))
        s = Stage(unique, tuple(tensors), own, fresh, attach=(self.name, self.at.name))
        (self.last if last else self.made).append(replace(s, order=tuple(s.axis_names().values())))
        return tuple(tensors)

    def unique(self, name: str) -> str:
        """The name, or one like it that no stage has."""
        taken = {s.name for s in (*self.nest.stages, *self.made, *self.last, *self.aside)}
        n, out = 1, name
        while out in taken:
            out, n = f"{name}{n}", n + 1
        return out

    def read(self, t: Tensor, axes: Sequence[Var]) -> Expr:
        """A read in this block, at the point of some canonical axes."""
        return t.read(index(self.at), *(index(v) for v in axes))

    def state(self, acc: Accumulator, n: int, initial: Expr) -> Expr:
        """Declare a carried state; the read of the value before the block."""
        axes = (*self.rows, *acc.extra)
        shape = tuple(v.extent for v in (self.at, *axes) if v.extent is not None)
        t = acc.state[n]
        before = Tensor(f"{t.name}.before", shape, t.dtype, acc.loc)
        read = self.read(before, axes)
        self.before[acc.read(self.c.rows, n)] = read
        self.states.append((t, State(before, initial), None, axes))  # type: ignore[arg-type]  # its value is defined last
        return read

    def becomes(self, acc: Accumulator, n: int, after: Compute) -> None:
        """The value after the block."""
        self.after[acc.read(self.c.rows, n)] = self.read(after, (*self.rows, *acc.extra))
        self.states = [(t, s, after if t is acc.state[n] else a, axes) for t, s, a, axes in self.states]

    def tile(self, e: Expr, acc: Accumulator) -> Expr:
        """A tile of values over the axes they depend on."""
        if isinstance(bare(e), (Read, Const)) or not e.free & set(self.bound):
            return e
        key = ("tile", id(e))
        if key not in self.tiles:
            axes = tuple(v for v in (*self.rows, *acc.extra, *self.bound) if v in e.free)
            (t,) = self.define("values", axes, e)
            self.tiles[key] = self.read(t, axes)
        return self.tiles[key]

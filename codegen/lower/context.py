"""State of one lowering: where values are bound, what is known to hold, and the block being filled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from codegen.tile.ir import Block, Buffer, Builder, Value
from dsl.dim import INF, ONE, Div, Term, Var, as_term, nonneg, without_quotient
from dsl.errors import ScheduleError
from dsl.expr import Expr, Tensor
from dsl.nest import Nest
from dsl.placing import Placed


@dataclass
class InMemory:
    """A tensor that lies in a buffer; ``placed`` gives the start of its region when it is private to one."""

    buffer: Buffer
    placed: Placed | None = None


@dataclass
class InRegisters:
    """A tensor whose current region is one tile value."""

    value: Value
    placed: Placed


Binding = InMemory | InRegisters


@dataclass
class Context:
    """Everything the lowering of one phase carries along.

    Attributes:
        env: loop variables that stand for a term (peeled or renamed loops).
        facts: terms that are ``>= 0`` whenever the code being emitted runs.
        memo: values of expressions already emitted in scope.
        tile: variables that are axes of tiles.
        mask_private: see :func:`codegen.lower.lower`.
        relevant: terms over a stage's axes that are ``>= 0`` wherever its points matter, by the stage's name.
    """

    nest: Nest
    placed: Mapping[str, Placed]
    builder: Builder
    env: dict[Var, Term] = field(default_factory=dict)
    facts: list[Term] = field(default_factory=list)
    memo: dict[tuple[object, ...], Value] = field(default_factory=dict)
    bindings: dict[Tensor, Binding] = field(default_factory=dict)
    scratch: list[Buffer] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    lanes: set[Var] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    guards: tuple[Value, ...] = ()
    mask_private: bool = False
    relevant: Mapping[str, tuple[Term, ...]] = field(default_factory=dict)

    @property
    def tile(self) -> set[Var]:
        """Variables that are tile axes."""
        return self.builder.tile

    def term(self, t: Term, p: Placed) -> Term:
        """An index term of a stage's body over loop variables as they stand here."""
        return t.subs(p.value).subs(self.env)

    def holds(self, t: Term) -> bool:
        """Whether ``t >= 0`` is proved in this scope."""
        return nonneg(t, self.facts)

    def unproved(self, terms: tuple[Term, ...] | list[Term]) -> tuple[Term, ...]:
        """The terms that still need a mask, resolved to this scope, without quotients and without those that follow from others."""
        resolved = dict.fromkeys(without_quotient(t.subs(self.env)) for t in terms)
        return without_implied([t for t in resolved if not self.holds(t)])

    @contextmanager
    def block(self, block: Block, env: dict[Var, Term] | None = None, facts: list[Term] | None = None) -> Iterator[Builder]:
        """Fill another block; what is emitted outside stays visible, what is emitted inside does not leak."""
        saved = (self.builder.block, self.env, self.facts, self.memo)
        self.builder.block = block
        self.env = {**self.env, **(env or {})}
        self.facts = [*self.facts, *(facts or [])]
        self.memo = dict(self.memo) if not env else {}
        yield self.builder
        self.builder.block, self.env, self.facts, self.memo = saved

    def unique(self, name: str) -> str:
        """A buffer name not used before."""
        n, out = 1, name
        while out in self.names:
            out, n = f"{name}_{n}", n + 1
        self.names.add(out)
        return out

    def key(self, e: Expr, p: Placed) -> tuple[object, ...]:
        """What identifies an expression's value in scope: the expression with its indices resolved, and where its gathers are checked."""
        return (p.stage.name, e, self.guards)

    def known(self, e: Expr, p: Placed) -> Value | None:
        """The value of an expression emitted before, here or with its gathers checked at more points."""
        return next((v for n in range(len(self.guards) + 1) if (v := self.memo.get((p.stage.name, e, self.guards[:n]))) is not None), None)


def without_implied(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The terms less those that are ``>= 0`` wherever the others are."""
    kept = list(dict.fromkeys(terms))
    for t in tuple(kept) if len(kept) > 1 else ():
        others = [k for k in kept if k is not t]
        if nonneg(t, others):
            kept = others
    return tuple(kept)


def storage_index(binding: InMemory, point: tuple[Term, ...]) -> tuple[Term, ...]:
    """Where a point of a tensor lies in its buffer: counted from the region's start, through the stage's layout."""
    p = binding.placed
    if p is None:
        return point
    offsets = {a: t - p.start[a] for a, t in zip(p.stage.axes, point)}
    if p.stage.layout is None:
        return tuple(offsets[a] for a in p.stage.axes)
    return tuple(t.subs(offsets) for t in p.stage.layout)


def storage_shape(p: Placed) -> tuple[Term, ...]:
    """Shape of the buffer that holds a stage's region in its layout."""
    extents = [p.extent[a] for a in p.stage.axes]
    if p.stage.layout is None:
        return tuple(extents)
    env: dict[Var, Term] = {a: as_term(Var(a.name, e)) for a, e in zip(p.stage.axes, extents)}
    return tuple(_greatest(t.subs(env)) + 1 if t.parts else ONE for t in p.stage.layout)


def _greatest(t: Term) -> Term:
    """The greatest value of a storage index: a number, or a term over sizes for one that grows with every axis."""
    most = t.bounds[1]
    if most < INF:
        return as_term(int(most))
    if not _grows(t):
        raise ScheduleError(f"the layout `{t}` of a region of unknown size", "its greatest value is not known",
                            "lay it out by quotients and remainders of its axes")
    return t.subs({v: v.extent - 1 for v in t.vars if v.extent is not None})


def _grows(t: Term) -> bool:
    """Whether a term never falls as an axis grows: sums of axes and their quotients, with positive factors."""
    atoms = [a for mono in t.parts for a in mono]
    return (all(c > 0 for c in t.parts.values())
            and all(isinstance(a, Var) or type(a) is Div and a.den.is_const and _grows(a.num) for a in atoms))

"""The proof that every read lies inside its tensor, under the conditions of the ``where`` branches around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dsl.algebra import walk
from dsl.conditions import Conditions, Facts, conjunction, possible
from dsl.dim import Term, Var, nonneg
from dsl.errors import BoundsError
from dsl.expr import Compute, Expr, Input, Read, Reduce, Scan, Where
from dsl.program import Program
from dsl.witness import Point, find_witness

Guards = frozenset[tuple[Expr, bool]]
MOST_CONTEXTS = 32


@dataclass(frozen=True)
class RuntimeCheck:
    """A data-dependent index that is not proved inside its tensor.

    Attributes:
        compute: the definition that reads.
        read: the read.
        dimension: which of its indices.
        guards: the conditions around it, each with whether it holds there; a check must not fail where one does not.
    """

    compute: Compute
    read: Read
    dimension: int
    guards: Guards

    @property
    def index(self) -> Expr:
        """The index expression."""
        i = self.read.indices[self.dimension]
        assert isinstance(i, Expr)
        return i

    @property
    def size(self) -> Term:
        """The size it must be below."""
        return self.read.tensor.shape[self.dimension]

    @property
    def source(self) -> Input | None:
        """The parameter whose elements are the index, all of them and unguarded; then its least and greatest value decide."""
        e = self.index
        return e.tensor if isinstance(e, Read) and isinstance(e.tensor, Input) and not self.guards else None

    def __str__(self) -> str:
        return f"0 <= {self.index} < {self.size} in {self.read}"


@dataclass
class _Place:
    """One index of one read, under one set of guards."""

    compute: Compute
    read: Read
    dimension: int
    guards: Guards
    size: Term = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.read.tensor.shape[self.dimension]


def prove_bounds(program: Program) -> None:
    """Prove every affine read inside its tensor, under the conditions of the ``where`` branches around it.

    Sizes are at least 1; what is not evaluated, because an axis is empty or a condition is false, is not checked.
    Data-dependent indices that are not proved are listed by :func:`runtime_checks`.

    Raises:
        BoundsError: a read is outside at some point (the message names it), or could not be proved inside.
    """
    known = Conditions()
    for place in _places(program):
        index = place.read.indices[place.dimension]
        if isinstance(index, Term):
            _prove(known, place, index)


def runtime_checks(program: Program) -> list[RuntimeCheck]:
    """The data-dependent indices that clamps, remainders and guards do not prove inside their tensors."""
    known = Conditions()
    out = []
    for place in _places(program):
        index = place.read.indices[place.dimension]
        if isinstance(index, Expr) and not _gather_proved(known, place, index):
            out.append(RuntimeCheck(place.compute, place.read, place.dimension, place.guards))
    return out


def _places(program: Program) -> Iterator[_Place]:
    for c in program.computes:
        if any(a.extent == 0 for a in c.axes):
            continue
        for read, contexts in _contexts(c.body).items():
            for guards in sorted(contexts, key=len):
                yield from (_Place(c, read, n, guards) for n in range(read.tensor.ndim))


def _contexts(body: Expr) -> dict[Read, set[Guards]]:
    """For every read that may be evaluated, the sets of conditions under which it is."""
    nodes = list(walk(body))
    reached: dict[Expr, set[Guards]] = {body: {frozenset()}}
    out: dict[Read, set[Guards]] = {}
    for e in reversed(nodes):
        here = reached.pop(e, set())
        if not here:
            continue
        if isinstance(e, Read):
            out[e] = here
        bound = e.axes if isinstance(e, Reduce) else (e.axis,) if isinstance(e, Scan) else ()
        if any(a.extent == 0 for a in bound):
            continue
        for n, a in enumerate(e.args):
            guards = {g | {(e.args[0], n == 1)} for g in here} if isinstance(e, Where) and n else here
            reached[a] = _weakest(reached.get(a, set()) | guards)
    return out


def _weakest(contexts: set[Guards]) -> set[Guards]:
    """Without those that another one implies; too many are replaced by what they have in common."""
    out = {g for g in contexts if not any(h < g for h in contexts)}
    return out if len(out) <= MOST_CONTEXTS else {frozenset.intersection(*out)}


# -- one obligation --------------------------------------------------------------------------------------------------
def _facts(known: Conditions, guards: Guards) -> list[Facts]:
    ordered = sorted(guards, key=lambda g: str(g[0]) if len(guards) > 1 else "")
    return conjunction([known.facts(e, holds) for e, holds in ordered])


def _prove(known: Conditions, place: _Place, index: Term) -> None:
    for facts in _facts(known, place.guards):
        for claim in (index, place.size - 1 - index):
            if not nonneg(claim, facts) and possible(facts):
                raise _error(known, place, index, claim, facts)


def _gather_proved(known: Conditions, place: _Place, index: Expr) -> bool:
    around = _facts(known, place.guards)
    for value, chosen in known.cases(index):
        t = known.term(value)
        for facts in conjunction([around, chosen]):
            if not all(nonneg(claim, facts) for claim in (t, place.size - 1 - t)):
                return False
    return True


# -- the message -------------------------------------------------------------------------------------------------------
def _error(known: Conditions, place: _Place, index: Term, claim: Term, facts: Facts) -> BoundsError:
    read, name = place.read, place.read.tensor.name
    guard = "guard the read: dlc.where(condition on the index, element, 0), or shrink the shape"
    note = _data_note(known, place)
    point = find_witness(claim, facts)
    if point is None:
        return BoundsError(f"{read} cannot be proved in bounds",
                           f"{'0 <= ' + str(index) if claim is index else f'{index} < {place.size}'} is not shown by the ranges of"
                           f" {_ranges(index, place.size)}{' and the conditions around it' if place.guards else ''}{note}",
                           f"clamp it, min(max({index}, 0), {place.size - 1}), or guard it by a condition on this index itself", read.loc)
    at = _assignments(point, {v for v in index.vars | place.size.vars if v not in known.opaque})
    element = ", ".join(str(i.subs(point)) if isinstance(i, Term) else str(i) for i in read.indices)
    count = place.size.subs(point)
    size = f"{name} has {count} element{'' if count == 1 else 's'}" + (f" in dimension {place.dimension}" if read.tensor.ndim > 1 else "")
    return BoundsError(f"{read} is out of bounds", f"{at + ' reads' if at else 'it reads'} {name}[{element}], but {size}{note}", guard, read.loc)


def _assignments(point: Point, shown: set[Var]) -> str:
    """``i = M - 1``, sizes first: ``with M = 3, i = 2``."""
    while more := {w for v in shown if v in point and v.extent is not None for w in v.extent.vars if w.kind == "dim" and w in point} - shown:
        shown = shown | more
    sizes = ", ".join(f"{v} = {point[v]}" for v in sorted(point, key=lambda v: v.uid) if v.kind == "dim" and v in shown)
    axes = ", ".join(f"{v} = {point[v]}" for v in sorted(point, key=lambda v: v.uid) if v.kind != "dim" and v in shown)
    return f"with {sizes}{', ' if axes else ''}{axes}" if sizes else axes


def _ranges(*terms: Term) -> str:
    axes = sorted({v for t in terms for v in t.vars if v.kind == "axis"}, key=lambda v: v.uid)
    return ", ".join(f"{v} in [0, {v.extent})" for v in axes) or "the sizes"


def _data_note(known: Conditions, place: _Place) -> str:
    unseen = [e for e, holds in place.guards if known.facts(e, holds) == [()]]
    return f"\nthe condition `{unseen[0]}` depends on data, so it says nothing about the index" if unseen else ""


